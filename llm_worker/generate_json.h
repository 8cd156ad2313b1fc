/* generate_json.h - reads options of transformers' generate from JSON (golden data).
 *
 * Who may call: anyone.
 * Units: tokens.
 * Memory: keeps none.
 * Errors: -EINVAL for an unknown option or a wrong type; err names it. generate_check checks ranges. */
#ifndef BLIPLINE_LLM_WORKER_GENERATE_JSON_H
#define BLIPLINE_LLM_WORKER_GENERATE_JSON_H

#include "llm_worker/generate.h"

struct json_t;

/* An object of num_beams, num_return_sequences, max_new_tokens, min_new_tokens, length_penalty, early_stopping
 * (false, true, "never"), repetition_penalty, no_repeat_ngram_size, do_sample, temperature, top_k, top_p; a missing
 * option leaves ret unchanged. */
int generate_json_options(const struct json_t *object, struct generation_options *ret, struct err *err) CHECK_RESULT;

#endif
