/* kv_rows.h - who has which rows of the key/value cache: runs of consecutive rows, the first gap that is long enough.
 *
 * Who may call: generate.c.
 * Units: rows.
 * Memory: one small array of runs, as many as can be given out at a time.
 * Errors: NULL or -1: no room. */
#ifndef BLIPLINE_LLM_WORKER_KV_ROWS_H
#define BLIPLINE_LLM_WORKER_KV_ROWS_H

#include <stdbool.h>

struct kv_rows;

/* `n` rows, at most `max_runs` runs at a time. NULL: no memory. */
struct kv_rows *kv_rows_new(int n, int max_runs);
void kv_rows_free(struct kv_rows *k);

/* The first of n >= 1 consecutive rows, or -1 when there is no such gap or no run left. */
int kv_rows_take(struct kv_rows *k, int n);
/* Give back the run that begins at `first`. */
void kv_rows_give(struct kv_rows *k, int first);

/* True: the runs are in order, inside the cache, and do not overlap. For tests. */
bool kv_rows_validate(const struct kv_rows *k);

#endif
