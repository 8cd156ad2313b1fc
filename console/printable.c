#include "console/printable.h"

#include "model/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* How to show the next character of `p` (n >= 1 bytes left). Returns its length in the input. */
static size_t next_character(const uint8_t *p, size_t n, char shown[8])
{
    uint32_t cp;
    size_t used = utf8_step(p, n, &cp);
    bool control = cp < 0x20 || (cp >= 0x7f && cp < 0xa0);

    if (cp != UTF8_BROKEN && !control) {
        memcpy(shown, p, used);
        shown[used] = '\0';
        return used;
    }
    if (cp == '\n' || cp == '\t')
        (void)snprintf(shown, 8, "\\%c", cp == '\n' ? 'n' : 't');
    else if (cp != UTF8_BROKEN)
        (void)snprintf(shown, 8, "\\x%02x", (unsigned)cp & 0xff);
    else
        (void)snprintf(shown, 8, "\\x%02x", p[0]);
    return cp == UTF8_BROKEN ? 1 : used;
}

void printable_write(FILE *out, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    char shown[8];

    while (n > 0) {
        size_t used = next_character(p, n, shown);

        fputs(shown, out);
        p += used;
        n -= used;
    }
}

char *printable_text(const void *bytes, size_t n, char *ret, size_t ret_size)
{
    const uint8_t *p = bytes;
    size_t at = 0;
    char shown[8];

    while (n > 0) {
        size_t used = next_character(p, n, shown);
        size_t k = strlen(shown);

        if (at + k + 1 > ret_size)
            break;
        memcpy(ret + at, shown, k);
        at += k;
        p += used;
        n -= used;
    }
    ret[at] = '\0';
    return ret;
}

char *printable_size(uint64_t bytes, char ret[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    int i = 0;

    while (v >= 1024 && i < 5) {
        v /= 1024;
        i++;
    }
    (void)snprintf(ret, 32, i ? "%.1f %s" : "%.0f %s", v, units[i]);
    return ret;
}
