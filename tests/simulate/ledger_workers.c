/* The ledger's workers: known, heard, with room for work. */
#include "tests/simulate/world.h"

struct led_worker *ledger_worker(struct world *w, uint64_t peer)
{
    for (struct led_worker *k = w->ledger.workers; k; k = k->next)
        if (k->peer == peer)
            return k;
    return NULL;
}

static struct led_worker *worker_by_name(struct world *w, uint64_t host, uint64_t nonce)
{
    for (struct led_worker *k = w->ledger.workers; k; k = k->next)
        if (k->host == host && k->nonce == nonce)
            return k;
    return NULL;
}

void ledger_expect_forget(struct world *w, uint64_t peer)
{
    if (w->ledger.n_forgets == LED_FORGETS)
        world_fail(w, "too many peers are forgotten at once");
    w->ledger.forgets[w->ledger.n_forgets++] = peer;
}

/* -- coming and going -- */

static struct led_lease *lease_of(struct world *w, const struct led_worker *k, bool unnamed)
{
    for (struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->worker == k && !(unnamed && l->named))
            return l;
    return NULL;
}

static void give_back(struct world *w, struct led_lease *l)
{
    w->ledger.sum.returns++;
    ledger_lease_close(w, l);
    ledger_returned(w, l->subunit, l->node, l->attempt);
}

void ledger_worker_remove(struct world *w, struct led_worker *k, bool clean)
{
    struct led_worker **at = &w->ledger.workers;
    struct led_lease *l;

    k->silent = true; /* it gets no work any more */
    while ((l = lease_of(w, k, false))) {
        struct core_node_stats *n = &l->subunit->job->led.nodes[l->node];

        if (clean) {
            give_back(w, l);
            continue;
        }
        n->failures++;
        n->isolations += l->exclusive;
        w->ledger.sum.failures++;
        ledger_failed_on(l->subunit, l->node, k);
        ledger_lease_close(w, l);
        ledger_blame(w, l->subunit, l->node, l->attempt);
    }
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
}

void ledger_worker_forgotten(struct world *w, struct led_worker *k)
{
    ledger_expect_forget(w, k->peer);
    ledger_worker_remove(w, k, true);
}

void ledger_gone(struct world *w, struct led_worker *k, bool clean, bool ended)
{
    if (clean || ended)
        ledger_worker_remove(w, k, clean);
    else if (!k->lost && (k->n_leases == 0 || w->ledger.shutdown))
        ledger_worker_forgotten(w, k);
    else
        k->lost = k->silent = true;
}

void ledger_heard(struct world *w, struct led_worker *k)
{
    if (!k->lost)
        k->silent = false;
    k->heard = w->ledger.now;
    k->late_told = false;
}

/* -- HELLO -- */

/* Does any open job have a node that the worker may run? */
static bool is_wanted(const struct world *w, const struct led_worker *k)
{
    for (uint32_t n = 0; n < w->n_jobs; n++)
        for (uint32_t i = 0; i < w->jobs[n].n_nodes && w->jobs[n].open && !w->jobs[n].led.closing; i++)
            if (ledger_matches(k, &w->jobs[n], i))
                return true;
    return false;
}

/* Would one more worker, perhaps of a new kind, exceed a limit? */
static bool is_too_much(const struct world *w, uint32_t stage, uint32_t model)
{
    uint32_t n_workers = 0;
    bool known = false;

    for (const struct led_worker *k = w->ledger.workers; k; k = k->next) {
        n_workers++;
        known = known || ledger_is_of_kind(k, stage, model, 0);
    }
    return n_workers >= w->limits.max_workers || (!known && ledger_count_kinds(w) >= w->limits.max_pools);
}

/* The process has reconnected. */
static void comes_back(struct world *w, struct led_worker *k, const struct core_event *e)
{
    struct led_lease *l;

    if (k->peer != e->hello.peer)
        ledger_expect_forget(w, k->peer);
    k->peer = e->hello.peer;
    k->lost = false;
    if (e->hello.epoch == 0)
        return;
    for (uint32_t i = 0; i < e->hello.n_leases && e->hello.epoch == w->epoch; i++)
        if ((l = ledger_lease(w, e->hello.leases[i])) && l->worker == k) {
            l->named = true;
            ledger_extend(w, l);
        }
    while ((l = lease_of(w, k, true)))
        give_back(w, l);
    for (l = w->ledger.leases; l; l = l->next)
        l->named = false;
}

/* The worker that is known already; NULL: it is new. */
static struct led_worker *known(struct world *w, const struct core_event *e)
{
    struct led_worker *k = ledger_worker(w, e->hello.peer);
    struct led_worker *same = worker_by_name(w, e->hello.host, e->hello.nonce);
    bool fits = same && same->stage == e->hello.stage && same->model == e->hello.fingerprint.bytes[0];

    if (k && k == same && fits) {
        if (k->lost)
            comes_back(w, k, e);
        return k;
    }
    if (k)
        ledger_worker_remove(w, k, false);
    if (!same || same == k)
        return NULL;
    if (fits) {
        comes_back(w, same, e);
        return same;
    }
    ledger_expect_forget(w, same->peer);
    ledger_worker_remove(w, same, false);
    return NULL;
}

static struct led_worker *admit(struct world *w, const struct core_event *e)
{
    uint32_t stage = e->hello.stage, model = e->hello.fingerprint.bytes[0];
    struct led_worker *k;

    w->ledger.answer = CORE_DO_REFUSE;
    if (stage == 0 || stage >= N_STAGES)
        w->ledger.reason = CORE_REFUSE_BAD_MESSAGE;
    else if (ledger_is_cut_off(w, e->hello.host, e->hello.nonce))
        w->ledger.reason = CORE_REFUSE_STALLED;
    else if (w->ledger.shutdown)
        w->ledger.reason = CORE_REFUSE_DRAINING;
    else if (is_too_much(w, stage, model))
        w->ledger.reason = CORE_REFUSE_LIMIT;
    else
        w->ledger.answer = CORE_DO_WELCOME;
    if (w->ledger.answer == CORE_DO_REFUSE)
        return NULL;
    k = world_alloc(w, sizeof(*k));
    *k = (struct led_worker){.next = w->ledger.workers,
                             .peer = e->hello.peer,
                             .host = e->hello.host,
                             .nonce = e->hello.nonce,
                             .stage = stage,
                             .model = model};
    k->idle = !is_wanted(w, k);
    return w->ledger.workers = k;
}

void ledger_hello(struct world *w, const struct core_event *e)
{
    struct led_worker *k = known(w, e);

    w->ledger.answer = CORE_DO_WELCOME;
    if (!k)
        k = admit(w, e);
    if (!k)
        return;
    k->window_items = e->hello.window_items;
    k->window_bytes = e->hello.window_bytes;
    ledger_heard(w, k);
}

/* -- room -- */

bool ledger_is_of_kind(const struct led_worker *k, uint32_t stage, uint32_t model, uint32_t kind)
{
    return k->stage == stage && k->model == model && k->kind == kind;
}

/* First nodes read pictures. */
bool ledger_matches(const struct led_worker *k, const struct sim_job *j, uint32_t node)
{
    const struct core_node *n = &j->nodes[node];

    return k->stage == n->stage && (n->fingerprint.bytes[0] == 0 || n->fingerprint.bytes[0] == k->model) &&
           (n->needs || !(k->kind >> j->index & 1));
}

bool ledger_has_room(struct world *w, const struct led_worker *k, bool exclusive, uint32_t n_items, uint64_t n_bytes)
{
    uint32_t window = k->window_items < w->limits.max_worker_items ? k->window_items : w->limits.max_worker_items;

    if (k->silent || k->lost || k->rest_until || window == 0 || k->n_leases >= w->limits.max_worker_leases)
        return false;
    if (k->n_leases == 0)
        return true;
    for (const struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->worker == k && l->exclusive)
            return false;
    return !exclusive && k->n_late == 0 && !ledger_is_careful(k) && k->held_items + n_items <= window &&
           k->held_bytes + n_bytes <= k->window_bytes;
}
