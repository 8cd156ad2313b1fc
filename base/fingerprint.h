/* fingerprint.h - 128 bits that identify a computation: equal fingerprints mean equal results.
 *
 * model/fingerprint.h computes them.
 * Who may call: anyone; plain values. Units, memory, errors: none. */
#ifndef BLIPLINE_BASE_FINGERPRINT_H
#define BLIPLINE_BASE_FINGERPRINT_H

#include <stdbool.h>
#include <stdint.h>

enum { FINGERPRINT_BYTES = 16, FINGERPRINT_HEX_SIZE = 2 * FINGERPRINT_BYTES + 1 };

/* All zero is "none": a worker of device null has none, and a node without one accepts any worker of its stage. */
struct fingerprint {
    uint8_t bytes[FINGERPRINT_BYTES];
};

bool fingerprint_is_none(const struct fingerprint *f);
bool fingerprint_equal(const struct fingerprint *a, const struct fingerprint *b);
/* 32 lower-case digits, or "" for none; returns `hex`. */
char *fingerprint_to_hex(const struct fingerprint *f, char hex[FINGERPRINT_HEX_SIZE]);

#endif
