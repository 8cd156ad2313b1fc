/* plan_private.h - what recipe/plan*.c share.
 *
 * Who may call: they. Units, errors: as in plan.h. Memory: plain values. */
#ifndef BLIPLINE_RECIPE_PLAN_PRIVATE_H
#define BLIPLINE_RECIPE_PLAN_PRIVATE_H

#include "recipe/plan.h"
#include "model/config.h"

/* What the stages compute in; none is left open. */
struct plan_dtypes {
    enum dtype encode, qformer, llm;
    unsigned encoder_settings; /* what fingerprint_with_settings is told of the image encoder */
};

/* One checkpoint. */
struct plan_side {
    bool present;
    char dir[PATH_MAX]; /* absolute; "": null */
    char name[MSG_NAME_SIZE];
    char tokenizer_path[PATH_MAX + 16];
    struct config config;
    struct fingerprint encoder, qformer, llm;
};

/* Prompts in their final words, given the language model; fields; options. *ret_positions: what a sequence takes. */
int plan_set_prompts(struct plan *p, const struct recipe *r, const struct plan_side *captioner, int *ret_positions,
                     struct err *err) CHECK_RESULT;
/* What the device and the language model (if there are captions) can compute in. -EDOM. */
int plan_check_dtypes(const struct plan_dtypes *d, const struct plan_options *o, enum config_lm lm,
                      struct err *err) CHECK_RESULT;
int plan_check_captions(const struct msg_recipe *r, const struct config *c, struct err *err) CHECK_RESULT;
/* The scorer's tokenizer is there and understood. */
int plan_check_scorer(const struct plan_side *scorer, struct err *err) CHECK_RESULT;
/* Rows and tensors of an item within what a message holds. `c` is the Q-Former's that makes the embeddings. */
int plan_check_sizes(const struct plan *p, const struct config *c, struct err *err) CHECK_RESULT;

/* GFLOP an item, roughly. */
double plan_gflop_encoder(const struct config *c);
double plan_gflop_qformer(const struct config *c, const struct msg_recipe *r, uint32_t tasks);
double plan_gflop_llm(const struct config *c, const struct msg_recipe *r);

/* Bytes of a GPU's memory that a process wants which runs the stage alone, roughly. */
double plan_bytes_encoder(const struct config *c, enum dtype d, bool gpu);
double plan_bytes_qformer(const struct config *c, enum dtype d, bool gpu);
double plan_bytes_llm(const struct config *c, enum dtype d, int n_positions, bool gpu);

#endif
