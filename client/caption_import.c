/* caption_import.c - opens the job and sends its pictures, to new brokers too if one dies. */
#include "client/caption_private.h"

#include "base/clock.h"
#include "client/store_check.h"
#include "console/cli.h"
#include "job/feed.h"
#include "local/spawn.h"
#include "store/folder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum {
    CONNECT_MS = 200,      /* between checks of signals and children */
    BUSY_STORE_MS = 10000, /* for the broker of a killed run to commit and end */
};

int caption_open_feed(struct run *r, const struct origins_known *known, struct err *err)
{
    const struct plan *p = r->o->plan;
    struct feed_options o = {.sources = r->o->sources,
                             .n_sources = r->o->n_sources,
                             .limit = r->o->limit,
                             .store_path = r->o->store,
                             .known = known,
                             .kept = r->o->fields,
                             .join = r->o->join};
    int rc;

    for (uint32_t i = 0; i < p->n_fields; i++) {
        r->columns[i] = p->fields[i].name;
        o.needed |= (uint32_t)p->fields[i].needed << i;
    }
    o.columns = (struct source_columns){.names = r->columns, .n = p->n_fields, .picture = r->o->image_column};

    for (int i = 0; r->feed && i < o.n_sources; i++) {
        const char *arg = feed_origins(r->feed)->args[i].arg;

        if (source_is_read_once(arg))
            return err_set(err, -EIO,
                           "the broker was restarted and %s cannot be read a second time; run the command again",
                           arg + 1);
    }
    feed_close(r->feed);
    r->feed = NULL;
    rc = feed_open(&o, &r->feed, err);
    if (rc < 0)
        r->error_exit = cli_exit_of(rc);
    else if (!known && feed_peeked(r->feed) == 0 && access(o.store_path, F_OK) < 0)
        rc = err_set(err, -ENODATA, "no pictures in %s%s (.jpg, .jpeg, .png, .webp; blipline help sources)",
                     o.sources[0], o.n_sources > 1 ? " and the other sources" : "");
    return rc;
}

/* The broker has accepted the job: start workers. */
static void begin(struct run *r)
{
    const struct msg_job_opened *opened = &r->job.opened;
    uint64_t n_left;

    r->job_begun = true;
    r->n_before = opened->n_done;
    r->n_redone_before = opened->n_redone;
    n_left = opened->n_items - opened->n_done + opened->n_again;
    r->start_ms = clock_mono_ms();
    progress_init(&r->progress, r->start_ms, opened->n_items - n_left, opened->n_items);
    if (n_left)
        terminal_note(&r->terminal, "%s: continuing, %" PRIu64 " of %" PRIu64 " items are done", r->o->store,
                      opened->n_items - n_left, opened->n_items);
    if (opened->n_items && r->o->unit_items)
        terminal_note(&r->terminal, "--unit is for new stores: %s keeps its unit size", r->o->store);
    if (opened->n_items)
        job_compare(&r->job, &r->o->again);
}

static int stream(struct run *r, struct err *err)
{
    bool more = true;
    char text[80];

    while (more) {
        int rc = job_stream(&r->job, r->feed, &more, err);

        if (rc == 0 && r->job.compared.n_new + r->job.compared.n_retried > 0)
            rc = daemons_start_workers(&r->daemons, err);
        if (rc == 0)
            rc = caption_pump(r, 0, err);
        if (rc < 0 || r->signal_number)
            return rc < 0 ? rc : -EINTR;
        if (!r->job.session)
            return -ECONNRESET;
        (void)snprintf(text, sizeof(text), "listing pictures: %" PRIu64, feed_counts(r->feed)->n_walked);
        terminal_status(&r->terminal, text);
    }
    return 0;
}

/* The broker died or did not answer during the import: keep what it has made durable, find the rest by another walk. */
static int import_again(struct run *r, struct err *err)
{
    int rc = 0;

    if (r->job.opened.n_items) {
        rc = job_seal(&r->job, err);
        r->job.sealed = false;
    }
    job_compare(&r->job, r->job.opened.n_items ? &r->o->again : NULL);
    return rc;
}

int caption_establish_once(struct run *r, bool again, struct err *err)
{
    const struct msg_recipe *stored;
    int rc = job_open(&r->job, CONNECT_MS, &stored, err);

    if (stored && store_advice(stored, rc == -ENODEV, r->o->plan, &r->advice) < 0)
        return -ENOMEM;
    if (rc == 0 && !r->job.sealed && (again || !r->feed || feed_origins(r->feed)->n_stored != r->job.known.n_rows))
        rc = caption_open_feed(r, &r->job.known, err);
    if (rc == 0 && !r->job.sealed)
        rc = job_sources(&r->job, r->feed, err);
    if (rc == 0 && !r->job_begun)
        begin(r);
    else if (rc == 0 && again && !r->job.sealed)
        rc = import_again(r, err);
    if (rc == 0 && !r->job.sealed)
        rc = stream(r, err);
    if (rc == 0 && !r->job.sealed)
        rc = job_sources(&r->job, r->feed, err);
    if (rc == 0)
        rc = job_seal(&r->job, err);
    return rc;
}

static void tell_if_blocked(struct run *r)
{
    struct err ignored;

    if (!r->job.session || job_query(&r->job, &r->now, &ignored) < 0 || r->now.state != MSG_JOB_BLOCKED)
        return;
    terminal_note(&r->terminal, "waiting: %s", r->now.text);
}

/* The store may be held by the broker of a killed run, which commits and ends, or of a running command, which does not
 * end soon. */
static bool is_left_over(const char *store)
{
    long pid = folder_owner(store), parent;

    if (pid == 0)
        return false;
    parent = spawn_parent(pid);
    return parent < 0 || !spawn_is_same_program(parent);
}

/* Another process has the store: decide whether to wait. */
static bool busy_but_not_for_long(struct run *r, int rc, const struct err *err)
{
    if (rc != -EBUSY || r->job_begun || !is_left_over(r->o->store))
        return false;
    if (!r->busy_until_ms) {
        terminal_note(&r->terminal, "%s; waiting up to %d s for it to end", err->text, BUSY_STORE_MS / 1000);
        r->busy_until_ms = clock_mono_ms() + BUSY_STORE_MS;
    }
    return clock_mono_ms() < r->busy_until_ms;
}

int caption_establish(struct run *r, struct err *err)
{
    for (;;) {
        bool again = r->job_begun;
        int rc = caption_establish_once(r, again, err);

        if (rc == -EINTR) {
            int pumped = caption_pump(r, 0, err);

            return pumped < 0 ? pumped : -EINTR;
        }
        if (!job_is_passing(rc) && !busy_but_not_for_long(r, rc, err))
            return rc;
        if (rc == -ETIMEDOUT)
            tell_if_blocked(r);
        if (job_is_passing(rc))
            job_disconnect(&r->job);
        rc = caption_pump(r, rc == -EBUSY ? 500 : 50, err);
        if (rc < 0 || r->signal_number)
            return rc < 0 ? rc : -EINTR;
    }
}
