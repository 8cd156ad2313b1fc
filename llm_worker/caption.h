/* caption.h - from the ids that a sequence has grown to the caption's words.
 *
 * Who may call: the compute thread.
 * Units: tokens, bytes.
 * Memory: in each function.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_LLM_WORKER_CAPTION_H
#define BLIPLINE_LLM_WORKER_CAPTION_H

#include "base/buf.h"
#include "base/err.h"
#include "model/config.h"
#include "model/tokenizer.h"

/* Append the caption: ids without special tokens and without the ids that end a sequence, white space stripped at both
 * ends. */
int caption_text(const struct tokenizer *t, const struct config *config, const int32_t *ids, int n, struct buf *ret,
                 struct err *err) CHECK_RESULT;

#endif
