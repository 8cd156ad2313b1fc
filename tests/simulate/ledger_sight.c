/* The ledger's view of sight: which workers cannot see the pictures of which jobs, and rest from these jobs. */
#include "tests/simulate/world.h"

enum { FIRST_REST_MS = 5000, LONGEST_REST_MS = 60000 };

/* Kinds of workers: different stages, models, or jobs that they rest from. */
uint32_t ledger_count_kinds(const struct world *w)
{
    uint32_t n = 0;

    for (const struct led_worker *k = w->ledger.workers; k; k = k->next) {
        bool first = true;

        for (const struct led_worker *m = w->ledger.workers; m != k && first; m = m->next)
            first = !ledger_is_of_kind(m, k->stage, k->model, k->kind);
        n += first;
    }
    return n;
}

static uint32_t count_of_kind(const struct world *w, const struct led_worker *k, uint32_t kind)
{
    uint32_t n = 0;

    for (const struct led_worker *m = w->ledger.workers; m; m = m->next)
        n += ledger_is_of_kind(m, k->stage, k->model, kind);
    return n;
}

/* Its kind follows the jobs that it rests from. If that would be a kind too many, it rests from all jobs, and tries
 * again. */
static void change_kind(struct world *w, struct led_worker *k)
{
    uint32_t kind = 0, room = w->limits.max_pools + (count_of_kind(w, k, k->kind) == 1);

    for (uint32_t i = 0; i < LED_JOBS; i++)
        kind |= (uint32_t)k->unseen[i].rests << i;
    k->change_at = 0;
    if (count_of_kind(w, k, kind) > 0 || ledger_count_kinds(w) < room) {
        k->kind = kind;
        return;
    }
    ledger_rest(w, k, FIRST_REST_MS);
    k->change_at = k->rest_until;
}

void ledger_unseen(struct world *w, struct led_lease *l)
{
    struct sim_job *j = l->subunit->job;
    struct led_unseen *u = &l->worker->unseen[j->index];

    if (j->nodes[l->node].needs) { /* it reads no pictures */
        ledger_hands_back(w, l);
        return;
    }
    w->ledger.sum.returns++;
    j->led.nodes[l->node].returns++;
    ledger_lease_close(w, l);
    if (!u->rests) { /* otherwise it held several units of the job */
        u->rest_ms = u->rest_ms == 0 ? FIRST_REST_MS : 2 * u->rest_ms;
        u->rest_ms = u->rest_ms < LONGEST_REST_MS ? u->rest_ms : LONGEST_REST_MS;
        u->until = w->ledger.now + u->rest_ms;
        u->rests = true;
        change_kind(w, l->worker);
    }
    ledger_again(w, l->subunit);
}

void ledger_saw(struct world *w, const struct led_lease *l)
{
    const struct sim_job *j = l->subunit->job;
    struct led_unseen *u = &l->worker->unseen[j->index];

    if (j->nodes[l->node].needs || u->rest_ms == 0)
        return;
    *u = (struct led_unseen){0};
    change_kind(w, l->worker);
}

/* INT64_MAX: never. */
static int64_t looks_again_at(const struct led_worker *k)
{
    int64_t at = k->change_at ? k->change_at : INT64_MAX;

    for (uint32_t i = 0; i < LED_JOBS; i++)
        at = k->unseen[i].rests && k->unseen[i].until < at ? k->unseen[i].until : at;
    return at;
}

static void look_again(struct world *w, struct led_worker *k)
{
    for (uint32_t i = 0; i < w->n_jobs; i++) {
        struct led_unseen *u = &k->unseen[i];

        if (!u->rests || u->until > w->ledger.now)
            continue;
        u->rests = false;
        if (!w->jobs[i].open)
            *u = (struct led_unseen){0};
    }
    change_kind(w, k);
}

void ledger_looks_again(struct world *w)
{
    for (;;) {
        struct led_worker *first = NULL;

        for (struct led_worker *k = w->ledger.workers; k; k = k->next) {
            if (looks_again_at(k) > w->ledger.now)
                continue;
            /* there may be room for one more kind only, and then the core may take any of them */
            w->ledger.vague |= first && looks_again_at(k) == looks_again_at(first) && w->limits.max_pools < 64;
            first = !first || looks_again_at(k) < looks_again_at(first) ? k : first;
        }
        if (!first)
            return;
        look_again(w, first);
    }
}
