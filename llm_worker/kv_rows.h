/* kv_rows.h - allocates rows of the key/value cache: runs of consecutive rows, first fit.
 *
 * Who may call: generate.c.
 * Units: rows.
 * Memory: one array of max_runs runs.
 * Errors: NULL or -1 if there is no room. */
#ifndef BLIPLINE_LLM_WORKER_KV_ROWS_H
#define BLIPLINE_LLM_WORKER_KV_ROWS_H

#include <stdbool.h>

struct kv_rows;

/* Manages `n` rows in at most `max_runs` runs. NULL if out of memory. */
struct kv_rows *kv_rows_new(int n, int max_runs);
void kv_rows_free(struct kv_rows *k);

/* The first of n >= 1 consecutive rows, or -1 if there is no such gap or no run left. */
int kv_rows_take(struct kv_rows *k, int n);
/* Frees the run that begins at `first`. */
void kv_rows_give(struct kv_rows *k, int first);

/* True if the runs are in order, inside the cache, and do not overlap. For tests. */
bool kv_rows_validate(const struct kv_rows *k);

#endif
