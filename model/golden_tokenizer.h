/* golden_tokenizer.h - the tokenizer cases of golden data.
 *
 * Who may call: the workers' self-tests.
 * Units: none.
 * Memory: keeps none.
 * Errors: those of the tokenizer; a case that differs is a failed row, not an error. */
#ifndef BLIPLINE_MODEL_GOLDEN_TOKENIZER_H
#define BLIPLINE_MODEL_GOLDEN_TOKENIZER_H

#include "base/err.h"

struct golden;
struct tokenizer;

/* Adds the row "tokenizer": every case of expected.json encoded with and without special tokens, and decoded. */
int golden_report_tokenizer(struct golden *g, const struct tokenizer *t, struct err *err) CHECK_RESULT;

#endif
