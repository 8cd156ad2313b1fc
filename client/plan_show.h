/* plan_show.h - a plan for people and for programs: what --dry-run prints.
 *
 * Who may call: one thread. Units: in the texts. Memory: the JSON object is the caller's (json_decref).
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_CLIENT_PLAN_SHOW_H
#define BLIPLINE_CLIENT_PLAN_SHOW_H

#include "base/err.h"
#include "local/place.h"

#include <stdio.h>

struct json_t;

/* A recipe file, which plans the same; what is not of the recipe is said in comments. */
int plan_show(const struct plan *p, const struct placement *where, const struct recipe *r, FILE *out) CHECK_RESULT;
/* {"recipe": {...}, "stages": [...], "columns": [...], "workers": [...]}; NULL: no memory. */
struct json_t *plan_json(const struct plan *p, const struct placement *where);

#endif
