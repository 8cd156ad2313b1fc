/* worker.h - the Q-Former daemon: trunk features in, projected queries out.
 *
 * Who may call: main. Units: in the names. Memory: owned by the struct.
 * Errors: negative errno with err; a unit that cannot be done is a Failure to the broker. */
#ifndef BLIPLINE_QFORMER_WORKER_WORKER_H
#define BLIPLINE_QFORMER_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"

#include <stdint.h>

struct qformer_conf {
    char endpoint[128];
    char model[1024];
    char device[64];
    int64_t threads;
    int64_t batch;
    int64_t window_items;
    int64_t window_bytes;
    char null_shape[64];
    char log_level[16];
};

extern const struct conf_key qformer_conf_table[];

struct qformer_worker;

/* Loads the weights (device null: nothing), starts the session. */
int qformer_worker_new(const struct qformer_conf *conf, struct qformer_worker **ret, struct err *err) CHECK_RESULT;
/* Until SIGTERM and everything in hand is finished. -ECONNREFUSED: the broker refused this worker, err says why. */
int qformer_worker_run(struct qformer_worker *w, struct err *err) CHECK_RESULT;
void qformer_worker_free(struct qformer_worker *w);

#endif
