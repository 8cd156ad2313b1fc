/* decoder.h - a process that decodes pictures, seen from the encoder.
 *
 * Decoders of pictures are large and meet bytes that anybody may have made, so they run apart: in a process without
 * rights (sandbox.h) that may fail, run wild or use up its limits without harm to anything but its picture. Whatever it
 * sends back is checked. A process that has come to an end is followed by another one when the next picture comes.
 * Who may call: one thread at a time.
 * Units: bytes, pixels, milliseconds, nanoseconds.
 * Memory: as each function says.
 * Errors: negative errno with err; what is wrong with a picture is a result with a code. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODER_H
#define BLIPLINE_ENCODER_WORKER_DECODER_H

#include "base/err.h"
#include "encoder_worker/decode.h"
#include "encoder_worker/decoder_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct decoder;

/* What all decoders of a pool share; outlives them. */
struct decoder_conf {
    uint32_t size_px; /* pictures are resized to this side */
    uint32_t n_slots; /* of each decoder */
    struct decode_options options;
    uint64_t memory_bytes;  /* what a process may allocate */
    int64_t time_ms;        /* for a picture: of CPU time, or of standing still */
    pthread_mutex_t giants; /* held for the time of a struct picture_turn */
    atomic_bool said;       /* what cannot be taken away from the processes has been logged */
    atomic_uint ticks;      /* moves while a decoder is at work within its limits */
};

struct decoder_result {
    enum image_error code;     /* IMAGE_NO_MEMORY: there is no process to decode with; worth another attempt */
    struct err message;        /* ASCII; "" when ok */
    struct decoder_slot *slot; /* NULL when not ok */
    uint32_t width, height;
    int64_t decode_ns, resize_ns;
};

/* Starts the process; decoder_await says whether that went well. */
int decoder_new(struct decoder_conf *conf, struct decoder **ret, struct err *err) CHECK_RESULT;
int decoder_await(struct decoder *d, struct err *err) CHECK_RESULT;
/* Ends the process; there are no slots any more. */
void decoder_free(struct decoder *d);

/* Ask for a file to be decoded and resized: for up to DECODER_DEPTH at once. The bytes stay the caller's, and as they
 * are until the answer is there. */
void decoder_ask(struct decoder *d, const uint8_t *bytes, size_t n);
/* The answer to the oldest question. Returns within the limits, whatever the bytes are; IMAGE_NO_MEMORY also when all
 * slots are held. */
void decoder_answer(struct decoder *d, struct decoder_result *ret);

/* -- the process itself, for main(), first thing: if (decoder_is_asked_for(..)) return decoder_serve(); -- */

#define DECODER_ARGUMENT "--decode-pictures"

bool decoder_is_asked_for(int argc, char **argv);
int decoder_serve(void);

#endif
