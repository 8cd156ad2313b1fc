/* client_fleet.h - what a broker has connected and open, asked for by a client: FLEET_QUERY.
 *
 * Who may call, units, errors: as client_session.h. Memory: a zeroed client_fleet is empty; free it with
 * client_fleet_release. */
#ifndef BLIPLINE_WIRE_CLIENT_FLEET_H
#define BLIPLINE_WIRE_CLIENT_FLEET_H

#include "proto/row_fleet.h"
#include "wire/client_session.h"

#include <stddef.h>

struct client_fleet {
    struct msg_fleet totals;
    size_t n_stages, n_workers, n_jobs;
    struct row_fleet_stage *stages;
    struct row_fleet_worker *workers; /* by increasing number */
    struct row_fleet_job *jobs;       /* by increasing number; those that this client may see */
};

/* Ask for all rows. `ret`, which may have been filled before, is empty after an error. */
int client_session_fleet(struct client_session *s, struct client_fleet *ret, struct err *err) CHECK_RESULT;
void client_fleet_release(struct client_fleet *f);

#endif
