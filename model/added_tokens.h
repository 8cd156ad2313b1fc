/* added_tokens.h - the "added_tokens" of tokenizer.json: tokens that are matched in a text before the model's own
 * splitting.
 *
 * Tokens with `normalized` are matched in the normalised text, in their normalised spelling; the others in the raw
 * text.
 * Who may call: model/ only; immutable after parsing, so any thread.
 * Units: bytes of valid UTF-8.
 * Memory: freed with added_tokens_release.
 * Errors: -EINVAL, -ENOMEM. */
#ifndef BLIPLINE_MODEL_ADDED_TOKENS_H
#define BLIPLINE_MODEL_ADDED_TOKENS_H

#include "base/err.h"
#include "model/json.h"
#include "model/normalizer.h"
#include "model/pieces.h"
#include "model/trie.h"
#include "model/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct added_token {
    char *text;   /* as in the file */
    char *wanted; /* the spelling that is matched and decoded */
    size_t wanted_size;
    int32_t id;
    bool lstrip, rstrip; /* it also takes the white space before, after it */
    bool normalized, special;
};

struct added_tokens {
    struct added_token *list; /* by id */
    size_t n;
    struct trie tries[2]; /* [0]: tokens not normalized, [1]: normalized */
};

int added_tokens_parse(struct added_tokens *a, const char *file, const json_t *list, const struct vocab *vocab,
                       const struct normalizer *normalizer, struct err *err) CHECK_RESULT;
void added_tokens_release(struct added_tokens *a);
/* NULL if there is no such token. */
const struct added_token *added_tokens_find(const struct added_tokens *a, int32_t id);

struct added_tokens_cut {
    int (*plain)(void *owner, struct token_text part,
                 bool at_start); /* part is never empty; at_start: it begins the text */
    int (*token)(void *owner, int32_t id);
    void *owner;
};
/* Splits a text at the (normalized or other) tokens, leftmost longest match first, and calls plain() and token() in
 * text order. A negative result stops the split and is returned. */
int added_tokens_cut(const struct added_tokens *a, bool normalized, struct token_text text,
                     const struct added_tokens_cut *cut) CHECK_RESULT;

#endif
