/* tokenizer_part.h - shared by the parsers of tokenizer.json's normalizer, pre_tokenizer, decoder and post_processor.
 *
 * Who may call: model/ only.
 * Units: none.
 * Memory: everything is borrowed from the document.
 * Errors: -EINVAL; err names the file, the section and the unsupported type or key. */
#ifndef BLIPLINE_MODEL_TOKENIZER_PART_H
#define BLIPLINE_MODEL_TOKENIZER_PART_H

#include "base/err.h"
#include "model/json.h"

#include <stddef.h>

enum { TOKENIZER_PART_MAX_STEPS = 64 };

struct tokenizer_part {
    const char *file;
    const char *place; /* "normalizer" */
    const json_t *json;
    struct err *err;
};

/* The "type" ("ByteLevel"), or "null" if there is no part. */
const char *tokenizer_part_type(const json_t *json);
/* A reader of the part's keys; `section` is the prefix of keys in messages ("normalizer."). */
struct json_reader tokenizer_part_reader(const struct tokenizer_part *part, const char *section);
/* -EINVAL for keys that are neither "type" nor in `known`, a NULL-terminated list. */
int tokenizer_part_check_keys(const struct tokenizer_part *part, const char *const *known) CHECK_RESULT;
/* Calls `add` for the part, or for each part of a Sequence, whose array has the key `list`. Does nothing for null. */
int tokenizer_part_each(const struct tokenizer_part *part, const char *list,
                        int (*add)(void *owner, const struct tokenizer_part *part), void *owner) CHECK_RESULT;

#endif
