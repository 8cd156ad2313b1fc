/* worker.h - the encoder daemon: units of picture paths in, trunk features out.
 *
 * A pool of threads fetches and decodes ahead of the compute thread, which runs the ViT over whatever is ready, across
 * units. Who may call: main. Units: in the names. Memory: owned by the struct. Errors: negative errno with err; a bad
 * picture is a record with a reason, a unit that cannot be done is a Failure to the broker. */
#ifndef BLIPLINE_ENCODER_WORKER_WORKER_H
#define BLIPLINE_ENCODER_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct encoder_conf {
    char endpoint[128];
    char model[1024];
    char device[64];
    int64_t threads;
    int64_t decode_threads;
    int64_t batch;
    int64_t window_items;
    int64_t window_bytes;
    int64_t max_file_bytes;
    int64_t max_pixels;
    int64_t max_dimension;
    char null_shape[64];
    char log_level[16];
};

extern const struct conf_key encoder_conf_table[];

struct encoder_worker;

/* Loads the weights (device null: nothing), starts pool and session. */
int encoder_worker_new(const struct encoder_conf *conf, struct encoder_worker **ret, struct err *err) CHECK_RESULT;
/* Until SIGTERM and everything in hand is finished. -ECONNREFUSED: the broker refused this worker, err says why. */
int encoder_worker_run(struct encoder_worker *w, struct err *err) CHECK_RESULT;
void encoder_worker_free(struct encoder_worker *w);

#endif
