#include "base/log_format.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct line {
    char *data;
    size_t n, size;
    bool quoted; /* within quotes */
    bool full;
};

/* All of it or, where a closing quote would not fit behind it, nothing from here on. */
static void put(struct line *l, const char *text, size_t n)
{
    if (l->full || l->n + n + 1 > l->size) {
        l->full = true;
        return;
    }
    memcpy(l->data + l->n, text, n);
    l->n += n;
}

static void put_quote(struct line *l)
{
    put(l, "\"", 1);
    l->quoted ^= !l->full;
}

static size_t utf8_bytes(const char *text, size_t n)
{
    size_t bytes = 1;

    while (bytes < n && bytes < 4 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
        bytes++;
    return (unsigned char)text[0] >= 0xc0 ? bytes : 1;
}

static void put_escaped(struct line *l, const char *text, size_t n)
{
    static const char from[] = "\"\\\n\r\t", to[] = "\"\\nrt";

    for (size_t i = 0, bytes; i < n; i += bytes) {
        const unsigned char c = (unsigned char)text[i];
        const char *special = c ? strchr(from, c) : NULL;
        char escape[5];

        bytes = utf8_bytes(text + i, n - i);
        if (special)
            put(l, (char[]){'\\', to[special - from]}, 2);
        else if ((c < 0x20 || c == 0x7f) && snprintf(escape, sizeof(escape), "\\x%02x", c) == 4)
            put(l, escape, 4);
        else
            put(l, text + i, bytes); /* a character is cut nowhere */
    }
}

static void put_plain(struct line *l, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(l, (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? "?" : text + i, 1);
}

static bool needs_quotes(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f || strchr("\"\\=", text[i]))
            return true;
    return n == 0;
}

static void put_value(struct line *l, const char *text, size_t n, bool is_text)
{
    if (l->quoted) {
        put_escaped(l, text, n);
    } else if (is_text && l->n && l->data[l->n - 1] == '=' && needs_quotes(text, n)) {
        put_quote(l);
        put_escaped(l, text, n);
        put_quote(l);
    } else {
        put_plain(l, text, n);
    }
}

/* The text of an argument of printf's type `kind` ("lld" and so on, without flags), written as `spec` says. */
static int convert(char *ret, size_t size, const char *spec, const char *kind, va_list *ap)
{
    const char last = kind[strlen(kind) - 1];

    if (last == 's')
        return snprintf(ret, size, spec, va_arg(*ap, const char *));
    if (last == 'p')
        return snprintf(ret, size, spec, va_arg(*ap, void *));
    if (last == 'f' || last == 'g')
        return snprintf(ret, size, spec, va_arg(*ap, double));
    if (strncmp(kind, "ll", 2) == 0)
        return snprintf(ret, size, spec, va_arg(*ap, long long));
    if (kind[0] == 'l')
        return snprintf(ret, size, spec, va_arg(*ap, long));
    if (kind[0] == 'z')
        return snprintf(ret, size, spec, va_arg(*ap, size_t));
    if (kind[0] == 'j')
        return snprintf(ret, size, spec, va_arg(*ap, intmax_t));
    return snprintf(ret, size, spec, va_arg(*ap, int)); /* also h and hh, which are promoted */
}

/* The conversion at `fmt`, behind its '%'. Returns how long it is. */
static size_t put_conversion(struct line *l, const char *fmt, va_list *ap)
{
    size_t at = strspn(fmt, "-+ #0123456789"), n = 0;
    char spec[32] = "%", kind[8] = "", text[2048];
    int written;

    memcpy(spec + 1, fmt, at < 16 ? at : 16);
    if (fmt[at] == '*' || (fmt[at] == '.' && fmt[at + 1] == '*')) {
        (void)snprintf(spec + strlen(spec), 16, "%s%d", fmt[at] == '.' ? "." : "", va_arg(*ap, int));
        at += fmt[at] == '.' ? 2 : 1;
    } else if (fmt[at] == '.') {
        const size_t digits = strspn(fmt + at + 1, "0123456789");

        (void)snprintf(spec + strlen(spec), 14, ".%.*s", (int)digits, fmt + at + 1);
        at += 1 + digits;
    }
    while (n < sizeof(kind) - 1 && fmt[at + n] && strchr("hlzjt", fmt[at + n]))
        n++;
    n += fmt[at + n] != '\0';
    memcpy(kind, fmt + at, n);
    (void)snprintf(spec + strlen(spec), sizeof(kind), "%s", kind);
    if (n == 0)
        return at;
    written = convert(text, sizeof(text), spec, kind, ap);
    if (written > 0 || kind[n - 1] == 's')
        put_value(l, text, written < (int)sizeof(text) ? (size_t)written : sizeof(text) - 1, kind[n - 1] == 's');
    return at + n;
}

size_t log_format(char *ret, size_t size, const char *fmt, va_list ap)
{
    struct line l = {.data = ret, .size = size};
    va_list args;

    va_copy(args, ap);
    while (*fmt && !l.full) {
        const char *at = fmt++;

        if (at[0] == '"')
            put_quote(&l);
        else if (at[0] != '%')
            put(&l, at, 1);
        else if (at[1] != '%')
            fmt += put_conversion(&l, fmt, &args);
        else
            put(&l, fmt++, 1);
    }
    va_end(args);
    if (l.quoted)
        ret[l.n++] = '"'; /* put() has left room */
    return l.n;
}
