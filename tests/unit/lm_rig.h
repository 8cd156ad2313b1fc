/* lm_rig.h - for tests: a language model with a cache of which every second row is used.
 *
 * Rows are assigned out of order, so that a graph that mixes up rows fails.
 * Errors: a call that fails ends the test with the reason. Memory: lm_rig_close frees everything. */
#ifndef BLIPLINE_TESTS_UNIT_LM_RIG_H
#define BLIPLINE_TESTS_UNIT_LM_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "llm_worker/lm.h"
#include "model/checkpoint.h"
#include "tensor/ops.h"

/* rc >= 0, or the test fails with the message */
#define LM_RIG_OK(call, err)                       \
    do {                                           \
        if ((call) < 0)                            \
            fail_msg("%s: %s", #call, (err).text); \
    } while (0)

enum { LM_RIG_KV_ROWS = 2048, LM_RIG_MAX_ROWS = 768, LM_RIG_SEQUENCES = 16 };

struct lm_rig {
    struct ops *o;
    struct checkpoint *c;
    struct lm *m;
    int n_prefix_rows; /* handed out from the front */
    int n_tail_rows;   /* handed out from the back, every second one */
};

/* "cpu", "ref" or "bf16" (NULL if the processor lacks it). */
struct ops *lm_rig_ops(const char *name);
/* Borrows `o`. */
void lm_rig_open(struct lm_rig *r, const char *dir, struct ops *o);
void lm_rig_close(struct lm_rig *r);

/* All rows are free again. */
void lm_rig_clear(struct lm_rig *r);
int32_t lm_rig_tail_row(struct lm_rig *r);
/* A start with prefix rows and, if the model needs one, a row for the start token. */
struct lm_start lm_rig_start(struct lm_rig *r, const float *image_rows, int n_image_rows, const int32_t *ids,
                             int n_ids);

/* logits: host [n_starts + n_tokens, V] */
void lm_rig_forward(struct lm_rig *r, int n_starts, const struct lm_start *starts, int n_tokens,
                    const struct lm_token *tokens, float *logits);
/* One start alone. */
void lm_rig_first(struct lm_rig *r, const struct lm_start *start, float *logits);

/* A running sequence with its own tail. */
struct lm_rig_sequence {
    struct lm_start start;
    int32_t tail[64];
    int n_tail;
};
struct lm_rig_sequence lm_rig_sequence(const struct lm_rig *r, const struct lm_start *start);
/* The next token of the sequence; takes a row for it. */
struct lm_token lm_rig_next(struct lm_rig *r, struct lm_rig_sequence *s, int32_t id);

#endif
