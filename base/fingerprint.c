#include "base/fingerprint.h"

#include <stdio.h>
#include <string.h>

bool fingerprint_equal(const struct fingerprint *a, const struct fingerprint *b)
{
    return memcmp(a->bytes, b->bytes, FINGERPRINT_BYTES) == 0;
}

bool fingerprint_is_none(const struct fingerprint *f)
{
    return fingerprint_equal(f, &(struct fingerprint){{0}});
}

char *fingerprint_to_hex(const struct fingerprint *f, char hex[FINGERPRINT_HEX_SIZE])
{
    hex[0] = '\0';
    for (int i = 0; i < FINGERPRINT_BYTES && !fingerprint_is_none(f); i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", f->bytes[i]);
    return hex;
}
