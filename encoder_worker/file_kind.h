/* file_kind.h - what a file is that is none of the pictures we read, by its first bytes.
 *
 * Who may call: any thread. Units: bytes. Memory: static. Errors: none. */
#ifndef BLIPLINE_ENCODER_WORKER_FILE_KIND_H
#define BLIPLINE_ENCODER_WORKER_FILE_KIND_H

#include <stddef.h>
#include <stdint.h>

/* "a GIF picture", "an HTML page", "a text file", ...; "of no kind that is known here". */
const char *file_kind(const uint8_t *bytes, size_t n);

#endif
