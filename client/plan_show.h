/* plan_show.h - prints a plan for --dry-run, as text or JSON.
 *
 * Who may call: one thread. Units: in the texts. Memory: the caller frees the JSON object (json_decref).
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_CLIENT_PLAN_SHOW_H
#define BLIPLINE_CLIENT_PLAN_SHOW_H

#include "base/err.h"
#include "local/place.h"

#include <stdio.h>

struct json_t;

/* Print a recipe file that gives the same plan; comments in it describe the rest. where NULL: the workers are those of
 * a broker. */
int plan_show(const struct plan *p, const struct placement *where, const struct recipe *r, FILE *out) CHECK_RESULT;
/* {"recipe": {...}, "stages": [...], "columns": [...], "workers": [...]}; NULL: no memory. */
struct json_t *plan_json(const struct plan *p, const struct placement *where);

#endif
