/* tokenizer.h - text <-> token ids as defined by tokenizer.json.
 *
 * Byte-level BPE, Unigram, WordPiece; MODEL.md lists the supported parts. An unsupported model, normalizer,
 * pre_tokenizer, post_processor, decoder or option is an error that names it. `truncation` and `padding` are ignored,
 * as in transformers unless a call asks for them.
 * Who may call: anyone; immutable after loading, so threads may share it.
 * Units:  text is UTF-8, sizes in bytes; ids are int32_t.
 * Memory: freed with tokenizer_free; the caller frees token_ids with token_ids_release.
 * Errors: -EINVAL (bad file; text that is not UTF-8), -EFBIG (text over TOKENIZER_MAX_TEXT_BYTES, or over 32 MiB
 * once normalised), -ENOMEM. A call that fails leaves its output unchanged. */
#ifndef BLIPLINE_MODEL_TOKENIZER_H
#define BLIPLINE_MODEL_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKENIZER_MAX_TEXT_BYTES (1u << 20)

struct tokenizer;

/* Growable; {0} is empty. */
struct token_ids {
    int32_t *ids;
    size_t n, capacity;
};
int token_ids_append(struct token_ids *t, int32_t id) CHECK_RESULT;
void token_ids_release(struct token_ids *t); /* empty and usable again */

int tokenizer_load(const char *path, struct tokenizer **ret, struct err *err) CHECK_RESULT;
/* Parses tokenizer.json from memory; `name` is used in messages. */
int tokenizer_parse(const void *json, size_t size_bytes, const char *name, struct tokenizer **ret,
                    struct err *err) CHECK_RESULT;
void tokenizer_free(struct tokenizer *t);

/* Appends the ids of the text. add_special: with the post-processor's ids (OPT: </s> in front). Added tokens that
 * occur in the text become their ids either way. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t size_bytes, bool add_special,
                     struct token_ids *ret, struct err *err) CHECK_RESULT;
/* Appends the text of the ids as valid UTF-8 (invalid bytes become U+FFFD). skip_special omits special tokens.
 * Unknown ids give no text. White space is kept. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *ret,
                     struct err *err) CHECK_RESULT;

/* The id of a token by its exact spelling ("</s>"), or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *token);
const char *tokenizer_type(const struct tokenizer *t); /* "BPE", "Unigram", "WordPiece": model.type of the file */
/* One more than the largest id of the vocabulary, without added tokens. */
int32_t tokenizer_n_vocab(const struct tokenizer *t);

#endif
