/* normalizer.h - the "normalizer" of tokenizer.json: text normalisation before splitting into words.
 *
 * What transformers writes for T5 (Precompiled, Strip, Replace) and BERT (BertNormalizer), alone or in a Sequence;
 * other types are an error.
 * Who may call: model/ only; immutable, any thread.
 * Units: bytes of valid UTF-8.
 * Memory: freed with normalizer_free; results are in the caller's buffers.
 * Errors: -EINVAL, -ENOMEM, -EFBIG (the text grows beyond PIECES_MAX_BYTES). */
#ifndef BLIPLINE_MODEL_NORMALIZER_H
#define BLIPLINE_MODEL_NORMALIZER_H

#include "base/buf.h"
#include "base/err.h"
#include "model/json.h"
#include "model/pieces.h"

#include <stdbool.h>
#include <stddef.h>

struct normalizer;

/* JSON null gives a normalizer that changes nothing. */
int normalizer_parse(const char *file, const json_t *json, struct normalizer **ret, struct err *err) CHECK_RESULT;
void normalizer_free(struct normalizer *n);
/* `ret` points into the text or into one of the buffers (emptied first; limit PIECES_MAX_BYTES). `at_start` (the
 * text is at the start of the input) becomes false if its first characters are removed. */
int normalizer_apply(const struct normalizer *n, struct token_text text, struct buf work[2], bool *at_start,
                     struct token_text *ret) CHECK_RESULT;

#endif
