/* sandbox.h - drops all rights of the calling process that decoding does not need.
 *
 * What remains: memory up to a limit, descriptors 0 and 1, and system calls to read and write descriptor 0. A decoder
 * that an image has taken over cannot open files, start processes or use the network.
 * Who may call: a process with one thread, once.
 * Units: bytes.
 * Errors: none; `ret_missing` names the features that this system lacks, or is "". Builds with an address or thread
 * sanitizer drop nothing: its reports need files and it needs unlimited memory. */
#ifndef BLIPLINE_ENCODER_WORKER_SANDBOX_H
#define BLIPLINE_ENCODER_WORKER_SANDBOX_H

#include "base/err.h"

#include <stdint.h>

/* memory_bytes: limit of further allocations. */
void sandbox_enter(uint64_t memory_bytes, struct err *ret_missing);

#endif
