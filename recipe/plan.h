/* plan.h - plans a job before any work: the recipe as stored, the graph of stages, the workers.
 *
 *   plan.c         checkpoints, graph, workers
 *   plan_check.c   checks of prompts, decoding options, types and sizes
 *   plan_offered.c models that the workers of a broker have offered
 *   plan_work.c    how much work and memory a stage takes
 *
 * Finds all errors of a recipe and its checkpoints. local/place.h decides which processes run where.
 * Who may call: one thread. Units: out_bytes in bytes per item. Memory: plain values.
 * Errors: negative errno; `err` names file, tensor or option, and the cure. -EDOM: the request is impossible, with
 * these models or at all; the others concern the checkpoints. */
#ifndef BLIPLINE_RECIPE_PLAN_H
#define BLIPLINE_RECIPE_PLAN_H

#include "base/err.h"
#include "recipe/recipe.h"
#include "tensor/cpu_isa.h"
#include "proto/model.h"
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
    /* What workers have offered (proto/model.h). Then the folder above has only the small files; fingerprints, and the
     * types that the recipe leaves open, are those of the workers. NULL: the folder is a checkpoint. */
    const struct model *model, *score_model;
    /* DEVICE_NULL: no checkpoints, tiny tensors, any null worker. Otherwise decides types that the recipe leaves open:
     * bf16 on GPUs, fp32 on the CPU. */
    enum device_kind device;
    /* Fingerprints are not needed: do not read tensors, except to find out whether two models share an image encoder.
     * */
    bool no_fingerprints;
};

/* A kind of worker process. */
struct plan_worker {
    const char *name; /* "encoder", "qformer", "llm", "score-encoder", "score-qformer" */
    enum stage stage;
    char model_dir[PATH_MAX]; /* absolute; "": null worker */
    enum dtype dtype;
    uint32_t nodes;  /* bit i: it runs node i */
    int rows, width; /* of its output tensor; configured for null workers */
    int n_positions; /* language models: of the longest sequence */
    double gflop;    /* per item, estimated; threads are divided in proportion */
    double bytes;    /* GPU memory wanted, estimated, divided in proportion; on the CPU bytes of the weights */
};

struct plan {
    enum device_kind device;
    struct msg_recipe recipe;
    uint32_t n_nodes;
    struct msg_node nodes[MSG_MAX_NODES];
    uint32_t n_workers;
    struct plan_worker workers[PLAN_MAX_WORKERS];
    /* Columns of lists to keep with the items. Columns of prompts are needed; text fields are not if the job writes
     * captions. */
    uint32_t n_fields;
    struct plan_field {
        char name[MSG_NAME_SIZE];
        bool needed;
    } fields[PLAN_MAX_FIELDS];
    uint64_t result_bytes; /* of an item in the store, estimated */
    bool is_demo;          /* a demo model */
    char note[384];        /* for the user, about the captioner's files; "": none */
};

int plan_make(const struct plan_options *o, struct plan *ret, struct err *err) CHECK_RESULT;
/* Check that a machine with these CPU instructions and this much memory (with swap) can run it. -EDOM: the CPU lacks a
 * number type; -ENOMEM: the weights do not fit. For GPUs see local/device_probe.h. */
int plan_check_machine(const struct plan *p, enum cpu_isa isa, double machine_bytes, struct err *err) CHECK_RESULT;

#endif
