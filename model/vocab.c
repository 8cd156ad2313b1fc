#include "model/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int vocab_init(struct vocab *v, int32_t n_ids)
{
    struct vocab made = {.n_ids = n_ids, .n_slots = 16};

    while (made.n_slots < 2 * (size_t)n_ids)
        made.n_slots *= 2;
    buf_init(&made.text, UINT32_MAX);
    made.tokens = calloc((size_t)n_ids + 1, sizeof(*made.tokens));
    made.slots = malloc(made.n_slots * sizeof(*made.slots));
    if (!made.tokens || !made.slots) {
        vocab_release(&made);
        return -ENOMEM;
    }
    for (int32_t i = 0; i < n_ids; i++)
        made.tokens[i].length = -1;
    memset(made.slots, 0xff, made.n_slots * sizeof(*made.slots));
    *v = made;
    return 0;
}

void vocab_release(struct vocab *v)
{
    buf_release(&v->text);
    free(v->tokens);
    free(v->slots);
    *v = (struct vocab){0};
}

/* The slot that holds the token, or the empty slot for it. */
static size_t slot_of(const struct vocab *v, const void *token, size_t n)
{
    size_t mask = v->n_slots - 1, i = (size_t)XXH3_64bits(token, n) & mask;

    for (; v->slots[i] >= 0; i = (i + 1) & mask) {
        const struct vocab_token *t = &v->tokens[v->slots[i]];

        if ((size_t)t->length == n && memcmp(v->text.data + t->offset, token, n) == 0)
            break;
    }
    return i;
}

int vocab_add(struct vocab *v, const char *token, size_t n, int32_t id)
{
    size_t slot, offset = v->text.size_bytes;
    int rc;

    if (id < 0 || id >= v->n_ids || n > INT32_MAX)
        return -EINVAL;
    slot = slot_of(v, token, n);
    if (v->slots[slot] >= 0 || v->tokens[id].length >= 0)
        return -EEXIST;
    rc = buf_reserve(&v->text, n + 1); /* + 1: never a NULL base, even for an empty spelling */
    if (rc == 0)
        rc = buf_append(&v->text, token, n);
    if (rc < 0)
        return rc;
    v->tokens[id] = (struct vocab_token){(uint32_t)offset, (int32_t)n};
    v->slots[slot] = id;
    v->n_tokens++;
    return 0;
}

int32_t vocab_find(const struct vocab *v, const void *token, size_t n)
{
    return v->n_slots ? v->slots[slot_of(v, token, n)] : -1;
}

const char *vocab_text(const struct vocab *v, int32_t id, size_t *ret_n)
{
    if (id < 0 || id >= v->n_ids || v->tokens[id].length < 0)
        return NULL;
    *ret_n = (size_t)v->tokens[id].length;
    return (const char *)v->text.data + v->tokens[id].offset;
}
