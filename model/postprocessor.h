/* postprocessor.h - the "post_processor" of tokenizer.json: the ids added before and after a text.
 *
 * TemplateProcessing (its `single` form), ByteLevel (which only changes offsets) or none; other types are an error.
 * Who may call: model/ only.
 * Units: ids from 0 to n_ids - 1.
 * Memory: the caller frees both lists with token_ids_release.
 * Errors: -EINVAL, -ENOMEM. */
#ifndef BLIPLINE_MODEL_POSTPROCESSOR_H
#define BLIPLINE_MODEL_POSTPROCESSOR_H

#include "base/err.h"
#include "model/json.h"
#include "model/tokenizer.h"

#include <stdint.h>

enum { POSTPROCESSOR_MAX_IDS = 64 };

struct postprocessor {
    int32_t n_ids; /* one more than the largest valid id */
    struct token_ids before, after;
};

/* On entry `p` holds n_ids and empty lists. */
int postprocessor_parse(struct postprocessor *p, const char *file, const json_t *json, struct err *err) CHECK_RESULT;
void postprocessor_release(struct postprocessor *p);

#endif
