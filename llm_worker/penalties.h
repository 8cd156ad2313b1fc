/* penalties.h - the ids to penalise or ban, given the ids so far (MODEL.md "Decoding").
 *
 * Who may call: the thread that owns the object.
 * Units: token ids.
 * Memory: one mark per id of the vocabulary; results go to the caller's arrays.
 * Errors: NULL if out of memory. */
#ifndef BLIPLINE_LLM_WORKER_PENALTIES_H
#define BLIPLINE_LLM_WORKER_PENALTIES_H

#include <stdint.h>

struct penalties;

struct penalties *penalties_new(int vocab);
void penalties_free(struct penalties *p);

/* Writes the distinct ids among `ids` within the vocabulary, in order of first appearance. Returns their number; ret
 * needs room for min(n, vocab). */
int penalties_seen(struct penalties *p, const int32_t *ids, int n, int32_t *ret);

/* Writes the ids that may not come next, each once: the `n_never` ids of `never`, and those that would repeat an
 * n-gram of `ngram` ids (0: repeats are allowed). Returns their number; ret needs room for min(n + n_never, vocab). */
int penalties_banned(struct penalties *p, const int32_t *ids, int n, int ngram, const int32_t *never, int n_never,
                     int32_t *ret);

#endif
