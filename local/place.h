/* place.h - which processes of a plan's workers there are, and what each gets of the machine.
 *
 * On the CPU one of each; threads go by the work of an item.
 * On GPUs one of each for every card: a card takes pictures through all stages, so that the cards are equally busy
 * whatever the stages cost, and any of them may go on where another has stopped. Of a card's memory PLACE_CARD_SHARE is
 * shared out by what the processes want (struct plan_worker, bytes); the rest is for CUDA itself. Their host threads
 * load weights; the CPUs decode pictures.
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
