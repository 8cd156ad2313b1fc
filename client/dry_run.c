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

static int dry_run_json(const struct caption_options *o, const struct feed *f, const struct msg_compared *compared)
{
    const struct feed_counts *c = feed_counts(f);
    json_t *all = plan_json(o->plan, o->placement);
    struct passed_over passed;

    passed_over_of_walk(&c->skipped, &passed);
    if (!all || json_object_set_new(all, "pictures", json_integer((json_int_t)c->n_walked)) < 0 ||
        json_object_set_new(all, "new", json_integer((json_int_t)compared->n_new)) < 0 ||
        json_object_set_new(all, "retry", json_integer((json_int_t)compared->n_retried)) < 0 ||
        json_object_set_new(all, "refresh", json_integer((json_int_t)compared->n_refreshed)) < 0 ||
        json_object_set_new(all, "passed_over", passed_over_json(&passed)) < 0) {
        json_decref(all);
        return -ENOMEM;
    }
    answer_print("dry-run", all, JSON_REAL_PRECISION(9));
    (void)fflush(stdout);
    return 0;
}

/* Walk over the sources; held against the store where there is one. */
static int walk(struct feed *f, struct compare *c, struct msg_compared *ret, struct err *err)
{
    const struct origins *origins = feed_origins(f);
    struct compared_rows sorted = {0};
    struct buf rows;
    bool more = true;
    uint32_t n;
    int rc = 0;

    buf_init(&rows, MSG_MAX_ROW_FRAME_BYTES);
    for (uint32_t i = 0; c && rc == 0 && i < origins->n_rows; i++)
        rc = compare_source(c, i + 1, origins->rows[i].root, err);
    while (rc == 0 && more) {
        rc = feed_next(f, &rows, &n, &more, err);
        if (rc == 0 && c)
            rc = compare_rows(c, rows.data, rows.size_bytes, n, &sorted, err);
        else
            ret->n_new += n;
        buf_clear(&sorted.fresh);
        buf_clear(&sorted.again);
    }
    if (c)
        *ret = *compare_counts(c);
    buf_release(&sorted.fresh);
    buf_release(&sorted.again);
    buf_release(&rows);
    return rc;
}

int dry_run(const struct caption_options *o, struct feed *f, const char *const *columns, bool there, struct terminal *s,
            struct err *err)
{
    const struct feed_counts *c = feed_counts(f);
    struct msg_compared compared = {0};
    struct compare *compare = NULL;
    char again[128] = "";
    int rc = there ? compare_open(o->store, &o->again, &compare, err) : 0;

    if (rc == 0)
        rc = walk(f, compare, &compared, err);
    compare_close(compare);
    if (rc < 0)
        return rc;
    if (o->json)
        return dry_run_json(o, f, &compared);
    rc = plan_show(o->plan, o->placement, o->recipe, stdout);
    (void)fflush(stdout);
    if (rc < 0)
        return rc;
    source_notes(f, &compared, o, columns, s);
    if (compared.n_retried || compared.n_refreshed)
        (void)snprintf(again, sizeof(again),
                       ", %" PRIu64 " failed to be tried again, %" PRIu64 " changed to be done again",
                       compared.n_retried, compared.n_refreshed);
    terminal_note(s, "%" PRIu64 " picture%s, of which %" PRIu64 " new to %s%s. Nothing was done (--dry-run)",
                  c->n_walked, cli_s(c->n_walked), compared.n_new, o->store, again);
    return 0;
}
