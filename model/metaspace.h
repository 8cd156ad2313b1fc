/* metaspace.h - the options of "Metaspace", which is both a pre_tokenizer and a decoder: spaces as visible characters.
 *
 * Who may call: model/ only.
 * Memory: plain values.
 * Errors: -EINVAL; err names file, section and key. */
#ifndef BLIPLINE_MODEL_METASPACE_H
#define BLIPLINE_MODEL_METASPACE_H

#include "base/err.h"
#include "model/pieces.h"
#include "model/tokenizer_part.h"

#include <stdbool.h>

enum metaspace_prepend { METASPACE_ALWAYS, METASPACE_FIRST, METASPACE_NEVER };

struct metaspace {
    char replacement[5]; /* one character */
    size_t replacement_size;
    enum metaspace_prepend prepend;
};

/* Also reads the older form: add_prefix_space instead of prepend_scheme, and a redundant str_rep. */
int metaspace_parse(const struct tokenizer_part *part, struct metaspace *ret) CHECK_RESULT;
/* True if the text begins with the replacement. */
bool metaspace_begins(const struct metaspace *m, struct token_text t);

#endif
