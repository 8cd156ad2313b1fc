/* tokenizer_type.h - what a kind of model ("BPE", "Unigram", "WordPiece") must provide; inside model/ only.
 *
 * tokenizer.c owns what all kinds share: added tokens, normalizer, pre_tokenizer, post_processor, decoder. A kind owns
 * model: its vocabulary and how a word becomes ids; it refuses by name what it does not know.
 * Memory: `model` is the kind's own, freed with free().
 * Errors: as in tokenizer.h; outputs may be half-written on failure, tokenizer.c takes them back. After parse() a model
 *         is immutable. */
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
    bool byte_level;  /* its words are bytes: pre_tokenizer and decoder must be ByteLevel, else they must not */
    int (*parse)(const char *file, const json_t *model, void **ret_model, struct err *err);
    void (*free)(void *model);
    /* Append the ids of words: valid UTF-8, none empty. */
    int (*encode)(const void *model, const struct pieces *words, struct token_ids *ret);
    const struct vocab *(*vocab)(const void *model);
};

extern const struct tokenizer_type tokenizer_bpe, tokenizer_unigram, tokenizer_wordpiece;

/* model.vocab, an object {token: id}, into an empty vocabulary. */
int tokenizer_read_vocab(const char *file, const json_t *vocab, struct vocab *ret, struct err *err) CHECK_RESULT;
/* All tokens of the vocabulary but an empty one, by id. -EINVAL for one over TOKENIZER_MAX_TOKEN_BYTES. */
int tokenizer_vocab_trie(const char *file, const struct vocab *vocab, struct trie *ret, struct err *err) CHECK_RESULT;

#endif
