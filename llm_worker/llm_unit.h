/* llm_unit.h - one leased unit in the language model: which of its captions are there.
 *
 * Who may call: the compute thread.
 * Units: prompts are those of all its items, in the order of unit_prompts.
 * Memory: the unit owns its texts; `work` is given back to the session by the caller.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_LLM_WORKER_LLM_UNIT_H
#define BLIPLINE_LLM_WORKER_LLM_UNIT_H

#include "base/buf.h"
#include "base/err.h"
#include "llm_worker/generate.h"
#include "llm_worker/prompts.h"

#include <stdint.h>

struct unit_caption {
    size_t start, size_bytes; /* in texts */
    float logprob, score;
    uint32_t tokens;
};

struct unit {
    struct unit *next;
    struct worker_work *work;
    uint64_t serial; /* of 32 bits */
    uint64_t recipe_hash;
    struct unit_prompts prompts;
    struct generation_options options;
    uint32_t n_counted;           /* items, in the session's counters */
    uint32_t n_submitted, n_done; /* prompts; those of items with a problem count as done at once */
    void *image_rows;             /* [n_items, Q, L] of image_dtype; NULL once all are submitted */
    enum dtype image_dtype;
    struct unit_caption *captions; /* [prompts.n, n_return] */
    struct buf texts;
    int64_t started_ns, compute_ns;
};

/* Takes the work. `t` and `config` NULL: device null. On failure *work is still the caller's. */
int llm_unit_new(struct worker_work **work, uint64_t serial, const struct tokenizer *t, const struct config *config,
                 struct unit **ret, struct err *err) CHECK_RESULT;
void llm_unit_free(struct unit *u);

/* What names prompt i of a unit among all requests: a unit of many items can have more prompts than 16 bits count. */
static inline uint64_t llm_unit_tag(const struct unit *u, uint32_t i)
{
    return u->serial << 32 | i;
}
static inline uint64_t llm_unit_serial(uint64_t tag)
{
    return tag >> 32;
}
static inline uint32_t llm_unit_prompt(uint64_t tag)
{
    return (uint32_t)tag;
}

/* The request of prompt i; borrows from the unit. */
struct generate_request llm_unit_request(const struct unit *u, uint32_t i, const struct config *config, int n_queries,
                                         int width);
/* Why prompt i will not be asked: its item has a problem. */
bool llm_unit_skips(const struct unit *u, uint32_t i);
/* The captions of prompt i. A result without anything is a problem of the item. */
int llm_unit_note(struct unit *u, uint32_t i, const struct generate_result *r, const struct tokenizer *t,
                  const struct config *config, struct err *err) CHECK_RESULT;
/* device null: the same word for every caption. */
int llm_unit_note_null(struct unit *u) CHECK_RESULT;
bool llm_unit_is_done(const struct unit *u);

/* The Record rows of the result; *ret_n_failed: how many are errors. */
int llm_unit_rows(const struct unit *u, struct buf *ret, uint32_t *ret_n_failed) CHECK_RESULT;

#endif
