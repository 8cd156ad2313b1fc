/* sandbox.h - take from the calling process whatever decoding pictures does not need.
 *
 * What stays: memory up to a limit, descriptors 0 and 1, and system calls that read and write descriptor 0. A decoder
 * that a picture has made do something else can open, start and reach nothing.
 * Who may call: a process with one thread, once.
 * Units: bytes.
 * Errors: none; what this system does not let us take away is named in `ret_missing`, which is "" otherwise. In builds
 * with an address or thread sanitizer nothing is taken: its reports need files, and its memory has no bounds. */
#ifndef BLIPLINE_ENCODER_WORKER_SANDBOX_H
#define BLIPLINE_ENCODER_WORKER_SANDBOX_H

#include "base/err.h"

#include <stdint.h>

/* memory_bytes: what may be allocated on top of what is now. */
void sandbox_enter(uint64_t memory_bytes, struct err *ret_missing);

#endif
