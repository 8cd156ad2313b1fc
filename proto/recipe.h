/* recipe.h - what a job computes: prompts, decoding, scores, embeddings (message Recipe of wire.proto).
 *
 * Who may call: anyone; plain values.
 * Units:  tokens; texts are NUL-terminated UTF-8.
 * Memory: nothing to free. Errors: -EINVAL with the field's name in err; negative errno of the buffer. */
#ifndef BLIPLINE_PROTO_RECIPE_H
#define BLIPLINE_PROTO_RECIPE_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    MSG_NAME_SIZE = 128, /* host, device, model; with the NUL, as all sizes of text here */
    MSG_PROMPT_SIZE = 2048,
    MSG_MAX_PROMPTS = 8,
    MSG_MAX_TEXT_FIELDS = 4,
    MSG_MAX_EMBEDDINGS = 4,
    MSG_MAX_NEW_TOKENS = 65536,
    MSG_MAX_RETURN = 32,
    MSG_MAX_BEAMS = 64,
};

enum msg_early_stopping { MSG_EARLY_FALSE, MSG_EARLY_TRUE, MSG_EARLY_NEVER };

/* The options of transformers' generate, under its names where they are not counts. */
struct msg_decode {
    uint32_t max_new_tokens; /* 0: nothing is generated */
    uint32_t min_new_tokens;
    uint32_t n_beams;
    uint32_t n_return; /* captions a prompt */
    float length_penalty;
    enum msg_early_stopping early_stopping;
    float repetition_penalty;
    uint32_t no_repeat_ngram;
    bool sample;
    float temperature;
    uint32_t top_k;
    float top_p;
    uint64_t seed;
};

enum msg_embedding {
    MSG_EMBEDDING_QUERY = 1,
    MSG_EMBEDDING_ITC,
    MSG_EMBEDDING_ITC_TEXT,
    MSG_EMBEDDING_CLS,
};

struct msg_embedding_spec {
    enum msg_embedding kind; /* each at most once */
    enum dtype dtype;        /* F16 or F32 */
    bool first_row;          /* ITC alone: one row instead of Q */
};

struct msg_recipe {
    char name[MSG_NAME_SIZE];
    char model[MSG_NAME_SIZE];       /* captioner; "": none */
    char score_model[MSG_NAME_SIZE]; /* scorer; "": none */
    uint32_t n_prompts;              /* 0: one caption from the bos token alone */
    char prompts[MSG_MAX_PROMPTS][MSG_PROMPT_SIZE];
    struct msg_decode decode;
    enum dtype dtype_encode, dtype_qformer, dtype_llm;
    uint32_t n_text_fields;
    char text_fields[MSG_MAX_TEXT_FIELDS][MSG_NAME_SIZE];
    bool itc, itm;
    uint32_t n_embeddings;
    struct msg_embedding_spec embeddings[MSG_MAX_EMBEDDINGS];
    bool exif_orientation; /* pictures are turned as their EXIF data say */
    bool grey16_high_byte; /* 16-bit grey is its upper byte; false: what is above 255 is white */
};

/* Everything at its default, which is greedy decoding of 20 new tokens in fp32. */
void msg_recipe_init(struct msg_recipe *r);
/* Every range and combination. */
int msg_recipe_check(const struct msg_recipe *r, struct err *err) CHECK_RESULT;

/* Say in words, one line a field, where recipe `b` differs from `a` ("prompt 1: none, was \"a photo of\"").
 * Returns how many fields differ, or a negative errno of the buffer. */
int msg_recipe_diff(const struct msg_recipe *a, const struct msg_recipe *b, struct buf *words) CHECK_RESULT;
/* XXH3-64 over the packed message without the names of recipe and models: what seeds sampling. */
uint64_t msg_recipe_hash(const struct msg_recipe *r);

/* What the recipe says of an embedding; NULL: it does not ask for it. */
const struct msg_embedding_spec *msg_recipe_embedding(const struct msg_recipe *r, enum msg_embedding kind);

const char *msg_embedding_name(enum msg_embedding kind);        /* "query", "itc", "itc_text", "cls"; "?" */
const char *msg_early_stopping_name(enum msg_early_stopping e); /* "false", "true", "never"; "?" */

#endif
