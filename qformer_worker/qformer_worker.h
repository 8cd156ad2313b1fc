/* qformer_worker.h - the Q-Former daemon: turns trunk features into projected queries, scores and embeddings.
 *
 * Who may call: main.
 * Units: in the names.
 * Memory: owned by the struct.
 * Errors: negative errno with err; a unit that fails becomes a Failure message. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_WORKER_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_WORKER_H

#include "worker/worker.h"

#include <stdint.h>

struct qformer_conf {
    struct worker_conf common;
    char null_shape[64];
};

extern const struct conf_key qformer_conf_table[];

/* The functions of struct worker_program. open() loads the weights (none for device null). run() returns after
 * SIGTERM, once all work is finished. -ECONNREFUSED: the broker refused this worker; err says why. */
int qformer_worker_open(const void *conf, void **ret, struct err *err) CHECK_RESULT;
int qformer_worker_run(void *daemon, struct err *err) CHECK_RESULT;
void qformer_worker_free(void *daemon);

#endif
