/* unit.h - one leased unit in the language model: which of its captions are there.
 *
 * Who may call: the compute thread. Memory: the unit owns its texts; `work` is given back to the session by the caller.
 * Errors: negative errno. */
#ifndef BLIPLINE_LLM_WORKER_UNIT_H
#define BLIPLINE_LLM_WORKER_UNIT_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/worker_session.h"

#include <stdint.h>

struct unit_caption {
    size_t start, size_bytes; /* in texts */
    float logprob;
    uint32_t tokens;
};

struct unit {
    struct unit *next;
    struct worker_work *work;
    uint64_t serial;
    uint32_t n_submitted, n_done;
    float *image_rows;             /* [n_items, Q, L]; NULL once all are submitted */
    struct unit_caption *captions; /* [n_items] */
    struct buf texts;
    int64_t started_ns, compute_ns;
};

int llm_unit_new(struct worker_work **work, uint64_t serial, struct unit **ret) CHECK_RESULT;
void llm_unit_free(struct unit *u);
/* The Record rows of the result. */
int llm_unit_rows(const struct unit *u, struct buf *ret) CHECK_RESULT;

#endif
