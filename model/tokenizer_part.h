/* tokenizer_part.h - what the parts of tokenizer.json (normalizer, pre_tokenizer, decoder, post_processor) share.
 *
 * Who may call: model/ only.
 * Units: none.
 * Memory: everything is borrowed from the document.
 * Errors: -EINVAL with the file, the place, and the name of what is not known. */
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

/* The "type" ("ByteLevel"), "null" where there is no part; for messages and comparisons. */
const char *tokenizer_part_type(const json_t *json);
/* A reader of the part's keys; `section` is what messages say in front of a key ("normalizer."). */
struct json_reader tokenizer_part_reader(const struct tokenizer_part *part, const char *section);
/* Refuse keys that are not in `known` ("type" always is), a list that ends with NULL. */
int tokenizer_part_check_keys(const struct tokenizer_part *part, const char *const *known) CHECK_RESULT;
/* Call `add` for the part, or for each part of a Sequence, whose array is called `list`. Nothing to do for null. */
int tokenizer_part_each(const struct tokenizer_part *part, const char *list,
                        int (*add)(void *owner, const struct tokenizer_part *part), void *owner) CHECK_RESULT;

#endif
