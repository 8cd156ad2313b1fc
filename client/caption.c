#include "client/caption_private.h"

#include "base/clock.h"
#include "console/answer.h"
#include "console/cli.h"
#include "base/interrupt.h"
#include "job/passed_over.h"
#include "client/report.h"
#include "client/source_notes.h"
#include "client/store_check.h"
#include "wire/context.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    QUERY_EVERY_MS = 200,
    END_WITHIN_MS = 20000, /* for the daemons, once asked */
};

int caption_pump(struct run *r, int64_t wait_ms, struct err *err)
{
    struct pollfd p = {.fd = r->signal_fd, .events = POLLIN};
    struct interrupt in;
    int64_t next_ms;
    int rc;

    if (wait_ms > 0)
        (void)poll(&p, 1, (int)wait_ms);
    interrupt_read(r->signal_fd, &in);
    r->n_signals += in.n_signals;
    if (in.signal_number && !r->signal_number)
        r->signal_number = in.signal_number;
    rc = daemons_reap(&r->daemons, clock_mono_ms(), err);
    if (rc == 0)
        rc = daemons_tick(&r->daemons, clock_mono_ms(), &next_ms, err);
    if (r->broker_starts != daemons_broker_starts(&r->daemons))
        job_disconnect(&r->job); /* the broker has gone */
    r->broker_starts = daemons_broker_starts(&r->daemons);
    return rc;
}

/* -- watching -- */

static void look_after_workers(struct run *r)
{
    uint64_t isolations[STAGE_LLM + 1] = {0};

    for (uint32_t i = 0; i < r->view.now.n_stages; i++)
        isolations[r->view.now.stages[i].stage] += r->view.now.stages[i].isolations;
    for (enum stage s = STAGE_ENCODE; s <= STAGE_LLM; s++)
        daemons_forgive(&r->daemons, s, isolations[s]);
    daemons_kill_hung(&r->daemons, r->view.now.hung, r->view.now.n_hung);
}

/* Query the progress if a broker is there. A restarted broker gets the job again. */
static int ask(struct run *r, struct err *err)
{
    int rc = 0;

    if (!r->job.session) {
        rc = caption_establish_once(r, err);
        r->stop_sent = false;
        if (rc < 0)
            job_disconnect(&r->job);
    }
    if (rc == 0 && r->signal_number && !r->stop_sent) {
        rc = job_stop(&r->job, err);
        r->stop_sent = rc == 0;
        daemons_dismiss_encoders(&r->daemons); /* their windows may hold minutes of work */
    }
    if (rc == 0)
        rc = job_query(&r->job, &r->view.now, err);
    if (rc == 0) {
        job_view_show(&r->view);
        look_after_workers(r);
    }
    if (rc < 0 && rc != -ETIMEDOUT && rc != -EINTR)
        job_disconnect(&r->job);
    return job_is_passing(rc) || rc == -EINTR ? 0 : rc;
}

/* 0: done, paused or stopped on request (see r->view.now.state). */
static int watch(struct run *r, struct err *err)
{
    bool told = false;

    job_view_watch(&r->view);
    for (;;) {
        int rc = ask(r, err);

        if (rc == 0 && r->view.now.state == MSG_JOB_FAILED)
            rc = err_set(err, -EIO, "the job failed: %s", r->view.now.text);
        if (rc < 0 || r->view.now.state == MSG_JOB_DONE || r->view.now.state == MSG_JOB_PAUSED)
            return rc;
        if (r->stop_sent && (r->view.now.state == MSG_JOB_STOPPED || r->view.now.state == MSG_JOB_BLOCKED))
            return 0;
        if (r->signal_number && !told)
            terminal_note(&r->terminal, "stopping: work in progress is finished first (Ctrl-C again stops at once)");
        told = r->signal_number != 0;
        rc = daemons_start_workers(&r->daemons, err); /* only now: a finished store needs none */
        if (rc == 0)
            rc = caption_pump(r, QUERY_EVERY_MS, err);
        if (rc < 0)
            return rc;
        if (r->n_signals > 1)
            return -EINTR;
    }
}

/* -- beginning and end -- */

/* Ask the daemons to end and wait for them, unless the user has pressed Ctrl-C again. */
static void end_daemons(struct run *r)
{
    int64_t until_ms = clock_mono_ms() + END_WITHIN_MS;
    int n_signals = r->n_signals;
    bool asked = false;
    struct err ignored;

    daemons_expect_end(&r->daemons);
    if (r->job.session && n_signals < 2)
        asked = job_shutdown(&r->job, &ignored) == 0;
    job_disconnect(&r->job);
    daemons_signal(&r->daemons, !asked, SIGTERM);
    while (n_signals < 2 && r->n_signals == n_signals && daemons_running(&r->daemons) > 0 &&
           clock_mono_ms() < until_ms) {
        if (caption_pump(r, 100, &ignored) < 0)
            break;
    }
    daemons_release(&r->daemons);
}

static int fill_open(struct run *r, struct msg_job_open *open, struct err *err)
{
    const struct caption_options *o = r->o;
    char cwd[MSG_PATH_SIZE];

    /* a store that is there keeps its unit size */
    job_open_fill(&o->job, r->import.feed ? feed_peeked(r->import.feed) : FEED_PEEK_ITEMS, open);
    open->create = true;
    open->check = o->check;
    if (!getcwd(cwd, sizeof(cwd)))
        return err_set(err, -errno, "cannot read the working folder: %s", strerror(errno));
    if ((size_t)snprintf(open->path, sizeof(open->path), "%s%s%s", o->store[0] == '/' ? "" : cwd,
                         o->store[0] == '/' ? "" : "/", o->store) >= sizeof(open->path))
        return err_set(err, -ENAMETOOLONG, "-o %s: the path is too long", o->store);
    return 0;
}

static int prepare(struct run *r, struct err *err)
{
    const struct caption_options *o = r->o;
    struct daemons_conf conf = {.placement = o->placement,
                                .recipe = &o->job.plan->recipe,
                                .max_pixels = o->max_pixels,
                                .max_file_bytes = o->max_file_bytes,
                                .verbose = o->verbose};
    struct msg_job_open open;
    int rc = interrupt_open(&r->signal_fd, err);

    if (rc == 0)
        rc = fill_open(r, &open, err);
    if (rc == 0)
        rc = rundir_create(&r->rundir, err);
    if (rc < 0)
        return rc;
    (void)snprintf(r->endpoint, sizeof(r->endpoint), "ipc://%s/broker", r->rundir.path);
    job_init(&r->job, r->endpoint, NULL, &open);
    rc = daemons_init(&r->daemons, &r->rundir, &conf, &r->terminal, err);
    if (rc == 0)
        rc = wire_init(1, err);
    if (rc == 0)
        rc = daemons_start_broker(&r->daemons, err);
    r->broker_starts = daemons_broker_starts(&r->daemons);
    return rc;
}

static void say_error(struct run *r, int rc, const struct err *err)
{
    const char *text = err->text[0] ? err->text : strerror(-rc);
    char *all = NULL;

    if (r->advice.size_bytes && asprintf(&all, "%s%s", text, (const char *)r->advice.data) >= 0)
        text = all;
    terminal_note(&r->terminal, "%s", text);
    answer_error(text);
    free(all);
}

static void tell_of_pause(struct run *r)
{
    terminal_note(&r->terminal, "paused: %s", r->view.now.text);
    terminal_note(
        &r->terminal,
        "nothing is lost, and these failures are not stored%s. Find the cause (a missing folder, the disk, the "
        "network), then run the same command again to continue",
        r->o->job.max_failed_per_mille ? ", except the oldest (--retry tries those again)" : "");
    terminal_note(&r->terminal, "if the pictures cannot be repaired: --max-failures N allows more failures in a row, "
                                "--max-failures 100%% any number of them");
}

static int conclude(struct run *r, int rc, const struct err *err)
{
    struct report report = {.store = r->o->store,
                            .command = "caption",
                            .done = rc == 0 && r->view.now.state == MSG_JOB_DONE,
                            .paused = rc == 0 && r->view.now.state == MSG_JOB_PAUSED ? r->view.now.text : NULL,
                            .recipe = &r->o->job.plan->recipe};

    job_view_report(&r->view, r->end_ms, &report);
    if (r->import.feed)
        passed_over_of_walk(&feed_counts(r->import.feed)->skipped, &report.passed_over);
    terminal_status(&r->terminal, "");
    if (rc < 0 && rc != -EINTR) {
        say_error(r, rc, err);
        return r->import.error_exit;
    }
    if (r->import.feed)
        source_notes(&r->import, &r->job.compared, r->o->store);
    if (r->import.begun && r->view.now.job)
        report_words(&report, &r->terminal);
    if (r->o->json && r->import.begun && r->view.now.job)
        report_json(&report);
    else
        answer_error("stopped before the job had begun");
    if (report.paused && !r->signal_number) {
        tell_of_pause(r);
        return CLI_EXIT_ERROR;
    }
    if (!report.done) {
        terminal_note(&r->terminal, "stopped; run the same command again to continue");
        return 128 + r->signal_number;
    }
    return report_exit_code(&report);
}

static int run_job(struct run *r, struct err *err)
{
    int rc = prepare(r, err);

    if (rc == 0)
        rc = caption_establish(r, err);
    if (rc == 0)
        source_notes_again(&r->job.compared, r->o, &r->terminal);
    if (rc == 0)
        rc = watch(r, err);
    return rc;
}

/* What can be known without a broker. The sources of a new store are looked at before anything is made or started;
 * those of one that is there, when the broker has said what it has. */
static int look_first(struct run *r, struct err *err)
{
    const struct caption_options *o = r->o;
    bool there;
    int rc = store_check(o->store, &there, err);

    if (rc < 0)
        return rc;
    if (o->dry_run)
        return dry_run(r, err);
    return there ? 0 : import_open_feed(&r->import, NULL, err);
}

int caption_run(const struct caption_options *o)
{
    struct run r = {.o = o, .signal_fd = -1, .rundir = {.lock_fd = -1}};
    struct err err = {""};
    int rc;

    caption_import_init(&r);
    buf_init(&r.advice, 0);
    terminal_init(&r.terminal, STDERR_FILENO);
    rc = look_first(&r, &err);
    if (rc < 0 || o->dry_run) {
        import_release(&r.import);
        if (rc < 0)
            say_error(&r, rc, &err);
        buf_release(&r.advice);
        return rc < 0 ? r.import.error_exit : CLI_EXIT_OK;
    }
    rc = run_job(&r, &err);
    r.end_ms = clock_mono_ms();
    if (r.signal_fd >= 0)
        end_daemons(&r);
    rc = conclude(&r, rc, &err);
    import_release(&r.import);
    job_release(&r.job);
    wire_exit();
    if (r.daemons.gave_up)
        rundir_keep(&r.rundir);
    rundir_remove(&r.rundir);
    return rc;
}
