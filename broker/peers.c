#include "broker/peers.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { MAX_REFUSALS = 50, REFUSALS_MS = 10000 };

struct peer *peers_find(const struct peers *all, uint64_t number)
{
    return core_map_get(&all->by_number, number);
}

struct peer *peers_require(struct peers *all, uint64_t number)
{
    struct peer *p = peers_find(all, number);

    if (p)
        return p;
    p = calloc(1, sizeof(*p));
    if (!p || core_map_put(&all->by_number, number, p) < 0) {
        free(p);
        return NULL;
    }
    p->number = number;
    return p;
}

size_t peers_count(const struct peers *all, bool workers, const char *name, const struct peer *but)
{
    size_t at = 0, n = 0;

    for (const struct peer *p; (p = peers_next(all, &at));)
        n += p != but && p->role && (p->role == MSG_ROLE_WORKER) == workers && (!name || strcmp(p->name, name) == 0);
    return n;
}

void peers_forget(struct peers *all, uint64_t number)
{
    free(core_map_take(&all->by_number, number));
}

struct peer *peers_next(const struct peers *all, size_t *at)
{
    return core_map_next(&all->by_number, at);
}

void peers_note_refusal(struct peers *all, uint64_t number)
{
    const int64_t now_ms = clock_mono_ms();
    struct peer *p = peers_find(all, number);

    if (!p)
        return;
    if (now_ms >= p->refused_at_ms + REFUSALS_MS) {
        p->refused_at_ms = now_ms;
        p->n_refused = 0;
    }
    p->drop |= ++p->n_refused >= MAX_REFUSALS;
}

void peers_release(struct peers *all)
{
    size_t at = 0;

    for (struct peer *p; (p = peers_next(all, &at));)
        free(p);
    core_map_release(&all->by_number);
}
