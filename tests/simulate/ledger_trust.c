/* The ledger's trust in workers: which are slowed or benched, and whether a worker or a subunit is blamed. */
#include "tests/simulate/world.h"

struct led_name ledger_name(const struct led_worker *k)
{
    return (struct led_name){.host = k->host, .nonce = k->nonce};
}

static bool is_named(const struct led_worker *k, const struct led_name *name)
{
    return name->nonce && k->host == name->host && k->nonce == name->nonce;
}

static uint32_t in_row(const struct led_worker *k)
{
    return k->n_bad + k->n_refused;
}

bool ledger_is_careful(const struct led_worker *k)
{
    return in_row(k) >= 2;
}

static bool is_good(const struct led_worker *k)
{
    return !k->silent && k->window_items > 0 && in_row(k) < 3;
}

/* -- who failed a subunit -- */

static bool has_failed(const struct led_subunit *p, uint32_t node, const struct led_worker *k)
{
    for (uint32_t i = 0; i < LED_FAILERS; i++)
        if (is_named(k, &p->failers[node][i]))
            return true;
    return false;
}

void ledger_failed_on(struct led_subunit *p, uint32_t node, const struct led_worker *k)
{
    p->failed_before = true;
    if (has_failed(p, node, k))
        return;
    p->failers[node][p->n_failers[node]++ % LED_FAILERS] = ledger_name(k);
}

static bool has_others(struct world *w, const struct led_subunit *p, uint32_t node, const struct led_worker *but)
{
    for (const struct led_worker *k = w->ledger.workers; k; k = k->next)
        if (k != but && is_good(k) && ledger_matches(k, p->job, node) && !has_failed(p, node, k))
            return true;
    return false;
}

bool ledger_avoids(struct world *w, const struct led_subunit *p, uint32_t node, const struct led_worker *k)
{
    return has_failed(p, node, k) && has_others(w, p, node, NULL);
}

bool ledger_needs_another(struct world *w, const struct led_subunit *p, uint32_t node)
{
    return p->n_failers[node] < 2 && has_others(w, p, node, NULL);
}

/* -- what a bad end costs -- */

void ledger_rest(struct world *w, struct led_worker *k, int64_t ms)
{
    if (k->rest_until < w->ledger.now + ms)
        k->rest_until = w->ledger.now + ms;
}

static void charge(struct world *w, struct led_worker *k, uint32_t *count)
{
    int64_t most_ms = 1000, ms = 100;

    for (const struct led_worker *m = w->ledger.workers; m; m = m->next)
        if (m != k && ledger_is_of_kind(m, k->stage, k->model, k->kind) && is_good(m))
            most_ms = w->limits.lease_ms;
    ++*count;
    if (!ledger_is_careful(k))
        return;
    for (uint32_t n = in_row(k); n > 2 && ms < most_ms; n--)
        ms *= 2;
    ledger_rest(w, k, ms < most_ms ? ms : most_ms);
    w->ledger.sum.benches += in_row(k) >= 6 && !k->benched;
    k->benched = k->benched || in_row(k) >= 6;
}

static void acquit(struct led_worker *k, uint32_t *count)
{
    if (*count == 0)
        return;
    *count = 0;
    if (ledger_is_careful(k))
        return;
    k->rest_until = 0;
    k->benched = false;
}

void ledger_did_well(struct world *w, const struct led_lease *l)
{
    const struct led_subunit *p = l->subunit;

    acquit(l->worker, &l->worker->n_bad);
    for (uint32_t n = 0; n < l->node; n++)
        for (struct led_worker *k = w->ledger.workers; k; k = k->next)
            if ((p->job->nodes[l->node].needs >> n & 1) && p->job->nodes[n].out_bytes && is_named(k, &p->makers[n]))
                acquit(k, &k->n_refused);
}

/* Failures of untrusted workers do not count against a subunit that others could do. */
static bool is_to_blame(struct world *w, const struct led_lease *l)
{
    return in_row(l->worker) < 3 || !has_others(w, l->subunit, l->node, l->worker);
}

void ledger_fails(struct world *w, struct led_lease *l)
{
    const bool blame = is_to_blame(w, l), first = !l->subunit->failed_before;

    ledger_failed_on(l->subunit, l->node, l->worker);
    ledger_lease_close(w, l);
    if (first)
        charge(w, l->worker, &l->worker->n_bad);
    if (blame)
        ledger_blame(w, l->subunit, l->node, l->attempt);
    else
        ledger_again(w, l->subunit);
}

void ledger_hands_back(struct world *w, struct led_lease *l)
{
    const bool blame = is_to_blame(w, l);

    w->ledger.sum.returns++;
    l->subunit->job->led.nodes[l->node].returns++;
    ledger_lease_close(w, l);
    if (l->worker->window_items > 0)
        charge(w, l->worker, &l->worker->n_bad);
    if (blame)
        ledger_returned(w, l->subunit, l->node, l->attempt);
    else
        ledger_again(w, l->subunit);
}

/* -- leases that last too long -- */

static void add_pace(struct led_pace *p, uint64_t ms, uint32_t n_items)
{
    p->ms += ms;
    p->n_items += n_items;
    if (p->n_items > 65536) {
        p->ms /= 2;
        p->n_items /= 2;
    }
}

static uint64_t item_us(const struct led_pace *p)
{
    return p->n_items ? p->ms * 1000 / p->n_items : 0;
}

void ledger_measure(struct world *w, const struct led_lease *l)
{
    int64_t from = l->worker->ended > l->granted ? l->worker->ended : l->granted;

    add_pace(&l->subunit->job->led.pace[l->node], (uint64_t)(w->ledger.now - from), l->n_items);
    add_pace(&l->worker->pace, (uint64_t)(w->ledger.now - from), l->n_items);
    l->worker->ended = w->ledger.now;
}

/* Heartbeats of simulated workers do not count finished items. */
int64_t ledger_stall_at(const struct world *w, const struct led_lease *l)
{
    const struct led_pace *fleet = &l->subunit->job->led.pace[l->node];
    uint64_t us = item_us(fleet) > item_us(&l->worker->pace) ? item_us(fleet) : item_us(&l->worker->pace);
    int64_t ms = (int64_t)(us * l->held_at_grant * 16 / 1000);

    if (fleet->n_items == 0)
        return l->granted + w->limits.first_stall_ms;
    return l->granted + (ms > w->limits.stall_ms ? ms : w->limits.stall_ms);
}

void ledger_extend(const struct world *w, struct led_lease *l)
{
    l->until = w->ledger.now + w->limits.lease_ms;
    l->deadline = l->until < ledger_stall_at(w, l) ? l->until : ledger_stall_at(w, l);
}

bool ledger_is_cut_off(const struct world *w, uint64_t host, uint64_t nonce)
{
    for (uint32_t i = 0; i < 64; i++)
        if (w->ledger.cut_off[i].nonce == nonce && w->ledger.cut_off[i].host == host)
            return true;
    return false;
}

/* The lease that the worker has held longest is blamed. */
void ledger_stalls(struct world *w, struct led_worker *k)
{
    struct led_lease *oldest = NULL;
    struct led_subunit *p;

    for (struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->worker == k && (!oldest || l->id < oldest->id))
            oldest = l;
    if (!oldest)
        world_fail(w, "peer %llu stalls without a lease", (unsigned long long)k->peer);
    p = oldest->subunit;
    p->job->led.nodes[oldest->node].stalls++;
    w->ledger.sum.stalls++;
    w->ledger.cut_off[w->ledger.n_cut_off++ % 64] = ledger_name(k);
    w->ledger.vague |= w->ledger.refused != 0; /* two in one step */
    w->ledger.refused = k->peer;
    ledger_failed_on(p, oldest->node, k);
    ledger_lease_close(w, oldest);
    ledger_blame(w, p, oldest->node, oldest->attempt);
    ledger_worker_remove(w, k, true);
}

void ledger_refuses(struct world *w, struct led_lease *l, uint32_t nodes)
{
    struct led_subunit *p = l->subunit;

    ledger_lease_close(w, l);
    for (uint32_t n = 0; n < p->job->n_nodes; n++) {
        if (!(nodes >> n & 1) || p->state[n] != LED_DONE)
            continue;
        w->ledger.sum.tensors_refused++;
        p->job->led.nodes[n].tensors_refused++;
        for (struct led_worker *k = w->ledger.workers; k; k = k->next)
            if (is_named(k, &p->makers[n])) {
                ledger_failed_on(p, n, k);
                charge(w, k, &k->n_refused);
            }
    }
    ledger_restart(w, p);
}
