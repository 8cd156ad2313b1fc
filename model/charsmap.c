#include "model/charsmap.h"

#include "model/unicode.h"
#include "model/utf8.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { NO_VALUE = -1, MAX_WHOLE_BYTES = 6 };

struct charsmap {
    uint8_t *bytes;
    size_t n_units;
    const char *values;
    size_t values_size;
    int64_t ascii[128]; /* the value of each ASCII character, or NO_VALUE */
};

/* -- darts' double array */

static uint32_t unit_at(const struct charsmap *m, size_t i)
{
    const uint8_t *p = m->bytes + 4 + 4 * i;

    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool is_value(uint32_t unit)
{
    return unit >> 31;
}

static uint32_t value_of(uint32_t unit)
{
    return unit & 0x7fffffff;
}

static bool has_value(uint32_t unit)
{
    return unit >> 8 & 1;
}

static uint32_t offset_of(uint32_t unit)
{
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}

/* The value of the shortest key that p begins with. Reads at most n bytes; check() has verified that all steps stay
 * inside the array. */
static int64_t find(const struct charsmap *m, const char *p, size_t n)
{
    size_t at = offset_of(unit_at(m, 0));

    for (size_t i = 0; i < n && p[i]; i++) {
        uint8_t c = (uint8_t)p[i];
        uint32_t unit;

        at ^= c;
        unit = unit_at(m, at);
        if ((unit & (1u << 31 | 0xff)) != c)
            return NO_VALUE;
        at ^= offset_of(unit);
        if (has_value(unit))
            return value_of(unit_at(m, at));
    }
    return NO_VALUE;
}

/* -- loading */

/* Checks that every byte leads from each unit to a unit inside the array, and that values are offsets where a
 * character begins. */
static int check(const struct charsmap *m, const char *where, struct err *err)
{
    if (is_value(unit_at(m, 0)))
        return err_set(err, -EINVAL, "%s: the trie has no root", where);
    for (size_t i = 0; i < m->n_units; i++) {
        uint32_t unit = unit_at(m, i), value;
        size_t next = i ^ offset_of(unit);

        if (is_value(unit))
            continue;
        if ((next | 0xff) >= m->n_units)
            return err_set(err, -EINVAL, "%s: unit %zu of the trie leads to unit %zu of %zu", where, i, next | 0xff,
                           m->n_units);
        value = has_value(unit) ? value_of(unit_at(m, next)) : 0;
        if (value > m->values_size || (value < m->values_size && ((uint8_t)m->values[value] & 0xc0) == 0x80))
            return err_set(err, -EINVAL, "%s: unit %zu of the trie has its value at byte %u of %zu", where, i, value,
                           m->values_size);
    }
    return 0;
}

static int decode(struct charsmap *m, const char *base64, size_t n, const char *where, struct err *err)
{
    size_t size, trie_size;

    m->bytes = malloc(n / 4 * 3 + 4);
    if (!m->bytes)
        return -ENOMEM;
    if (sodium_base642bin(m->bytes, n / 4 * 3 + 4, base64, n, NULL, &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
        return err_set(err, -EINVAL, "%s: is not valid base64", where);
    if (size < 4)
        return err_set(err, -EINVAL, "%s: %zu bytes are too few", where, size);
    trie_size = m->bytes[0] | (size_t)m->bytes[1] << 8 | (size_t)m->bytes[2] << 16 | (size_t)m->bytes[3] << 24;
    if (trie_size < 4 || trie_size % 4 || trie_size > size - 4)
        return err_set(err, -EINVAL, "%s: a trie of %zu bytes in %zu", where, trie_size, size);
    m->n_units = trie_size / 4;
    m->values = (const char *)m->bytes + 4 + trie_size;
    m->values_size = size - 4 - trie_size;
    if (!utf8_is_valid(m->values, m->values_size))
        return err_set(err, -EINVAL, "%s: the strings are not valid UTF-8", where);
    return check(m, where, err);
}

int charsmap_parse(const char *base64, size_t n, const char *where, struct charsmap **ret, struct err *err)
{
    struct charsmap *m = calloc(1, sizeof(*m));
    int rc;

    if (!m)
        return -ENOMEM;
    rc = decode(m, base64, n, where, err);
    if (rc < 0) {
        charsmap_free(m);
        return rc;
    }
    for (int c = 0; c < 128; c++)
        m->ascii[c] = find(m, &(char){(char)c}, 1);
    *ret = m;
    return 0;
}

void charsmap_free(struct charsmap *m)
{
    if (!m)
        return;
    free(m->bytes);
    free(m);
}

/* -- use */

static int append_value(const struct charsmap *m, int64_t value, struct buf *ret)
{
    const char *s = m->values + value;

    return buf_append(ret, s, strnlen(s, m->values_size - (size_t)value));
}

static int append_characters(const struct charsmap *m, const char *text, size_t n, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        uint32_t cp;
        int64_t value;

        k = utf8_step(text + i, n - i, &cp);
        value = find(m, text + i, k);
        rc = value == NO_VALUE ? buf_append(ret, text + i, k) : append_value(m, value, ret);
    }
    return rc;
}

int charsmap_apply(const struct charsmap *m, const char *text, size_t n, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0, k; i < n && rc == 0; i += k) {
        unsigned char c = (unsigned char)text[i];
        /* There is always a grapheme boundary between two ASCII characters, except in CR LF. */
        bool alone = c < 0x80 && (i + 1 == n || (unsigned char)text[i + 1] < 0x80) && c != '\r';
        int64_t value;

        k = alone ? 1 : unicode_grapheme(text + i, n - i);
        value = alone ? m->ascii[c] : k < MAX_WHOLE_BYTES ? find(m, text + i, k) : NO_VALUE;
        if (value != NO_VALUE)
            rc = append_value(m, value, ret);
        else
            rc = alone ? buf_append(ret, text + i, 1) : append_characters(m, text + i, k, ret);
    }
    return rc;
}
