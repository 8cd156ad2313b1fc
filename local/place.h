/* place.h - the worker processes of a plan, and each one's share of the machine.
 *
 * On the CPU there is one process of each worker; threads are divided in proportion to the work per item.
 * On GPUs there is one of each for every GPU: a GPU takes pictures through all stages, so all GPUs are equally busy
 * whatever the stages cost, and each can replace another. PLACE_CARD_SHARE of a GPU's memory is divided in proportion
 * to what the processes want (struct plan_worker, bytes); the rest is for CUDA itself. Their host threads load weights;
 * the CPUs decode pictures.
 * Who may call: one thread. Units: shares of 1. Memory: plain values; workers and device names are the caller's.
 * Errors: none. */
#ifndef BLIPLINE_LOCAL_PLACE_H
#define BLIPLINE_LOCAL_PLACE_H

#include "local/devices.h"
#include "recipe/plan.h"

enum { PLACE_MAX = PLAN_MAX_WORKERS * DEVICES_MAX };

#define PLACE_CARD_SHARE 0.9
#define PLACE_LEAST_SHARE 0.05 /* that a worker accepts */

/* One process. */
struct place {
    char name[32]; /* "encoder"; with several cards "encoder-0" */
    const struct plan_worker *worker;
    const char *device;
    double memory_share; /* of a card; 0: it is on none */
    int n_threads;
    int n_decode_threads; /* image encoders */
};

struct placement {
    const struct device_choice *devices;
    int n;
    struct place list[PLACE_MAX];
};

/* The program of a worker of this stage. */
const char *place_program(enum stage stage);
void place_workers(const struct plan *p, const struct device_choice *devices, int n_threads, struct placement *ret);

#endif
