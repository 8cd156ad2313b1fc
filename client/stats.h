/* stats.h - statistics of a store, collected in one pass over its items.
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
    STATS_BINS = 33,       /* bin n: n words or tokens; last bin: that many or more */
    STATS_SCORE_BINS = 20, /* of equal width between the lowest and the highest possible score */
};

/* The distribution of a score over the captions that have it. */
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
    uint64_t n_attempts;          /* failed attempts of units, including those of units that succeeded later */
    uint64_t image_bytes;
    uint64_t disk_bytes; /* of the store */
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
/* Index of the bin with the k-th of n values (k = share * n). */
unsigned stats_quantile(const uint64_t bins[STATS_BINS], double share);

/* The lower edge of bin i for scores from `low` to `high`; i = STATS_SCORE_BINS: the upper edge of the last bin. */
double stats_score_edge(double low, double high, unsigned i);

#endif
