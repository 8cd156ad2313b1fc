#include "client/bottleneck.h"

#include "base/dtype.h"
#include "console/cli.h"

#include <stdio.h>
#include <string.h>

static bool holds_up(const struct row_fleet_stage *s)
{
    return s->units_ready > 0 && (s->n_able == 0 || s->busy_per_mille >= BOTTLENECK_BUSY_PER_MILLE);
}

/* A stage without workers holds up more than a busy one, and a later stage more than an earlier one: what it leaves
 * undone fills the memory, and then the earlier ones wait for it. */
static bool is_worse(const struct row_fleet_stage *a, const struct row_fleet_stage *b)
{
    if ((a->n_able == 0) != (b->n_able == 0))
        return a->n_able == 0;
    return a->stage != b->stage ? a->stage > b->stage : a->units_ready > b->units_ready;
}

bool bottleneck_is(const struct row_fleet_stage *stages, size_t n, size_t i)
{
    if (!holds_up(&stages[i]))
        return false;
    for (size_t k = 0; k < n; k++)
        if (k != i && strcmp(stages[k].model, stages[i].model) == 0 && holds_up(&stages[k]) &&
            (is_worse(&stages[k], &stages[i]) || (k < i && !is_worse(&stages[i], &stages[k]))))
            return false;
    return true;
}

char *bottleneck_text(const struct row_fleet_stage *s, char ret[BOTTLENECK_TEXT_SIZE])
{
    char model[MSG_NAME_SIZE + 16] = "", workers[64];

    if (s->model[0])
        (void)snprintf(model, sizeof(model), " of %s, %s", s->model, dtype_word(s->dtype));
    if (s->n_workers == 0)
        (void)snprintf(workers, sizeof(workers), "no worker is connected");
    else if (s->n_able == 0)
        (void)snprintf(workers, sizeof(workers), "%u worker%s, none takes work now", s->n_workers, cli_s(s->n_workers));
    else
        (void)snprintf(workers, sizeof(workers), "%u worker%s busy %u %%", s->n_able, cli_s(s->n_able),
                       (s->busy_per_mille + 5) / 10);
    (void)snprintf(ret, BOTTLENECK_TEXT_SIZE, "%s%s is the bottleneck: %s, %u unit%s", stage_name(s->stage), model,
                   workers, s->units_ready, s->units_ready == 1 ? " waits" : "s wait");
    return ret;
}
