/* caption_import.c - opens the job and has its pictures sent, to new brokers too if one dies. */
#include "client/caption_private.h"

#include "base/clock.h"
#include "client/store_check.h"
#include "console/cli.h"
#include "local/spawn.h"
#include "store/folder.h"

#include <errno.h>
#include <inttypes.h>

enum {
    CONNECT_MS = 200,      /* between checks of signals and children */
    BUSY_STORE_MS = 10000, /* for the broker of a killed run to commit and end */
};

/* The broker has accepted the job. */
static void begin(void *arg)
{
    struct run *r = arg;
    const struct msg_job_opened *opened = &r->job.opened;
    const uint64_t n_done = job_view_begin(&r->view, &r->terminal, opened);

    if (n_done < opened->n_items)
        terminal_note(&r->terminal, "%s: continuing, %" PRIu64 " of %" PRIu64 " items are done", r->o->store, n_done,
                      opened->n_items);
    if (opened->n_items && r->o->job.unit_items)
        terminal_note(&r->terminal, "--unit is for new stores: %s keeps its unit size", r->o->store);
}

/* Start workers as soon as there is work for them. */
static int tick(void *arg, struct err *err)
{
    struct run *r = arg;
    int rc = 0;

    if (r->job.compared.n_new + r->job.compared.n_retried > 0)
        rc = daemons_start_workers(&r->daemons, err);
    if (rc == 0)
        rc = caption_pump(r, 0, err);
    if (rc < 0 || r->signal_number)
        return rc < 0 ? rc : -EINTR;
    return r->job.session ? 0 : -ECONNRESET;
}

void caption_import_init(struct run *r)
{
    r->import = (struct import){.o = &r->o->job,
                                .store = r->o->store,
                                .how = &r->o->again,
                                .job = &r->job,
                                .terminal = &r->terminal,
                                .begin = begin,
                                .tick = tick,
                                .arg = r,
                                .error_exit = CLI_EXIT_ERROR};
}

int caption_establish_once(struct run *r, struct err *err)
{
    const struct msg_recipe *stored;
    int rc = job_open(&r->job, CONNECT_MS, &stored, err);

    if (stored && store_advice(stored, rc == -ENODEV, r->o->job.plan, &r->advice) < 0)
        return -ENOMEM;
    return rc < 0 ? rc : import_send(&r->import, err);
}

static void tell_if_blocked(struct run *r)
{
    struct err ignored;

    if (!r->job.session || job_query(&r->job, &r->view.now, &ignored) < 0 || r->view.now.state != MSG_JOB_BLOCKED)
        return;
    terminal_note(&r->terminal, "waiting: %s", r->view.now.text);
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
    if (rc != -EBUSY || r->import.begun || !is_left_over(r->o->store))
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
        int rc = caption_establish_once(r, err);

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
