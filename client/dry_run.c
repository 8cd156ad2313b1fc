#include "client/dry_run.h"

#include "console/answer.h"
#include "console/cli.h"
#include "job/passed_over.h"
#include "client/plan_show.h"
#include "client/source_notes.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

static int dry_run_json(const struct caption_options *o, const struct feed *f)
{
    const struct feed_counts *c = feed_counts(f);
    json_t *all = plan_json(o->plan, o->placement);
    struct passed_over passed;

    passed_over_of_walk(&c->skipped, &passed);
    if (!all || json_object_set_new(all, "pictures", json_integer((json_int_t)c->n_walked)) < 0 ||
        json_object_set_new(all, "new", json_integer((json_int_t)c->compared.n_new)) < 0 ||
        json_object_set_new(all, "retry", json_integer((json_int_t)c->compared.n_retried)) < 0 ||
        json_object_set_new(all, "refresh", json_integer((json_int_t)c->compared.n_refreshed)) < 0 ||
        json_object_set_new(all, "passed_over", passed_over_json(&passed)) < 0) {
        json_decref(all);
        return -ENOMEM;
    }
    answer_print("dry-run", all, JSON_REAL_PRECISION(9));
    (void)fflush(stdout);
    return 0;
}

int dry_run(const struct caption_options *o, struct feed *f, const char *const *columns, bool there, struct terminal *s,
            struct err *err)
{
    char again[128] = "";
    struct feed_rows rows;
    bool more = true;
    const struct feed_counts *c = feed_counts(f);
    int rc = there ? feed_compare(f, err) : 0;

    feed_rows_init(&rows);
    while (rc == 0 && more)
        rc = feed_next(f, &rows, &more, err);
    feed_rows_release(&rows);
    if (rc < 0)
        return rc;
    if (o->json)
        return dry_run_json(o, f);
    rc = plan_show(o->plan, o->placement, o->recipe, stdout);
    (void)fflush(stdout);
    if (rc < 0)
        return rc;
    source_notes(f, o, columns, s);
    if (c->compared.n_retried || c->compared.n_refreshed)
        (void)snprintf(again, sizeof(again),
                       ", %" PRIu64 " failed to be tried again, %" PRIu64 " changed to be done again",
                       c->compared.n_retried, c->compared.n_refreshed);
    terminal_note(s, "%" PRIu64 " picture%s, of which %" PRIu64 " new to %s%s. Nothing was done (--dry-run)",
                  c->n_walked, cli_s(c->n_walked), c->compared.n_new, o->store, again);
    return 0;
}
