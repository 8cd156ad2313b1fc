/* plan.h - a job before any work: its recipe as it is stored, its graph of stages, and the workers that it takes.
 *
 *   plan.c         checkpoints, graph, workers
 *   plan_check.c   what can be wrong with prompts, decoding options, types and sizes
 *   plan_work.c    how much work and memory a stage takes
 *
 * Which processes of the workers there are, and where, is local/place.h.
 *
 * Everything that can be wrong with a recipe and its checkpoints is found here.
 * Who may call: one thread. Units: out_bytes in bytes an item. Memory: plain values.
 * Errors: negative errno and `err` naming file, tensor or option, and the cure. -EDOM: what is asked for cannot be, by
 * these models or by any; the others are about the checkpoints. */
#ifndef BLIPLINE_RECIPE_PLAN_H
#define BLIPLINE_RECIPE_PLAN_H

#include "base/err.h"
#include "recipe/recipe.h"
#include "tensor/cpu_isa.h"
#include "proto/msg.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum device_kind { DEVICE_CPU, DEVICE_NULL, DEVICE_CUDA };

enum { PLAN_MAX_WORKERS = 5, PLAN_MAX_FIELDS = 32 };

struct plan_options {
    const struct recipe *recipe;
    const char *model_dir;       /* --model; may be NULL */
    const char *score_model_dir; /* --score-model; may be NULL */
    /* DEVICE_NULL: any worker may do it, tensors are tiny, there are no checkpoints. The others choose the types that
     * the recipe leaves open: bf16 on GPUs, else fp32. */
    enum device_kind device;
    /* Nobody will compare or show fingerprints: the models' tensors are not read. Only the image encoders of two models
     * are, to say whether they are one. */
    bool no_fingerprints;
};

/* One kind of process to start. */
struct plan_worker {
    const char *name; /* "encoder", "qformer", "llm", "score-encoder", "score-qformer" */
    enum stage stage;
    char model_dir[PATH_MAX]; /* absolute; "": null */
    enum dtype dtype;
    uint32_t nodes;  /* bit i: it runs node i */
    int rows, width; /* of the tensor that it hands on; null workers need to be told */
    int n_positions; /* language models: of the longest sequence */
    double gflop;    /* an item, roughly: what threads are shared out by */
    double bytes;    /* of a GPU's memory, roughly: what that is shared out by; on the CPU of the weights alone */
};

struct plan {
    enum device_kind device;
    struct msg_recipe recipe;
    uint32_t n_nodes;
    struct msg_node nodes[MSG_MAX_NODES];
    uint32_t n_workers;
    struct plan_worker workers[PLAN_MAX_WORKERS];
    /* Columns of lists that are kept with the items. Those of prompts are needed, those of given texts are not where
     * captions are written. */
    uint32_t n_fields;
    struct plan_field {
        char name[MSG_NAME_SIZE];
        bool needed;
    } fields[PLAN_MAX_FIELDS];
    bool is_demo;   /* a small model that comes with the source */
    char note[384]; /* what the user is told of the captioner's files; "": nothing */
};

int plan_make(const struct plan_options *o, struct plan *ret, struct err *err) CHECK_RESULT;
/* Can a machine with this level of CPU instructions and this much memory (swap included) do it? -EDOM: its CPU lacks a
 * number type; -ENOMEM: its memory cannot hold the weights. device_probe asks about GPUs. */
int plan_check_machine(const struct plan *p, enum cpu_isa isa, double machine_bytes, struct err *err) CHECK_RESULT;

#endif
