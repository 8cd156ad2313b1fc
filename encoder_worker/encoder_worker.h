/* encoder_worker.h - the encoder daemon: units of picture paths in, trunk features out.
 *
 * A pool fetches and decodes ahead of the compute thread, which runs the ViT over whatever is ready, across units.
 * Who may call: main.
 * Units: in the names.
 * Memory: owned by the struct.
 * Errors: negative errno with err; a bad picture is a record with a reason, a unit that cannot be done is a Failure to
 *         the broker. */
#ifndef BLIPLINE_ENCODER_WORKER_ENCODER_WORKER_H
#define BLIPLINE_ENCODER_WORKER_ENCODER_WORKER_H

#include "worker/worker.h"

#include <stdbool.h>
#include <stdint.h>

struct encoder_conf {
    struct worker_conf common;
    int64_t decode_threads, decode_time, decode_memory;
    int64_t max_file_bytes;
    int64_t max_pixels;
    bool exif_orientation, grey16_high_byte;
    char null_shape[64];
};

extern const struct conf_key encoder_conf_table[];

/* The functions of struct worker_program. Start loads the weights (device null: nothing) and starts the session. Run
 * goes on until SIGTERM and everything in hand is finished; -ECONNREFUSED: the broker refused this worker, err says
 * why. */
int encoder_worker_start(const void *conf, void **ret, struct err *err) CHECK_RESULT;
int encoder_worker_run(void *daemon, struct err *err) CHECK_RESULT;
void encoder_worker_free(void *daemon);

#endif
