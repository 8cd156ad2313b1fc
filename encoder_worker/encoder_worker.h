/* encoder_worker.h - the encoder daemon: turns units of image paths into trunk features.
 *
 * A pool fetches and decodes ahead of the compute thread, which runs the ViT over decoded images of any unit.
 * Who may call: main.
 * Units: in the names.
 * Memory: owned by the struct.
 * Errors: negative errno with err. A bad image becomes a record with a reason; a unit that fails becomes a Failure
 * message. */
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

/* The functions of struct worker_program. open() loads the weights (none for device null). run() returns after
 * SIGTERM, once all work is finished. -ECONNREFUSED: the broker refused this worker; err says why. */
int encoder_worker_open(const void *conf, void **ret, struct err *err) CHECK_RESULT;
int encoder_worker_run(void *daemon, struct err *err) CHECK_RESULT;
void encoder_worker_free(void *daemon);

#endif
