/* generation.h - decoding options, as in transformers' generate (counts are called n_...).
 *
 * Who may call: anyone; plain values.
 * Units: tokens. Memory, errors: none. */
#ifndef BLIPLINE_BASE_GENERATION_H
#define BLIPLINE_BASE_GENERATION_H

#include <stdbool.h>
#include <stdint.h>

enum { GENERATION_MAX_BEAMS = 64, GENERATION_MAX_RETURN = 32 };

enum early_stopping { EARLY_STOPPING_FALSE, EARLY_STOPPING_TRUE, EARLY_STOPPING_NEVER }; /* as in wire.proto */

struct generation_options {
    int max_new_tokens; /* 0: nothing is generated */
    int min_new_tokens; /* 0 .. max_new_tokens */
    int n_beams;        /* 1: greedy or sampling */
    int n_return;       /* captions per prompt: 1 .. n_beams; sampling: any number of samples */
    float length_penalty;
    enum early_stopping early_stopping;
    float repetition_penalty; /* > 0; 1: none */
    int no_repeat_ngram;      /* 0: off */
    bool sample;              /* with n_beams 1 only */
    float temperature;        /* > 0 */
    int top_k;                /* 0: off */
    float top_p;              /* 0 < p <= 1; 1: off */
    uint64_t seed;            /* of sampling */
};

/* Greedy, 20 new tokens. */
struct generation_options generation_options_default(void);
const char *early_stopping_name(enum early_stopping e); /* "false", "true", "never"; "?" */

#endif
