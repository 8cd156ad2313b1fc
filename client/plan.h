/* plan.h - what a caption job computes: recipe and stage graph, from a checkpoint or for null workers.
 *
 * Everything that can be wrong with a checkpoint or a prompt is found here, before any work.
 * Who may call: one thread. Units: out_bytes in bytes an item. Memory: plain values.
 * Errors: negative errno and `err` naming file, tensor or option. */
#ifndef BLIPLINE_CLIENT_PLAN_H
#define BLIPLINE_CLIENT_PLAN_H

#include "base/err.h"
#include "proto/msg.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct plan_options {
    const char *model_dir; /* may be NULL for null workers */
    const char *prompt;    /* NULL: none */
    int64_t max_new_tokens;
};

struct plan {
    char model_dir[PATH_MAX]; /* absolute; "": null workers */
    struct msg_recipe recipe;
    struct msg_node nodes[3]; /* encode, qformer, llm */
    int n_tokens, width;      /* what the encoder hands on */
    int n_queries, lm_width;  /* what the Q-Former hands on */
    int n_positions;          /* of a sequence in the language model */
    bool is_demo;             /* the small model that comes with the source */
};

int plan_model(const struct plan_options *o, struct plan *ret, struct err *err) CHECK_RESULT;
/* Null workers: any worker may do it, tensors are tiny. */
int plan_null(const struct plan_options *o, struct plan *ret, struct err *err) CHECK_RESULT;

#endif
