/* pretokenizer.h - the "pre_tokenizer" of tokenizer.json: how a text is cut into words.
 *
 * Sequence of WhitespaceSplit, Metaspace, BertPreTokenizer, ByteLevel (as the last one); another name is refused.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes of valid UTF-8 (ByteLevel cuts between characters, it does not spell bytes: that is the model's
 *         business).
 * Memory: pretokenizer_free.
 * Errors: -EINVAL, -ENOMEM, -EFBIG. */
#ifndef BLIPLINE_MODEL_PRETOKENIZER_H
#define BLIPLINE_MODEL_PRETOKENIZER_H

#include "base/err.h"
#include "model/json.h"
#include "model/pieces.h"

#include <stdbool.h>

struct pretokenizer;

/* null: a text is one word. */
int pretokenizer_parse(const char *file, const json_t *json, struct pretokenizer **ret, struct err *err) CHECK_RESULT;
void pretokenizer_free(struct pretokenizer *p);
/* It ends with ByteLevel: words are to be spelled in bytes. */
bool pretokenizer_is_byte_level(const struct pretokenizer *p);
/* Cut work[0] (pieces of a text) into words, none of them empty; `ret` points to one of the two lists. */
int pretokenizer_apply(const struct pretokenizer *p, struct pieces work[2], const struct pieces **ret) CHECK_RESULT;

#endif
