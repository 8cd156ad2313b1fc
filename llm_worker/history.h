/* history.h - which ids the penalties are about, given the ids so far (MODEL.md "Decoding").
 *
 * Who may call: the thread that owns the object. Units: token ids.
 * Memory: one mark for every id of the vocabulary; results go to the caller's arrays. Errors: NULL: no memory. */
#ifndef BLIPLINE_LLM_WORKER_HISTORY_H
#define BLIPLINE_LLM_WORKER_HISTORY_H

#include <stdint.h>

struct history;

struct history *history_new(int vocab);
void history_free(struct history *h);

/* The distinct ids among `ids` that the vocabulary has, in order of first appearance. Returns how many; ret has room
 * for min(n, vocab). */
int history_seen(struct history *h, const int32_t *ids, int n, int32_t *ret);

/* What may not come next, each id once: the `n_never` ids of `never`, and what would repeat a run of `ngram` ids
 * (0: allowed). Returns how many; ret has room for min(n + n_never, vocab). */
int history_banned(struct history *h, const int32_t *ids, int n, int ngram, const int32_t *never, int n_never,
                   int32_t *ret);

#endif
