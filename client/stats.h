/* stats.h - what is in a store, counted in one pass over its items.
 *
 * Who may call: one thread. Units: sizes bytes. Memory: stats_release. Errors: as store/reader.h. */
#ifndef BLIPLINE_CLIENT_STATS_H
#define BLIPLINE_CLIENT_STATS_H

#include "base/err.h"
#include "job/passed_over.h"
#include "store/reader.h"

#include <stdint.h>

enum {
    STATS_MAX_CODES = 64,
    STATS_BINS = 33,       /* bin n: n words or tokens; the last one: that many or more */
    STATS_SCORE_BINS = 20, /* of equal width between the lowest and the highest possible score */
};

/* How one kind of score is spread over the captions that have it. */
struct stats_score {
    uint64_t n;
    double sum;
    uint64_t bins[STATS_SCORE_BINS];
};

struct stats {
    struct passed_over passed_over; /* when the sources were last walked over */
    struct stored_job_counters counters;
    uint64_t n_seen, n_failed, n_pending, n_damaged;
    uint64_t n_captions, n_given; /* generated; came with the pictures */
    uint64_t n_attempts;          /* of units, that failed; also of those that went well in the end */
    uint64_t image_bytes;
    struct stats_code {
        char code[MSG_CODE_SIZE];
        uint64_t n;
    } codes[STATS_MAX_CODES]; /* most frequent first */
    size_t n_codes;
    uint64_t tokens[STATS_BINS], words[STATS_BINS]; /* of generated captions */
    uint64_t n_tokens, n_words;                     /* sums */
    double logprob;                                 /* sum */
    struct stats_score itc[2], itm[2];              /* of generated captions, of given ones */
};

int stats_collect(struct reader *r, struct stats *ret, struct err *err) CHECK_RESULT;
/* Index of the bin in which the k-th of n (k = share * n) falls. */
unsigned stats_quantile(const uint64_t bins[STATS_BINS], double share);

/* Where bin i of the scores between `low` and `high` begins; i = STATS_SCORE_BINS: where the last one ends. */
double stats_score_edge(double low, double high, unsigned i);

#endif
