/* generate_json.h - options of transformers' generate in JSON, as golden data has them.
 *
 * Who may call: anyone.
 * Units: tokens.
 * Memory: none is kept.
 * Errors: -EINVAL naming the option that is unknown or of another type. Ranges are generate_check's business. */
#ifndef BLIPLINE_LLM_WORKER_GENERATE_JSON_H
#define BLIPLINE_LLM_WORKER_GENERATE_JSON_H

#include "llm_worker/generate.h"

struct json_t;

/* An object of num_beams, num_return_sequences, max_new_tokens, min_new_tokens, length_penalty, early_stopping (false,
 * true, "never"), repetition_penalty, no_repeat_ngram_size, do_sample, temperature, top_k, top_p; each may be missing,
 * and changes ret then not at all. */
int generate_json_options(const struct json_t *object, struct generation_options *ret, struct err *err) CHECK_RESULT;

#endif
