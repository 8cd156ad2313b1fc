#include "job/passed_over.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)SOURCE_N_KINDS <= (int)ROW_SOURCE_MAX_PASSED, "every kind can be stored");

/* The kind of this name; SOURCE_N_KINDS if it is unknown. */
static enum source_kind kind_of(const char *name)
{
    enum source_kind kind = 0;

    while (kind < SOURCE_N_KINDS && strcmp(source_kind_name(kind), name) != 0)
        kind++;
    return kind;
}

static void add(struct passed_over *p, const char *kind, uint64_t n)
{
    uint32_t i = 0;

    while (i < p->n && strcmp(p->kinds[i].kind, kind) != 0)
        i++;
    if (i == ROW_SOURCE_MAX_PASSED || n == 0)
        return;
    if (i == p->n) {
        p->kinds[p->n].n = 0;
        (void)msg_text_set(p->kinds[p->n++].kind, sizeof(p->kinds[0].kind), kind);
    }
    p->kinds[i].n += n;
}

void passed_over_of_walk(const struct source_skipped *from, struct passed_over *ret)
{
    ret->n = 0;
    for (int i = 0; i < SOURCE_N_KINDS; i++)
        add(ret, source_kind_name((enum source_kind)i), from->n[i]);
}

void passed_over_add(struct passed_over *p, const struct row_source *source)
{
    for (uint32_t i = 0; i < source->n_passed; i++)
        add(p, source->passed[i].kind, source->passed[i].n);
}

bool passed_over_is_incomplete(const struct passed_over *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const enum source_kind kind = kind_of(p->kinds[i].kind);

        if (kind == SOURCE_UNREADABLE_FOLDERS || kind == SOURCE_UNREADABLE_LINKS || kind == SOURCE_LONG_PATHS)
            return true;
    }
    return false;
}

char *passed_over_words(const struct passed_over *p, char *ret, size_t size)
{
    size_t used = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; i < p->n && used < size; i++) {
        const enum source_kind kind = kind_of(p->kinds[i].kind);
        const char *words = kind < SOURCE_N_KINDS ? source_kind_words(kind) : p->kinds[i].kind;

        used += (size_t)snprintf(ret + used, size - used, "%s%s %" PRIu64, i ? ", " : "", words, p->kinds[i].n);
    }
    return ret;
}

json_t *passed_over_json(const struct passed_over *p)
{
    json_t *all = json_object();

    for (uint32_t i = 0; i < p->n; i++)
        (void)json_object_set_new(all, p->kinds[i].kind, json_integer((json_int_t)p->kinds[i].n));
    return all;
}
