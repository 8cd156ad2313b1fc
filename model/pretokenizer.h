/* pretokenizer.h - the "pre_tokenizer" of tokenizer.json: splits a text into words.
 *
 * Sequence of WhitespaceSplit, Metaspace, BertPreTokenizer, ByteLevel (only last); other types are an error.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes of valid UTF-8 (ByteLevel only splits; the model maps bytes to characters).
 * Memory: freed with pretokenizer_free.
 * Errors: -EINVAL, -ENOMEM, -EFBIG. */
#ifndef BLIPLINE_MODEL_PRETOKENIZER_H
#define BLIPLINE_MODEL_PRETOKENIZER_H

#include "base/err.h"
#include "model/json.h"
#include "model/pieces.h"

#include <stdbool.h>

struct pretokenizer;

/* JSON null: the text is one word. */
int pretokenizer_parse(const char *file, const json_t *json, struct pretokenizer **ret, struct err *err) CHECK_RESULT;
void pretokenizer_free(struct pretokenizer *p);
/* True if it ends with ByteLevel: the model then maps the bytes of words. */
bool pretokenizer_is_byte_level(const struct pretokenizer *p);
/* Splits work[0] (pieces of a text) into non-empty words; `ret` points to one of the two lists. */
int pretokenizer_apply(const struct pretokenizer *p, struct pieces work[2], const struct pieces **ret) CHECK_RESULT;

#endif
