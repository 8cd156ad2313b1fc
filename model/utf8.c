#include "model/utf8.h"

size_t utf8_step(const void *p, size_t n, uint32_t *ret_cp)
{
    const uint8_t *s = p;
    uint8_t low = 0x80, high = 0xbf; /* of the second byte: no overlong forms, surrogates, or beyond U+10FFFF */
    uint32_t cp;
    size_t want;

    *ret_cp = UTF8_BROKEN;
    if (s[0] < 0x80) {
        *ret_cp = s[0];
        return 1;
    }
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 1;
    want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    cp = s[0] & (0x7fu >> want);
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < want; i++) {
        if (i >= n || s[i] < low || s[i] > high)
            return i;
        cp = cp << 6 | (s[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    *ret_cp = cp;
    return want;
}

bool utf8_is_valid(const void *p, size_t n)
{
    const uint8_t *s = p;
    uint32_t cp;

    for (size_t i = 0; i < n;) {
        i += utf8_step(s + i, n - i, &cp);
        if (cp == UTF8_BROKEN)
            return false;
    }
    return true;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

int utf8_append_lossy(struct buf *ret, const void *p, size_t n)
{
    const uint8_t *s = p;
    size_t before = ret->size_bytes, run = 0;
    int rc = 0;

    if (n == 0)
        return 0; /* p may be NULL then */
    for (size_t i = 0; i < n && rc == 0;) {
        uint32_t cp;
        size_t k = utf8_step(s + i, n - i, &cp);

        if (cp == UTF8_BROKEN) {
            rc = buf_append(ret, s + run, i - run);
            if (rc == 0)
                rc = buf_append(ret, "\xef\xbf\xbd", 3);
            run = i + k;
        }
        i += k;
    }
    if (rc == 0)
        rc = buf_append(ret, s + run, n - run);
    if (rc < 0)
        ret->size_bytes = before;
    return rc;
}

bool utf8_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

size_t utf8_spaces_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        size_t k = at - 1;
        uint32_t cp;

        while (k > from && ((unsigned char)text[k] & 0xc0) == 0x80)
            k--;
        (void)utf8_step(text + k, at - k, &cp);
        if (!utf8_is_space(cp))
            break;
        at = k;
    }
    return at;
}

size_t utf8_spaces_after(const char *text, size_t at, size_t n)
{
    while (at < n) {
        uint32_t cp;
        size_t k = utf8_step(text + at, n - at, &cp);

        if (!utf8_is_space(cp))
            break;
        at += k;
    }
    return at;
}
