/* llm_unit.h - one leased unit in the language model and its captions so far.
 *
 * Who may call: the compute thread.
 * Units: prompts of all items, in the order of unit_prompts.
 * Memory: the unit owns its texts; the caller returns `work` to the session.
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
    uint64_t serial; /* 32 bits used */
    uint64_t recipe_hash;
    struct unit_prompts prompts;
    struct generation_options options;
    uint32_t n_counted;           /* items already reported to the session */
    uint32_t n_submitted, n_done; /* prompts; those of failed items count as done at once */
    void *image_rows;             /* [n_items, Q, L] of image_dtype; NULL once all are submitted */
    enum dtype image_dtype;
    struct unit_caption *captions; /* [prompts.n, n_return] */
    struct buf texts;
    int64_t started_ns, compute_ns;
};

/* Takes the work. `t` and `config` NULL: device null. On failure the caller keeps *work. */
int llm_unit_new(struct worker_work **work, uint64_t serial, const struct tokenizer *t, const struct config *config,
                 struct unit **ret, struct err *err) CHECK_RESULT;
void llm_unit_free(struct unit *u);

/* The request tag of prompt i of a unit. A unit can have more than 2^16 prompts. */
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

/* The request for prompt i; borrows from the unit. */
struct generate_request llm_unit_request(const struct unit *u, uint32_t i, const struct config *config, int n_queries,
                                         int width);
/* True if prompt i is skipped because its item has failed. */
bool llm_unit_skips(const struct unit *u, uint32_t i);
/* Stores the captions of prompt i. An empty result makes the item fail. */
int llm_unit_note(struct unit *u, uint32_t i, const struct generate_result *r, const struct tokenizer *t,
                  const struct config *config, struct err *err) CHECK_RESULT;
/* device null: the same word for every caption. */
int llm_unit_note_null(struct unit *u) CHECK_RESULT;
bool llm_unit_is_done(const struct unit *u);

/* Writes the Record rows of the result; *ret_n_failed: number of errors. */
int llm_unit_rows(const struct unit *u, struct buf *ret, uint32_t *ret_n_failed) CHECK_RESULT;

#endif
