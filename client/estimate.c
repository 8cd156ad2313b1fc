#include "client/estimate.h"

enum { S_OF_CAPACITY = 1000 }; /* capacity is in items per 1000 s */

static bool fits(const struct row_fleet_stage *r, const struct msg_node *node)
{
    return r->stage == node->stage && r->n_able > 0 &&
           (fingerprint_is_none(&node->fingerprint) || fingerprint_equal(&r->fingerprint, &node->fingerprint));
}

/* Any worker of the stage may do a node without a fingerprint: the fastest ones. */
static const struct row_fleet_stage *find(const struct msg_node *node, const struct row_fleet_stage *rows, size_t n)
{
    const struct row_fleet_stage *best = NULL;

    for (size_t i = 0; i < n; i++)
        if (fits(&rows[i], node) && (!best || rows[i].capacity > best->capacity))
            best = &rows[i];
    return best;
}

static bool same_workers(const struct msg_node *a, const struct msg_node *b)
{
    return a->stage == b->stage && fingerprint_equal(&a->fingerprint, &b->fingerprint);
}

void estimate_make(const struct plan *p, uint64_t n_items, const struct row_fleet_stage *rows, size_t n_rows,
                   struct estimate *ret)
{
    bool all_known = true;

    *ret = (struct estimate){.n = 0};
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        struct estimate_stage *s = &ret->stages[ret->n];
        uint32_t n_nodes = 0, n_before = 0;

        for (uint32_t k = 0; k < p->n_nodes; k++) {
            n_nodes += same_workers(&p->nodes[k], &p->nodes[i]);
            n_before += k < i && same_workers(&p->nodes[k], &p->nodes[i]);
        }
        if (n_before)
            continue;
        *s = (struct estimate_stage){.node = &p->nodes[i], .fleet = find(&p->nodes[i], rows, n_rows)};
        s->items_per_s = s->fleet ? (double)s->fleet->capacity / S_OF_CAPACITY / n_nodes : 0;
        all_known = all_known && s->items_per_s > 0;
        if (!ret->slowest || s->items_per_s < ret->slowest->items_per_s)
            ret->slowest = s;
        ret->n++;
    }
    if (!all_known)
        ret->slowest = NULL;
    if (ret->slowest)
        ret->seconds = (double)n_items / ret->slowest->items_per_s;
}
