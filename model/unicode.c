#include "model/unicode.h"

#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool is_ascii(const char *text, size_t n)
{
    unsigned char any = 0;

    for (size_t i = 0; i < n; i++)
        any |= (unsigned char)text[i];
    return any < 0x80;
}

/* -- the decomposed form */

struct points {
    int32_t *cp;
    size_t n, capacity;
};

static int points_reserve(struct points *p, size_t extra)
{
    size_t capacity = p->capacity ? p->capacity : 256;
    int32_t *cp;

    if (p->n + extra <= p->capacity)
        return 0;
    while (capacity < p->n + extra)
        capacity *= 2;
    if (capacity > INT32_MAX / sizeof(*cp))
        return -EFBIG;
    cp = reallocarray(p->cp, capacity, sizeof(*cp));
    if (!cp)
        return -ENOMEM;
    p->cp = cp;
    p->capacity = capacity;
    return 0;
}

static int decompose(const char *text, size_t n, struct points *p)
{
    enum { LONGEST = 32 }; /* limit of one character's decomposition; Unicode's maximum is 18 */
    int last = UTF8PROC_BOUNDCLASS_START, rc = 0;

    for (size_t i = 0; i < n && rc == 0;) {
        utf8proc_ssize_t k;
        uint32_t cp;

        i += utf8_step(text + i, n - i, &cp);
        rc = points_reserve(p, LONGEST);
        if (rc < 0)
            break;
        k = utf8proc_decompose_char((int32_t)cp, p->cp + p->n, LONGEST, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &last);
        if (k < 0 || k > LONGEST)
            rc = -EINVAL;
        else
            p->n += (size_t)k;
    }
    return rc;
}

static int combining_class(int32_t cp)
{
    return cp < 0x300 ? 0 : utf8proc_get_property(cp)->combining_class;
}

static int by_class(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* Sorts a run of marks by combining class, stably. utf8proc does it by insertion, which is quadratic. */
static int order_run(int32_t *cp, size_t n)
{
    uint64_t few[32], *keys = n <= 32 ? few : malloc(n * sizeof(*keys));

    if (!keys)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        keys[i] = (uint64_t)combining_class(cp[i]) << 56 | (uint64_t)i << 24 | (uint32_t)cp[i];
    qsort(keys, n, sizeof(*keys), by_class);
    for (size_t i = 0; i < n; i++)
        cp[i] = (int32_t)(keys[i] & 0xffffff);
    if (keys != few)
        free(keys);
    return 0;
}

static int order_marks(struct points *p)
{
    int rc = 0;

    for (size_t i = 0; i < p->n && rc == 0;) {
        size_t end = i;

        while (end < p->n && combining_class(p->cp[end]))
            end++;
        if (end - i > 1)
            rc = order_run(p->cp + i, end - i);
        i = end > i ? end : i + 1;
    }
    return rc;
}

int unicode_decompose(const char *text, size_t n, struct buf *ret)
{
    struct points p = {0};
    size_t before = ret->size_bytes;
    int rc;

    if (is_ascii(text, n))
        return buf_append(ret, text, n);
    rc = decompose(text, n, &p);
    if (rc == 0)
        rc = order_marks(&p);
    for (size_t i = 0; i < p.n && rc == 0; i++) {
        rc = buf_reserve(ret, 4);
        if (rc == 0)
            ret->size_bytes += utf8_encode((uint32_t)p.cp[i], (char *)ret->data + ret->size_bytes);
    }
    free(p.cp);
    if (rc < 0)
        ret->size_bytes = before;
    return rc;
}

/* -- characters */

size_t unicode_grapheme(const char *text, size_t n)
{
    uint32_t cp, next;
    size_t at = utf8_step(text, n, &cp);
    utf8proc_int32_t state = 0;

    while (at < n) {
        size_t k = utf8_step(text + at, n - at, &next);

        if (utf8proc_grapheme_break_stateful((int32_t)cp, (int32_t)next, &state))
            break;
        at += k;
        cp = next;
    }
    return at;
}

size_t unicode_lower(uint32_t cp, uint32_t ret[2])
{
    if (cp == 0x130) { /* the only character whose lower case is two; utf8proc_tolower returns the first */
        ret[0] = 'i';
        ret[1] = 0x307;
        return 2;
    }
    ret[0] = (uint32_t)utf8proc_tolower((int32_t)cp);
    return 1;
}

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((int32_t)cp);
}

bool unicode_is_control(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO;
}

bool unicode_is_nonspacing(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_MN;
}

bool unicode_is_punctuation(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}
