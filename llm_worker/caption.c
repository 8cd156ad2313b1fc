#include "llm_worker/caption.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

static bool is_eos(const struct config *config, int32_t id)
{
    for (int i = 0; i < config->n_eos; i++)
        if (config->eos[i] == id)
            return true;
    return false;
}

/* The characters that Python's str.strip() removes. */
static bool is_space(utf8proc_int32_t c)
{
    utf8proc_category_t category;

    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85)
        return true;
    category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

/* Strips white space from the text after `start`. */
static void strip(struct buf *b, size_t start)
{
    const uint8_t *p = b->data + start;
    const size_t n = b->size_bytes - start;
    size_t from = n, to = 0, i = 0;

    while (i < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate(p + i, (utf8proc_ssize_t)(n - i), &c);

        if (k <= 0) /* not expected, since the tokenizer returns valid UTF-8; keep the byte */
            k = 1, c = 'x';
        if (!is_space(c)) {
            if (from == n)
                from = i;
            to = i + (size_t)k;
        }
        i += (size_t)k;
    }
    if (to <= from) {
        b->size_bytes = start;
        return;
    }
    memmove(b->data + start, b->data + start + from, to - from);
    b->size_bytes = start + (to - from);
}

int caption_text(const struct tokenizer *t, const struct config *config, const int32_t *ids, int n, struct buf *ret,
                 struct err *err)
{
    const size_t start = ret->size_bytes;
    int rc;

    while (n > 0 && is_eos(config, ids[n - 1]))
        n--;
    rc = tokenizer_decode(t, ids, (size_t)n, true, ret, err);
    if (rc == 0 && ret->size_bytes > start)
        strip(ret, start);
    return rc;
}
