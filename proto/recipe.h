/* recipe.h - what a job computes: prompts, decoding, scores, embeddings (message Recipe of wire.proto).
 *
 * Who may call: anyone; plain values.
 * Units:  tokens; texts are NUL-terminated UTF-8.
 * Memory: nothing to free.
 * Errors: -EINVAL with the field's name in err; negative errno of the buffer. */
#ifndef BLIPLINE_PROTO_RECIPE_H
#define BLIPLINE_PROTO_RECIPE_H

#include "base/buf.h"
#include "base/dtype.h"
#include "base/err.h"
#include "base/generation.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    MSG_NAME_SIZE = 128, /* host, device, model; sizes of text include the NUL */
    MSG_PROMPT_SIZE = 2048,
    MSG_MAX_PROMPTS = 8,
    MSG_MAX_TEXT_FIELDS = 4,
    MSG_MAX_EMBEDDINGS = 4,
    MSG_MAX_NEW_TOKENS = 65536,
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
    bool first_row;          /* ITC only: one row instead of Q */
};

struct msg_recipe {
    char name[MSG_NAME_SIZE];
    char model[MSG_NAME_SIZE];       /* captioner; "": none */
    char score_model[MSG_NAME_SIZE]; /* scorer; "": none */
    uint32_t n_prompts;              /* 0: one caption, from the bos token */
    char prompts[MSG_MAX_PROMPTS][MSG_PROMPT_SIZE];
    struct generation_options decode;
    enum dtype dtype_encode, dtype_qformer, dtype_llm;
    uint32_t n_text_fields;
    char text_fields[MSG_MAX_TEXT_FIELDS][MSG_NAME_SIZE];
    bool itc, itm;
    uint32_t n_embeddings;
    struct msg_embedding_spec embeddings[MSG_MAX_EMBEDDINGS];
    bool exif_orientation; /* apply the EXIF orientation */
    bool grey16_high_byte; /* 16-bit grey: take the upper byte; false: clip at 255 */
};

/* Set all defaults: greedy decoding of 20 new tokens in fp32. */
void msg_recipe_init(struct msg_recipe *r);
/* Check all ranges and combinations. */
int msg_recipe_check(const struct msg_recipe *r, struct err *err) CHECK_RESULT;

/* Append a line for each field in which `b` differs from `a` ("prompt 1: none, was \"a photo of\"").
 * Returns how many fields differ, or a negative errno of the buffer. */
int msg_recipe_diff(const struct msg_recipe *a, const struct msg_recipe *b, struct buf *words) CHECK_RESULT;
/* XXH3-64 over the packed message without the names of recipe and models. Sampling is seeded with it. */
uint64_t msg_recipe_hash(const struct msg_recipe *r);

/* The recipe's entry for an embedding, or NULL if it does not ask for it. */
const struct msg_embedding_spec *msg_recipe_embedding(const struct msg_recipe *r, enum msg_embedding kind);

const char *msg_embedding_name(enum msg_embedding kind); /* "query", "itc", "itc_text", "cls"; "?" */

#endif
