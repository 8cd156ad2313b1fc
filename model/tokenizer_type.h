/* tokenizer_type.h - the interface of a model type ("BPE", "Unigram", "WordPiece"); used in model/ only.
 *
 * tokenizer.c handles what all types share: added tokens, normalizer, pre_tokenizer, post_processor, decoder. A type
 * handles the file's "model": the vocabulary and the encoding of words.
 * Memory: each type allocates its `model` and frees it with free().
 * Errors: as in tokenizer.h; outputs may be half-written on failure, tokenizer.c discards them. A model is immutable
 * after parse(). */
#ifndef BLIPLINE_MODEL_TOKENIZER_TYPE_H
#define BLIPLINE_MODEL_TOKENIZER_TYPE_H

#include "base/err.h"
#include "model/json.h"
#include "model/pieces.h"
#include "model/tokenizer.h"
#include "model/trie.h"
#include "model/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOKENIZER_MAX_ID = (1 << 22) - 1, TOKENIZER_MAX_TOKEN_BYTES = 1024 };

struct tokenizer_type {
    const char *name; /* model.type in the file */
    bool byte_level;  /* words are bytes: pre_tokenizer and decoder must be ByteLevel; if false, they must not be */
    int (*parse)(const char *file, const json_t *model, void **ret_model, struct err *err);
    void (*free)(void *model);
    /* Appends the ids of the words, which are valid UTF-8 and not empty. */
    int (*encode)(const void *model, const struct pieces *words, struct token_ids *ret);
    const struct vocab *(*vocab)(const void *model);
};

extern const struct tokenizer_type tokenizer_bpe, tokenizer_unigram, tokenizer_wordpiece;

/* Reads model.vocab, an object {token: id}, into an empty vocabulary. */
int tokenizer_read_vocab(const char *file, const json_t *vocab, struct vocab *ret, struct err *err) CHECK_RESULT;
/* Builds a trie of all non-empty tokens. -EINVAL for a token over TOKENIZER_MAX_TOKEN_BYTES. */
int tokenizer_vocab_trie(const char *file, const struct vocab *vocab, struct trie *ret, struct err *err) CHECK_RESULT;

#endif
