/* place.h - the worker processes of a plan, and the share of the machine that each gets.
 *
 * On the CPU each worker has one process; threads are divided in proportion to the work per item.
 * On GPUs each worker has one process per GPU, so that all GPUs are equally busy and can replace each other.
 * PLACE_CARD_SHARE of a GPU's memory is divided in proportion to what the processes want (plan_worker.bytes); the rest
 * is for CUDA. Host threads load weights and decode pictures.
 * Who may call: one thread. Units: shares of 1. Memory: plain values; workers and device names are borrowed.
 * Errors: none. */
#ifndef BLIPLINE_LOCAL_PLACE_H
#define BLIPLINE_LOCAL_PLACE_H

#include "local/devices.h"
#include "recipe/plan.h"

enum { PLACE_MAX = PLAN_MAX_WORKERS * DEVICES_MAX };

#define PLACE_CARD_SHARE 0.9
#define PLACE_LEAST_SHARE 0.05 /* the least that a worker accepts */

/* One process. */
struct place {
    char name[32]; /* "encoder"; with several GPUs "encoder-0" */
    const struct plan_worker *worker;
    const char *device;
    double memory_share; /* of a GPU; 0: on the CPU */
    int n_threads;
    int n_decode_threads; /* image encoders */
};

struct placement {
    const struct device_choice *devices;
    int n;
    struct place list[PLACE_MAX];
};

/* The program that runs this stage. */
const char *place_program(enum stage stage);
void place_workers(const struct plan *p, const struct device_choice *devices, int n_threads, struct placement *ret);

#endif
