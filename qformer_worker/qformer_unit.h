/* qformer_unit.h - one leased unit at a Q-Former node: its texts, and the rows of its result.
 *
 * Who may call: the compute thread.
 * Units: rows are the work's items in order; arrays f32.
 * Memory: the unit owns texts and scores; `work` is given back to the session by the caller.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_UNIT_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_UNIT_H

#include "base/buf.h"
#include "base/err.h"
#include "qformer_worker/texts.h"

#include <stdint.h>

/* What a Q-Former of this shape hands out. */
struct qformer_shape {
    uint32_t n_queries, width; /* Q, E */
    uint32_t out_width;        /* L; 0: no language model */
    uint32_t embed_width;      /* d; 0: reads no text */
    uint32_t image_width;      /* C */
    int max_text, n_words;     /* tokens of a text; ids of tokens are below n_words */
};

/* Results of images, each [n, ...]; NULL: not wanted by any unit. */
struct qformer_results {
    void *projected; /* [n, Q, L] of the type that tensors travel in */
    float *queries;  /* [n, Q, E] */
    float *itc;      /* [n, Q, d] */
    float *cls;      /* [n, C] */
};

struct qformer_unit {
    struct worker_work *work;
    size_t first_image; /* in the group's arrays */
    struct unit_texts texts;
    float *text_embeds; /* [texts.n, d]; rows of texts without ids are 0 */
};

/* Takes the work; checks that a Q-Former of this shape can do what is asked. `t` NULL: device null. On failure *work is
 * still the caller's, and *ret_code says why in a word. */
int qformer_unit_new(struct worker_work **work, const struct qformer_shape *shape, const struct tokenizer *t,
                     struct qformer_unit **ret, const char **ret_code, struct err *err) CHECK_RESULT;
void qformer_unit_free(struct qformer_unit *u);

/* Record rows of the result; *ret_n_failed: how many are errors. `r` are the group's results. */
int qformer_unit_rows(const struct qformer_unit *u, const struct qformer_shape *shape, const struct qformer_results *r,
                      struct buf *ret, uint32_t *ret_n_failed) CHECK_RESULT;

#endif
