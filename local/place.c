#include "local/place.h"

#include <math.h>
#include <stdio.h>

enum { MAX_LOAD_THREADS = 8, MAX_DECODE_THREADS = 256 };

const char *place_program(enum stage stage)
{
    if (stage == STAGE_ENCODE)
        return "blipline-encoder";
    return stage == STAGE_QFORMER ? "blipline-qformer" : "blipline-llm";
}

static int within(int n, int most)
{
    return n < 1 ? 1 : n > most ? most : n;
}

/* In proportion to the work per item. Each gets twice its share, because the busiest stage can use the threads of
 * others while those wait for it. */
static void share_threads(struct placement *p, int n_threads)
{
    double sum = 0;

    for (int i = 0; i < p->n; i++)
        sum += p->list[i].worker->gflop;
    for (int i = 0; i < p->n; i++) {
        struct place *at = &p->list[i];
        double share = sum > 0 ? 2 * at->worker->gflop / sum : 1;

        at->n_threads = within((int)((share < 1 ? share : 1) * n_threads + 0.5), n_threads);
        at->n_decode_threads = within(at->n_threads / 2, MAX_DECODE_THREADS);
    }
}

/* Every process needs a thread for its GPU, the broker needs one, and the image encoders decode with the rest. */
static void share_host(struct placement *p, int n_threads)
{
    int n_encoders = 0;

    for (int i = 0; i < p->n; i++)
        n_encoders += p->list[i].worker->stage == STAGE_ENCODE;
    for (int i = 0; i < p->n; i++) {
        p->list[i].n_threads = within(n_threads / p->n, MAX_LOAD_THREADS);
        p->list[i].n_decode_threads =
            within((n_threads - p->n - 1) / (n_encoders ? n_encoders : 1), MAX_DECODE_THREADS);
    }
}

/* What is given to those below the least share is taken from the others, in proportion. */
static void share_memory(const struct plan *plan, double *ret_shares)
{
    double sum = 0, large = 0, left = PLACE_CARD_SHARE;

    for (uint32_t i = 0; i < plan->n_workers; i++)
        sum += plan->workers[i].bytes;
    for (uint32_t i = 0; i < plan->n_workers; i++) {
        ret_shares[i] = PLACE_CARD_SHARE * plan->workers[i].bytes / sum;
        if (ret_shares[i] > PLACE_LEAST_SHARE)
            large += plan->workers[i].bytes;
        else
            left -= ret_shares[i] = PLACE_LEAST_SHARE;
    }
    for (uint32_t i = 0; i < plan->n_workers; i++)
        if (ret_shares[i] > PLACE_LEAST_SHARE)
            ret_shares[i] = fmax(left * plan->workers[i].bytes / large, PLACE_LEAST_SHARE);
}

void place_workers(const struct plan *plan, const struct device_choice *devices, int n_threads, struct placement *ret)
{
    const bool gpus = devices->kind == DEVICE_CUDA;
    double shares[PLAN_MAX_WORKERS];

    *ret = (struct placement){.devices = devices};
    share_memory(plan, shares);
    for (int card = 0; card < devices->n; card++)
        for (uint32_t i = 0; i < plan->n_workers; i++) {
            struct place *at = &ret->list[ret->n++];

            *at = (struct place){
                .worker = &plan->workers[i], .device = devices->names[card], .memory_share = gpus ? shares[i] : 0};
            if (devices->n > 1)
                (void)snprintf(at->name, sizeof(at->name), "%s-%d", plan->workers[i].name, card);
            else
                (void)snprintf(at->name, sizeof(at->name), "%s", plan->workers[i].name);
        }
    if (gpus)
        share_host(ret, n_threads);
    else
        share_threads(ret, n_threads);
}
