/* qformer_worker.h - the Q-Former daemon: trunk features in, projected queries out.
 *
 * Who may call: main.
 * Units: in the names.
 * Memory: owned by the struct.
 * Errors: negative errno with err; a unit that cannot be done is a Failure to the broker. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_WORKER_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_WORKER_H

#include "worker/worker.h"

#include <stdint.h>

struct qformer_conf {
    struct worker_conf common;
    char null_shape[64];
};

extern const struct conf_key qformer_conf_table[];

/* The functions of struct worker_program. Start loads the weights (device null: nothing) and starts the session. Run
 * goes on until SIGTERM and everything in hand is finished; -ECONNREFUSED: the broker refused this worker, err says
 * why. */
int qformer_worker_start(const void *conf, void **ret, struct err *err) CHECK_RESULT;
int qformer_worker_run(void *daemon, struct err *err) CHECK_RESULT;
void qformer_worker_free(void *daemon);

#endif
