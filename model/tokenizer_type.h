/* tokenizer_type.h - what a kind of tokenizer ("BPE", ...) must provide; inside model/ only.
 *
 * tokenizer.c owns what all kinds share: added tokens, post-processor, special ids. A kind owns its vocabulary, and
 * reads and checks normalizer, pre_tokenizer, model and decoder of the file itself, refusing by name what it does not
 * know. Memory: `model` is the kind's own, freed with free(). Errors: as in tokenizer.h; outputs may be half-written on
 * failure, tokenizer.c takes them back. After parse() a model is immutable. */
#ifndef BLIPLINE_MODEL_TOKENIZER_TYPE_H
#define BLIPLINE_MODEL_TOKENIZER_TYPE_H

#include "base/buf.h"
#include "base/err.h"
#include "model/json.h"
#include "model/tokenizer.h"
#include "model/vocab.h"

#include <stddef.h>
#include <stdint.h>

enum { TOKENIZER_MAX_ID = (1 << 22) - 1 };

/* A token's spelling in the file; borrowed, not NUL-terminated. */
struct token_text {
    const char *text;
    size_t size_bytes;
};

struct tokenizer_type {
    const char *name; /* model.type in the file */
    int (*parse)(const char *file, const json_t *root, void **ret_model, struct err *err);
    void (*free)(void *model);
    /* Append the ids of a piece between added tokens: valid UTF-8, never empty. */
    int (*encode)(const void *model, const char *piece, size_t n, struct token_ids *ret, struct err *err);
    /* Append the text of a whole run of tokens, as valid UTF-8. */
    int (*decode)(const void *model, const struct token_text *tokens, size_t n_tokens, struct buf *ret);
    const struct vocab *(*vocab)(const void *model);
};

extern const struct tokenizer_type tokenizer_bpe;

/* The "type" of a component ("ByteLevel"), "null" where there is none; for messages and comparisons. */
const char *tokenizer_part_type(const json_t *part);
/* -EINVAL unless the component `key` of the root has this type ("null": none). */
int tokenizer_want_part(const char *file, const json_t *root, const char *key, const char *type, struct err *err);
/* model.vocab, an object {token: id}, into an empty vocabulary. */
int tokenizer_read_vocab(const char *file, const json_t *vocab, struct vocab *ret, struct err *err);

#endif
