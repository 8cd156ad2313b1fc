#include "broker/removals.h"

#include "broker/committer_private.h"
#include "store/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct removal {
    struct removal *next;
    struct passage *passage;
    char path[PATH_MAX];
    pthread_t thread;
    bool has_thread;
    atomic_bool over;
};

static void *delete_store(void *arg)
{
    struct removal *r = arg;

    r->passage->done.rc = folder_remove(r->path, &r->passage->err);
    atomic_store(&r->over, true);
    return NULL;
}

static void begin(struct removal *r)
{
    r->has_thread = pthread_create(&r->thread, NULL, delete_store, r) == 0;
    if (!r->has_thread)
        (void)delete_store(r);
}

int removals_add(struct removals *r, struct passage *p, const char *path)
{
    struct removal *n = calloc(1, sizeof(*n)), **link = &r->first;

    if (!n)
        return err_set(&p->err, -ENOMEM, "%s: out of memory", path);
    n->passage = p;
    memcpy(n->path, path, strlen(path) + 1);
    while (*link)
        link = &(*link)->next;
    *link = n;
    if (link == &r->first)
        begin(n);
    return 0;
}

struct passage *removals_take(struct removals *r, bool wait)
{
    struct removal *first = r->first;
    struct passage *p;

    if (!first || (!wait && !atomic_load(&first->over)))
        return NULL;
    if (first->has_thread)
        (void)pthread_join(first->thread, NULL);
    p = first->passage;
    r->first = first->next;
    free(first);
    if (r->first)
        begin(r->first);
    return p;
}
