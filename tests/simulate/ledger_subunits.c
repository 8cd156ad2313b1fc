/* The ledger's subunits and leases: effects of results, failures and losses. */
#include "tests/simulate/world.h"

#include <string.h>

enum { PIECES = 8 };

static bool bit(const uint64_t *mask, uint32_t i)
{
    return mask[i / 64] >> (i % 64) & 1;
}

static uint32_t count_bits(const uint64_t *mask)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < LED_WORDS; i++)
        n += (uint32_t)__builtin_popcountll(mask[i]);
    return n;
}

static struct sim_unit *unit_of(const struct led_subunit *p)
{
    return &p->job->units[p->unit];
}

static bool is_wanted(const struct led_unit *u, uint32_t item)
{
    return !u->row.is_again || bit(u->row.again, item);
}

/* -- leases -- */

struct led_lease *ledger_lease(struct world *w, uint64_t id)
{
    for (struct led_lease *l = w->ledger.leases; l; l = l->next)
        if (l->id == id)
            return l;
    return NULL;
}

void ledger_lease_close(struct world *w, struct led_lease *l)
{
    struct led_lease **at = &w->ledger.leases;

    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    l->worker->n_leases--;
    l->worker->held_items -= l->n_items;
    l->worker->held_bytes -= l->bytes;
    l->subunit->leases[l->node] = NULL;
    l->subunit->state[l->node] = LED_NONE;
}

static void close_all(struct world *w, struct led_subunit *p)
{
    for (uint32_t k = 0; k < p->job->n_nodes; k++)
        if (p->leases[k])
            ledger_lease_close(w, p->leases[k]);
}

/* -- subunits -- */

void ledger_set_reserved(struct world *w, struct led_subunit *p, bool reserved)
{
    uint64_t bytes = core_graph_peak_bytes(p->job->nodes, p->job->n_nodes) * p->n_wanted + unit_of(p)->picture_bytes;
    uint64_t rows = (uint64_t)ROW_BYTES * p->job->n_nodes * p->n_wanted;

    if (p->reserved == reserved)
        return;
    p->reserved = reserved;
    w->ledger.n_reserved += reserved ? 1 : -1u;
    w->ledger.reserved_bytes += reserved ? bytes : -bytes;
    w->ledger.reserved_rows += reserved ? rows : -rows;
}

static void revive(struct led_subunit *p)
{
    const struct led_unit *u = &unit_of(p)->led;

    memset(p->alive, 0, sizeof(p->alive));
    for (uint32_t i = 0; i < p->count; i++)
        if (is_wanted(u, p->first + i))
            p->alive[i / 64] |= (uint64_t)1 << (i % 64);
    p->n_wanted = count_bits(p->alive);
}

/* Cut to the first and last wanted item; NULL: none is wanted. */
static struct led_subunit *subunit_new(struct world *w, struct sim_job *j, uint32_t unit, uint32_t first, uint32_t end)
{
    const struct led_unit *u = &j->units[unit].led;
    struct led_subunit *p;

    while (first < end && !is_wanted(u, first))
        first++;
    while (first < end && !is_wanted(u, end - 1))
        end--;
    if (first == end)
        return NULL;
    p = world_alloc(w, sizeof(*p));
    *p = (struct led_subunit){.job = j, .unit = unit, .first = first, .count = end - first};
    revive(p);
    return p;
}

static uint32_t limit(const struct led_subunit *p)
{
    if (p->count == 1)
        return MAX_ATTEMPTS;
    return p->split ? 1 : 2;
}

bool ledger_is_suspect(const struct led_subunit *p)
{
    return p->split || p->failures > 0 || p->failed_before;
}

bool ledger_gives_up(const struct led_subunit *p)
{
    return p->failures + 1 >= limit(p);
}

bool ledger_is_ready(const struct led_subunit *p, uint32_t node)
{
    if (p->finished || p->state[node] != LED_NONE)
        return false;
    for (uint32_t k = 0; k < node; k++)
        if ((p->job->nodes[node].needs >> k & 1) && p->state[k] != LED_DONE)
            return false;
    return true;
}

bool ledger_is_through(const struct led_unit *u)
{
    for (const struct led_subunit *p = u->subunits; p; p = p->next)
        if (!p->finished)
            return false;
    return u->subunits != NULL;
}

void ledger_restart(struct world *w, struct led_subunit *p)
{
    close_all(w, p);
    memset(p->state, 0, sizeof(p->state));
    revive(p);
    ledger_set_reserved(w, p, false);
}

void ledger_again(struct world *w, struct led_subunit *p)
{
    for (uint32_t k = 0; k < p->job->n_nodes; k++)
        if (p->state[k] != LED_NONE)
            return;
    ledger_restart(w, p);
}

static void finish(struct world *w, struct led_subunit *p)
{
    close_all(w, p);
    ledger_set_reserved(w, p, false);
    p->finished = true;
}

/* Items count when their whole unit is finished. */
static void count_unit(const struct led_subunit *last)
{
    const struct led_unit *u = &unit_of(last)->led;

    if (u->row.is_again || !ledger_is_through(u))
        return;
    for (const struct led_subunit *p = u->subunits; p; p = p->next) {
        p->job->led.n_finished += p->n_wanted;
        p->job->led.n_failed += p->n_wanted - count_bits(p->alive);
    }
}

/* Into pieces whose numbers of wanted items differ by one at most. */
static void split(struct world *w, struct led_subunit *p)
{
    uint32_t n = p->n_wanted < PIECES ? p->n_wanted : PIECES, from = 0, item = p->first;
    struct led_unit *u = &unit_of(p)->led;
    struct led_subunit **at = &u->subunits;

    while (*at != p)
        at = &(*at)->next;
    for (uint32_t k = 1; k <= n; k++) {
        uint32_t seen = from, first = item;

        from = k * p->n_wanted / n;
        for (; seen < from; item++)
            seen += is_wanted(u, item);
        *at = subunit_new(w, p->job, p->unit, first, item);
        (*at)->split = true;
        (*at)->failed_before = p->failed_before;
        at = &(*at)->next;
    }
    *at = p->next;
    w->ledger.sum.splits++;
}

void ledger_blame(struct world *w, struct led_subunit *p, uint32_t node, uint32_t attempt)
{
    if (attempt != p->failures) {
        ledger_again(w, p);
        return;
    }
    p->failures++;
    unit_of(p)->led.attempts++;
    if (p->failures >= limit(p) && p->count == 1 && ledger_needs_another(w, p, node))
        p->failures--;
    if (p->failures < limit(p)) {
        ledger_again(w, p);
        return;
    }
    memset(p->state, 0, sizeof(p->state));
    finish(w, p);
    if (p->count > 1) {
        split(w, p);
        return;
    }
    p->quarantined = true;
    memset(p->alive, 0, sizeof(p->alive));
    count_unit(p);
}

void ledger_returned(struct world *w, struct led_subunit *p, uint32_t node, uint32_t attempt)
{
    if (++p->unblamed > w->limits.max_unblamed)
        ledger_blame(w, p, node, attempt);
    else
        ledger_again(w, p);
}

void ledger_result(struct world *w, struct led_subunit *p, uint32_t node, const uint64_t *row_ok)
{
    uint32_t row = 0, n_done = 0;
    const uint64_t in[LED_WORDS] = {p->leases[node]->rows[0], p->leases[node]->rows[1]};

    ledger_lease_close(w, p->leases[node]);
    p->state[node] = LED_DONE;
    for (uint32_t i = 0; i < p->count; i++)
        if (bit(in, i) && !bit(row_ok, row++))
            p->alive[i / 64] &= ~((uint64_t)1 << (i % 64));
    for (uint32_t k = 0; k < p->job->n_nodes; k++)
        n_done += p->state[k] == LED_DONE;
    if (n_done < p->job->n_nodes && count_bits(p->alive) > 0)
        return;
    finish(w, p);
    count_unit(p);
}

/* -- units -- */

void ledger_forget_unit(struct world *w, struct sim_job *j, uint32_t unit)
{
    struct led_unit *u = &j->units[unit].led;

    for (struct led_subunit *p = u->subunits; p; p = p->next)
        finish(w, p);
    *u = (struct led_unit){0};
}

void ledger_load(struct world *w, struct sim_job *j, const struct core_unit_row *row)
{
    struct led_unit *u = &j->units[row->unit].led;
    struct led_subunit **at = &u->subunits;

    if (u->in_memory)
        return;
    *u = (struct led_unit){.in_memory = true, .attempts = row->attempts, .row = *row};
    j->units[row->unit].attempts_asked = row->attempts; /* as the core was told */
    for (uint32_t first = 0, next; first < row->n_items; first = next) {
        uint32_t failures;

        for (next = first + 1; next < row->n_items && row->subunits[next] == 0;)
            next++;
        *at = subunit_new(w, j, row->unit, first, next);
        if (!*at)
            continue;
        (*at)->split = next - first < row->n_items;
        failures = row->attempts;
        if ((*at)->split)
            failures = row->subunits[first] ? row->subunits[first] - 1u : 0;
        (*at)->failures = failures < limit(*at) ? failures : limit(*at) - 1;
        at = &(*at)->next;
    }
}

void ledger_describe_subunits(const struct led_unit *u, uint32_t n_items, uint8_t *ret)
{
    memset(ret, 0, n_items);
    for (const struct led_subunit *p = u->subunits; p; p = p->next)
        ret[p->first] = (uint8_t)(1 + p->failures);
}
