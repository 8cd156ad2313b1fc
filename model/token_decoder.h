/* token_decoder.h - the "decoder" of tokenizer.json: turns tokens into text.
 *
 * ByteLevel, Metaspace or WordPiece; other types, or no decoder, are an error.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes; results are valid UTF-8 if the tokens are.
 * Memory: freed with token_decoder_free.
 * Errors: -EINVAL, -ENOMEM, -EFBIG. */
#ifndef BLIPLINE_MODEL_TOKEN_DECODER_H
#define BLIPLINE_MODEL_TOKEN_DECODER_H

#include "base/buf.h"
#include "base/err.h"
#include "model/json.h"
#include "model/pieces.h"

#include <stdbool.h>

struct token_decoder;

int token_decoder_parse(const char *file, const json_t *json, struct token_decoder **ret, struct err *err) CHECK_RESULT;
void token_decoder_free(struct token_decoder *d);
/* Tokens are spelled in bytes. */
bool token_decoder_is_byte_level(const struct token_decoder *d);
/* Append the text of the tokens. */
int token_decoder_apply(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret) CHECK_RESULT;

#endif
