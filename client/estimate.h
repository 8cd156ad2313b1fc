/* estimate.h - how long a broker's workers will take for a job, by what they have done so far.
 *
 * Who may call: anyone. Units: seconds, items. Memory: borrows the plan and the rows. Errors: none. */
#ifndef BLIPLINE_CLIENT_ESTIMATE_H
#define BLIPLINE_CLIENT_ESTIMATE_H

#include "proto/row_fleet.h"
#include "recipe/plan.h"

#include <stddef.h>
#include <stdint.h>

/* The workers that do one or several nodes of the plan. */
struct estimate_stage {
    const struct msg_node *node;         /* the first of them */
    const struct row_fleet_stage *fleet; /* NULL: no worker that could do it is connected */
    double items_per_s;                  /* of the job; 0: unknown, since its workers have done nothing yet */
};

struct estimate {
    size_t n;
    struct estimate_stage stages[MSG_MAX_NODES];
    const struct estimate_stage *slowest; /* NULL: of some stage nothing is known */
    double seconds;                       /* if no other job takes time of the workers; with `slowest` only */
};

void estimate_make(const struct plan *p, uint64_t n_items, const struct row_fleet_stage *rows, size_t n_rows,
                   struct estimate *ret);

#endif
