/* stages.h - a worker's stage without its daemon: the model loaded as the daemon loads it, and a batch to run again and
 * again.
 *
 * Weights decide nothing here but the end of a caption: the language model runs a forced number of new tokens.
 * Who may call: benchmarks, one thread.
 * Units:  images of a run; bytes.
 * Memory: bench_stage_free; checkpoint and operators must outlive the stage.
 * Errors: 0 or a negative errno with err. */
#ifndef BLIPLINE_BENCH_STAGES_H
#define BLIPLINE_BENCH_STAGES_H

#include "base/err.h"
#include "model/checkpoint.h"
#include "model/weights.h"
#include "tensor/ops.h"

#include <stdbool.h>
#include <stddef.h>

enum { BENCH_TEXTS = 5 /* an image */, BENCH_TEXT_TOKENS = 12 };

struct bench_stage;

struct bench_stage_kind {
    const char *name; /* "encoder", "qformer", "qformer-device", "score", "llm", "beams" */
    enum stage weights;
    bool (*applies)(const struct checkpoint *c);
    int (*open)(struct bench_stage *s, struct err *err);
    int (*run)(struct bench_stage *s);
    void (*close)(struct bench_stage *s);
};

struct bench_stage {
    const struct bench_stage_kind *kind;
    const struct checkpoint *checkpoint;
    struct ops *ops;
    int n_images, n_new; /* of a run; new tokens an image, for the language model */
    size_t cache_bytes;  /* KV cache, once open */
    void *model;         /* the kind's own */
    void *in, *out;
};

/* In the order of the pipeline; ends with a kind without a name. */
extern const struct bench_stage_kind bench_stage_kinds[];
const struct bench_stage_kind *bench_stage_find(const char *name); /* NULL: none */

/* n_new is looked at by the language model only. */
int bench_stage_new(const struct bench_stage_kind *kind, const struct checkpoint *c, struct ops *o, int n_images,
                    int n_new, struct bench_stage **ret, struct err *err) CHECK_RESULT;
void bench_stage_free(struct bench_stage *s);
/* All images once through the stage. */
int bench_stage_run(struct bench_stage *s) CHECK_RESULT;

#endif
