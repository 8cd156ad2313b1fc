/* decoder.h - the encoder's side of a process that decodes images.
 *
 * Image decoders are large and handle untrusted bytes, so they run in a sandboxed process (sandbox.h). If it crashes,
 * hangs or exceeds its limits, only its image fails. Its answers are checked. A process that has ended is replaced when
 * the next image comes.
 * Who may call: one thread at a time.
 * Units: bytes, pixels, milliseconds, nanoseconds.
 * Memory: see each function.
 * Errors: negative errno with err; an image that fails is a result with a code. */
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

/* Shared by all decoders of a pool; must outlive them. */
struct decoder_conf {
    uint32_t size_px; /* images are resized to this side */
    uint32_t n_slots; /* per decoder */
    struct decode_options options;
    uint64_t memory_bytes;  /* limit of a process's allocations */
    int64_t time_ms;        /* limit per image, of CPU time or of idle time */
    pthread_mutex_t giants; /* held during a struct picture_turn */
    atomic_bool said;       /* missing sandbox features have been logged */
    atomic_uint ticks;      /* changes while a decoder works within its limits */
};

struct decoder_result {
    enum image_error code;     /* IMAGE_NO_MEMORY: no decoder process; worth a retry */
    struct err message;        /* ASCII; "" if ok */
    struct decoder_slot *slot; /* NULL if not ok */
    uint32_t width, height;
    int64_t decode_ns, resize_ns;
};

/* Starts the process; decoder_await reports failures. */
int decoder_new(struct decoder_conf *conf, struct decoder **ret, struct err *err) CHECK_RESULT;
int decoder_await(struct decoder *d, struct err *err) CHECK_RESULT;
/* Ends the process; all slots must be free. */
void decoder_free(struct decoder *d);

/* Requests a file to be decoded and resized; up to DECODER_DEPTH at once. The bytes must stay valid and unchanged
 * until the answer. */
void decoder_ask(struct decoder *d, const uint8_t *bytes, size_t n);
/* The answer to the oldest question. Returns within the limits for any bytes; IMAGE_NO_MEMORY also if all slots are
 * held. */
void decoder_answer(struct decoder *d, struct decoder_result *ret);

/* -- the decoder process; main() begins with: if (decoder_is_asked_for(..)) return decoder_serve(); -- */

#define DECODER_ARGUMENT "--decode-pictures"

bool decoder_is_asked_for(int argc, char **argv);
int decoder_serve(void);

#endif
