#include "client/caption_private.h"

#include "console/answer.h"
#include "console/cli.h"
#include "job/passed_over.h"
#include "client/plan_show.h"
#include "client/source_notes.h"
#include "client/store_check.h"
#include "store/find.h"
#include "store/folder.h"
#include "store/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>

static int dry_run_json(const struct caption_options *o, const struct feed *f, const struct msg_compared *compared)
{
    const struct feed_counts *c = feed_counts(f);
    json_t *all = plan_json(o->job.plan, o->placement);
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

/* Walk over the sources and compare them with the store, if there is one. */
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

/* The store, NULL where it would be made. One that the run would refuse is refused. */
static int open_store(struct run *r, struct reader **ret, struct err *err)
{
    const struct plan *p = r->o->job.plan;
    enum msg_reason reason;
    bool unfinished = false;
    struct stat st;
    int rc = 0;

    if (stat(r->o->store, &st) < 0)
        return 0;
    if (S_ISDIR(st.st_mode))
        rc = folder_check_unfinished(r->o->store, &unfinished, err);
    if (rc < 0 || unfinished)
        return rc;
    rc = reader_open_to_go_on(r->o->store, r->o->check, ret, err);
    if (rc < 0)
        return rc;
    reason = stored_job_differs(reader_meta(*ret), &p->recipe, p->n_nodes, p->nodes, r->o->store, err);
    if (reason == 0)
        return 0;
    rc = store_advice(&reader_meta(*ret)->recipe, reason == MSG_REASON_MODEL, p, &r->advice);
    return rc < 0 ? rc : -EINVAL;
}

static int find_in_store(void *arg, struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n,
                         struct err *err)
{
    return find_items(arg, keys, n_keys, ret, ret_n, err);
}

static int open_feed(struct run *r, struct reader *store, struct err *err)
{
    struct origins_known known = {.find_items = find_in_store, .arg = store};
    int rc = store ? reader_sources(store, &known.rows, &known.n_rows, err) : 0;

    return rc < 0 ? rc : import_open_feed(&r->import, store ? &known : NULL, err);
}

/* The pictures, held against the store where there is one. */
static int compare_all(struct run *r, bool there, struct msg_compared *ret, struct err *err)
{
    struct compare *c = NULL;
    int rc = there ? compare_open(r->o->store, &r->o->again, &c, err) : 0;

    if (rc == 0)
        rc = walk(r->import.feed, c, ret, err);
    compare_close(c);
    return rc;
}

int dry_run(struct run *r, struct err *err)
{
    const struct caption_options *o = r->o;
    struct msg_compared compared = {0};
    struct reader *store = NULL;
    uint64_t n_pictures;
    char again[128] = "";
    bool there;
    int rc = open_store(r, &store, err);

    if (rc == 0)
        rc = open_feed(r, store, err);
    there = store != NULL;
    reader_close(store); /* a process may have it open once */
    if (rc == 0)
        rc = compare_all(r, there, &compared, err);
    if (rc < 0)
        return rc;
    if (o->json)
        return dry_run_json(o, r->import.feed, &compared);
    rc = plan_show(o->job.plan, o->placement, o->job.recipe, stdout);
    (void)fflush(stdout);
    if (rc < 0)
        return rc;
    source_notes(&r->import, &compared, o->store);
    if (compared.n_retried || compared.n_refreshed)
        (void)snprintf(again, sizeof(again),
                       ", %" PRIu64 " failed to be tried again, %" PRIu64 " changed to be done again",
                       compared.n_retried, compared.n_refreshed);
    n_pictures = feed_counts(r->import.feed)->n_walked;
    terminal_note(&r->terminal, "%" PRIu64 " picture%s, of which %" PRIu64 " new to %s%s. Nothing was done (--dry-run)",
                  n_pictures, cli_s(n_pictures), compared.n_new, o->store, again);
    return 0;
}
