/* decoder_talk.h - the messages between the encoder and a decoder process; private to the two.
 *
 * The process has a socket (descriptor 0) and shared memory (descriptor 1; decoder_memory.h). It reads a struct
 * decoder_setup and sends READY. Then each request gets an answer DONE, in order. Before it, the process may send GIANT
 * once and wait until the request is repeated. Up to DECODER_DEPTH requests may be pending. Every message is one
 * struct; both ends are the same program.
 * Units: bytes, pixels, nanoseconds. The encoder treats answers and memory as hostile. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODER_TALK_H
#define BLIPLINE_ENCODER_WORKER_DECODER_TALK_H

#include "encoder_worker/decode.h"
#include "encoder_worker/decoder_memory.h"

#include <stdint.h>

enum { DECODER_SOCKET = 0, DECODER_MEMORY = 1 };

struct decoder_setup {
    struct decoder_layout layout;
    struct decode_options options;
    uint64_t memory_bytes; /* limit of allocations */
};

struct decoder_request {
    uint64_t serial; /* modulo DECODER_DEPTH: the index of the file */
    uint64_t n_bytes;
    uint32_t slot; /* the slot for the pixels */
};

enum decoder_answer_kind { DECODER_READY, DECODER_GIANT, DECODER_DONE };

struct decoder_answer {
    uint64_t serial; /* of the request; READY: 0 */
    uint32_t kind, code;
    uint32_t width, height;
    int64_t decode_ns, resize_ns;
    struct err message; /* DONE: the error. READY: sandbox features that this system lacks */
};

#endif
