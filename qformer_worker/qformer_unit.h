/* qformer_unit.h - one leased unit in the Q-Former: its texts, and the rows of its result.
 *
 * Who may call: the compute thread.
 * Units: rows follow the work's items; arrays are f32.
 * Memory: the unit owns texts and scores; the caller returns `work` to the session.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_UNIT_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_UNIT_H

#include "base/buf.h"
#include "base/err.h"
#include "qformer_worker/texts.h"

#include <stdint.h>

/* The shape of a Q-Former's inputs and outputs. */
struct qformer_shape {
    uint32_t n_queries, width; /* Q, E */
    uint32_t out_width;        /* L; 0: no language model */
    uint32_t embed_width;      /* d; 0: no text support */
    uint32_t image_width;      /* C */
    int max_text, n_words;     /* tokens of a text; ids of tokens are below n_words */
};

/* Results of images, each [n, ...]; NULL: no unit needs it. */
struct qformer_results {
    void *projected; /* [n, Q, L] in the type of sent tensors */
    float *queries;  /* [n, Q, E] */
    float *itc;      /* [n, Q, d] */
    float *cls;      /* [n, C] */
};

struct qformer_unit {
    struct worker_work *work;
    size_t first_image; /* index in the group's arrays */
    struct unit_texts texts;
    float *text_embeds; /* [texts.n, d]; rows of texts without ids are 0 */
};

/* Takes the work and checks that a Q-Former of this shape can do it. `t` NULL: device null. On failure the caller
 * keeps *work, and *ret_code is a one-word reason. */
int qformer_unit_new(struct worker_work **work, const struct qformer_shape *shape, const struct tokenizer *t,
                     struct qformer_unit **ret, const char **ret_code, struct err *err) CHECK_RESULT;
void qformer_unit_free(struct qformer_unit *u);

/* Writes the Record rows of the result; *ret_n_failed: number of errors. `r`: the group's results. */
int qformer_unit_rows(const struct qformer_unit *u, const struct qformer_shape *shape, const struct qformer_results *r,
                      struct buf *ret, uint32_t *ret_n_failed) CHECK_RESULT;

#endif
