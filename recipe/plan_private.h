/* plan_private.h - shared by recipe/plan*.c only. Units, errors: as in plan.h. Memory: plain values. */
#ifndef BLIPLINE_RECIPE_PLAN_PRIVATE_H
#define BLIPLINE_RECIPE_PLAN_PRIVATE_H

#include "recipe/plan.h"
#include "model/config.h"

/* The types that the stages compute in; none is left open. */
struct plan_dtypes {
    enum dtype encode, qformer, llm;
    unsigned encoder_settings; /* of the image encoder, for fingerprint_with_settings */
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

/* Set the types that the recipe leaves open to those of the workers that have offered the models. -EDOM: there are
 * several. */
int plan_choose_dtypes(const struct plan_options *o, struct plan_dtypes *d, struct err *err) CHECK_RESULT;
/* Set the fingerprints, that of the language model if `captions`, to those that workers have offered. -EDOM: no worker
 * computes that. */
int plan_take_offered(const struct model *m, const struct plan_dtypes *d, bool captions, struct plan_side *s,
                      struct err *err) CHECK_RESULT;

/* Set prompts in their final form for the language model, fields, and options. *ret_positions: positions a sequence
 * needs. */
int plan_set_prompts(struct plan *p, const struct recipe *r, const struct plan_side *captioner, int *ret_positions,
                     struct err *err) CHECK_RESULT;
/* Check that the device, and the language model if there are captions, can compute in these types. -EDOM. */
int plan_check_dtypes(const struct plan_dtypes *d, const struct plan_options *o, enum config_lm lm,
                      struct err *err) CHECK_RESULT;
int plan_check_captions(const struct msg_recipe *r, const struct config *c, struct err *err) CHECK_RESULT;
/* Check the scorer's tokenizer. */
int plan_check_scorer(const struct plan_side *scorer, struct err *err) CHECK_RESULT;
/* Check that rows and tensors of an item fit a message, and estimate what it takes in the store. `c`: of the Q-Former
 * that makes the embeddings. */
int plan_check_sizes(struct plan *p, const struct config *c, struct err *err) CHECK_RESULT;

/* Estimated GFLOP per item. */
double plan_gflop_encoder(const struct config *c);
double plan_gflop_qformer(const struct config *c, const struct msg_recipe *r, uint32_t tasks);
double plan_gflop_llm(const struct config *c, const struct msg_recipe *r);

/* Estimated GPU memory in bytes that a process of the stage wants; on the CPU the weights only. */
double plan_bytes_encoder(const struct config *c, enum dtype d, bool gpu);
double plan_bytes_qformer(const struct config *c, enum dtype d, bool gpu);
double plan_bytes_llm(const struct config *c, enum dtype d, int n_positions, bool gpu);

#endif
