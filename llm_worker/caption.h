/* caption.h - between a recipe's words and token ids: prompt in, caption text out.
 *
 * Who may call: the compute thread. Units: tokens, bytes. Memory: in each function.
 * Errors: negative errno with err. */
#ifndef BLIPLINE_LLM_WORKER_CAPTION_H
#define BLIPLINE_LLM_WORKER_CAPTION_H

#include "base/buf.h"
#include "base/err.h"
#include "model/config.h"
#include "model/tokenizer.h"
#include "proto/msg.h"

/* Append the ids that follow the image rows: the prompt with its special tokens; without a prompt the bos id alone. */
int caption_prompt_ids(const struct tokenizer *t, const struct config *config, const struct msg_recipe *recipe,
                       struct token_ids *ret, struct err *err) CHECK_RESULT;

/* Append the caption: ids without special tokens and without the ids that end a sequence, white space stripped at both
 * ends. */
int caption_text(const struct tokenizer *t, const struct config *config, const int32_t *ids, int n, struct buf *ret,
                 struct err *err) CHECK_RESULT;

#endif
