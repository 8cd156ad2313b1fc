/* added_tokens.h - the "added_tokens" of tokenizer.json: tokens that are cut out of a text before the model sees it.
 *
 * Those with `normalized` are looked for in the normalised text, in their own normalised spelling, the others in the
 * text as it came.
 * Who may call: model/ only; immutable once parsed, any thread.
 * Units: bytes of valid UTF-8.
 * Memory: added_tokens_release.
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
    char *text;   /* as the file has it */
    char *wanted; /* as it is looked for, and as it is decoded */
    size_t wanted_size;
    int32_t id;
    bool lstrip, rstrip; /* white space before, after it belongs to it */
    bool normalized, special;
};

struct added_tokens {
    struct added_token *list; /* by id */
    size_t n;
    struct trie tries[2]; /* of those not normalized, and normalized */
};

int added_tokens_parse(struct added_tokens *a, const char *file, const json_t *list, const struct vocab *vocab,
                       const struct normalizer *normalizer, struct err *err) CHECK_RESULT;
void added_tokens_release(struct added_tokens *a);
/* NULL: no such token. */
const struct added_token *added_tokens_find(const struct added_tokens *a, int32_t id);

struct added_tokens_cut {
    int (*plain)(void *owner, struct token_text part,
                 bool at_start); /* never empty; at_start: the text begins with it */
    int (*token)(void *owner, int32_t id);
    void *owner;
};
/* Cut a text at the (normalized or other) tokens: the longest at the first place. Calls in the order of the text; a
 * negative result ends it and is returned. */
int added_tokens_cut(const struct added_tokens *a, bool normalized, struct token_text text,
                     const struct added_tokens_cut *cut) CHECK_RESULT;

#endif
