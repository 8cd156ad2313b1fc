/* fleet_view.h - what a broker has connected and open, as a page of text and as JSON.
 *
 * Who may call: anyone. Units: columns and lines; 0 columns: wide lines that are not cut; 0 lines: all rows.
 * Memory: the caller's. Errors: negative errno: no memory. */
#ifndef BLIPLINE_CLIENT_FLEET_VIEW_H
#define BLIPLINE_CLIENT_FLEET_VIEW_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/client_fleet.h"

struct json_t;

/* Append the page. `endpoint`: of the broker. `note`: NULL, or why there are no rows. Workers are sorted: those that
 * take no work, with the reason, come first. */
int fleet_view_page(struct client_fleet *f, const char *endpoint, const char *note, unsigned columns, unsigned lines,
                    struct buf *ret) CHECK_RESULT;
/* NULL: no memory. */
struct json_t *fleet_view_json(const struct client_fleet *f, const char *endpoint);

/* Seconds until the job is done at its present rate; -1: unknown. */
int64_t fleet_view_eta_s(const struct row_fleet_job *j);
/* One word: job_row_state. */
const char *fleet_view_job_state(const struct row_fleet_job *j);

#endif
