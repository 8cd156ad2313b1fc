/* caption.h - turns the ids of a sequence into the caption's text.
 *
 * Who may call: the compute thread.
 * Units: tokens, bytes.
 * Memory: see each function.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_LLM_WORKER_CAPTION_H
#define BLIPLINE_LLM_WORKER_CAPTION_H

#include "base/buf.h"
#include "base/err.h"
#include "model/config.h"
#include "model/tokenizer.h"

/* Appends the caption: the text of the ids without special and end-of-sequence tokens, stripped of white space. */
int caption_text(const struct tokenizer *t, const struct config *config, const int32_t *ids, int n, struct buf *ret,
                 struct err *err) CHECK_RESULT;

#endif
