#include "model/pieces.h"

#include "base/grow.h"

#include <errno.h>
#include <stdlib.h>

void pieces_init(struct pieces *p)
{
    *p = (struct pieces){0};
    buf_init(&p->text, PIECES_MAX_BYTES);
}

void pieces_release(struct pieces *p)
{
    buf_release(&p->text);
    free(p->list);
    pieces_init(p);
}

void pieces_clear(struct pieces *p)
{
    buf_clear(&p->text);
    p->n = 0;
    p->at_start = false;
}

int pieces_mark(struct pieces *p, size_t begin, size_t n)
{
    if (grow_array(&p->list, &p->capacity, p->n, sizeof(*p->list), 32) < 0)
        return -ENOMEM;
    p->list[p->n++] = (struct piece){(uint32_t)begin, (uint32_t)n};
    return 0;
}

int pieces_add(struct pieces *p, const char *text, size_t n)
{
    size_t begin = p->text.size_bytes;
    int rc = buf_append(&p->text, text, n);

    if (rc == 0)
        rc = pieces_mark(p, begin, n);
    if (rc < 0)
        p->text.size_bytes = begin;
    return rc;
}

struct token_text pieces_at(const struct pieces *p, size_t i)
{
    const char *text = p->text.data ? (const char *)p->text.data : "";

    return (struct token_text){text + p->list[i].begin, p->list[i].size_bytes};
}
