/* vocab.h - tokens by spelling and by id.
 *
 * Who may call: model/ only; immutable once filled, then any thread.
 * Units: bytes; ids 0 .. n_ids - 1, gaps allowed.
 * Memory: spellings are copied in.
 * Errors: -ENOMEM, -EEXIST (duplicate spelling or id). */
#ifndef BLIPLINE_MODEL_VOCAB_H
#define BLIPLINE_MODEL_VOCAB_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct vocab_token {
    uint32_t offset; /* in text */
    int32_t length;  /* -1: no token has this id */
};

struct vocab {
    struct buf text;
    struct vocab_token *tokens; /* by id */
    int32_t n_ids, n_tokens;
    int32_t *slots; /* hash table of ids, -1 empty; a power of two, at most half full */
    size_t n_slots;
};

/* Allocates room for ids below n_ids. */
int vocab_init(struct vocab *v, int32_t n_ids) CHECK_RESULT;
void vocab_release(struct vocab *v);
int vocab_add(struct vocab *v, const char *token, size_t n, int32_t id) CHECK_RESULT;
int32_t vocab_find(const struct vocab *v, const void *token, size_t n); /* -1: none */
/* NULL if there is no such token. Not NUL-terminated. */
const char *vocab_text(const struct vocab *v, int32_t id, size_t *ret_n);

#endif
