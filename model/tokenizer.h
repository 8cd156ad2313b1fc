/* tokenizer.h - text <-> token ids, as tokenizer.json says.
 *
 * Byte-level BPE, Unigram, WordPiece; MODEL.md lists what is read around them. Whatever the file asks for that is not
 * implemented - model, normalizer, pre_tokenizer, post_processor, decoder, option - is refused by its name.
 * `truncation` and `padding` are read over, as transformers does unless a call asks for them.
 * Who may call: anyone; immutable after loading, threads may share it.
 * Units:  text is UTF-8, sizes in bytes; ids are int32_t.
 * Memory: caller frees with tokenizer_free; token_ids belong to the caller (token_ids_release).
 * Errors: -EINVAL (bad file; text that is not UTF-8), -EFBIG (text over TOKENIZER_MAX_TEXT_BYTES, or
 *         growing over 32 MiB when normalised), -ENOMEM. A call that fails leaves its output as it was. */
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
/* From memory; `name` is used in messages. */
int tokenizer_parse(const void *json, size_t size_bytes, const char *name, struct tokenizer **ret,
                    struct err *err) CHECK_RESULT;
void tokenizer_free(struct tokenizer *t);

/* Append the ids of the text. add_special: what the post-processor adds around it (OPT: </s> in front). Added tokens
 * spelled out in the text become their ids either way. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t size_bytes, bool add_special,
                     struct token_ids *ret, struct err *err) CHECK_RESULT;
/* Append the text of the ids (valid UTF-8: broken bytes become U+FFFD). skip_special leaves special tokens out. Ids the
 * tokenizer does not know have no text. Nothing is stripped. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *ret,
                     struct err *err) CHECK_RESULT;

/* Id of a token by its exact spelling in the file ("</s>"), -1 if there is none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *token);
const char *tokenizer_type(const struct tokenizer *t); /* "BPE", "Unigram", "WordPiece": model.type of the file */
/* One more than the largest id of the vocabulary, added tokens aside. */
int32_t tokenizer_n_vocab(const struct tokenizer *t);

#endif
