/* decoder_talk.h - what the encoder and a decoder process say to each other; nobody but the two includes this.
 *
 * The process has a socket (descriptor 0) and memory that both see (descriptor 1; decoder_memory.h). It reads a struct
 * decoder_setup and says READY; then each request gets an answer DONE, in order, before which it may say GIANT once and
 * wait for the request to be repeated; up to DECODER_DEPTH requests may be on their way. Every message is one struct;
 * both ends are one program.
 * Units: bytes, pixels, nanoseconds. To the encoder an answer is hostile, and so is the memory. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODER_TALK_H
#define BLIPLINE_ENCODER_WORKER_DECODER_TALK_H

#include "encoder_worker/decode.h"
#include "encoder_worker/decoder_memory.h"

#include <stdint.h>

enum { DECODER_SOCKET = 0, DECODER_MEMORY = 1 };

struct decoder_setup {
    struct decoder_layout layout;
    struct decode_options options;
    uint64_t memory_bytes; /* what the process may allocate */
};

struct decoder_request {
    uint64_t serial; /* modulo DECODER_DEPTH: in which of the files the bytes are */
    uint64_t n_bytes;
    uint32_t slot; /* where the pixels are to go */
};

enum decoder_answer_kind { DECODER_READY, DECODER_GIANT, DECODER_DONE };

struct decoder_answer {
    uint64_t serial; /* of the request; READY: 0 */
    uint32_t kind, code;
    uint32_t width, height;
    int64_t decode_ns, resize_ns;
    struct err message; /* DONE: why not. READY: what this system does not let us take away from the process */
};

#endif
