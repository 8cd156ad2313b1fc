#include "client/caption_private.h"

#include "base/clock.h"
#include "console/answer.h"
#include "console/cli.h"
#include "job/feed.h"
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
    LINE_EVERY_MS = 10000, /* progress without a terminal */
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

static uint64_t n_this_run(const struct run *r)
{
    return r->now.n_done - r->n_before + r->now.n_redone - r->n_redone_before;
}

/* Say what the job waits for (disk space, a suitable worker, a stalled one), once for each reason. */
static void tell_what_it_waits_for(struct run *r)
{
    const struct msg_job_progress *p = &r->now;
    const bool waits = p->state != MSG_JOB_DONE && p->state != MSG_JOB_PAUSED && p->state != MSG_JOB_FAILED;

    if (waits && p->text[0] && strcmp(p->text, r->told) != 0)
        terminal_note(&r->terminal, "waiting: %s", p->text);
    (void)msg_text_set(r->told, sizeof(r->told), waits ? p->text : "");
}

static void show_progress(struct run *r)
{
    int64_t now_ms = clock_mono_ms();
    const struct msg_job_progress *p = &r->now;
    char text[256];

    if (!r->any_done && n_this_run(r) > 0) { /* the time to load the model must not count as slow work */
        r->any_done = true;
        progress_init(&r->progress, now_ms, p->n_done - p->n_again, p->n_items);
    }
    progress_update(&r->progress, now_ms, p->n_done - p->n_again, p->n_failed, p->n_items);
    if (r->terminal.is_terminal) {
        progress_bar(&r->progress, now_ms, terminal_columns(&r->terminal), text, sizeof(text));
        terminal_status(&r->terminal, text);
    } else if (now_ms - r->line_ms >= LINE_EVERY_MS) {
        progress_line(&r->progress, now_ms, text, sizeof(text));
        terminal_note(&r->terminal, "%s", text);
        r->line_ms = now_ms;
    }
    if ((p->state == MSG_JOB_BLOCKED) != (r->blocked_ms != 0)) {
        r->waited_ms += r->blocked_ms ? now_ms - r->blocked_ms : 0;
        r->blocked_ms = r->blocked_ms ? 0 : now_ms;
    }
    tell_what_it_waits_for(r);
}

static void look_after_workers(struct run *r)
{
    uint64_t isolations[STAGE_LLM + 1] = {0};

    for (uint32_t i = 0; i < r->now.n_stages; i++)
        isolations[r->now.stages[i].stage] += r->now.stages[i].isolations;
    for (enum stage s = STAGE_ENCODE; s <= STAGE_LLM; s++)
        daemons_forgive(&r->daemons, s, isolations[s]);
    daemons_kill_hung(&r->daemons, r->now.hung, r->now.n_hung);
}

/* Query the progress if a broker is there. A restarted broker gets the job again. */
static int ask(struct run *r, struct err *err)
{
    int rc = 0;

    if (!r->job.session) {
        rc = caption_establish_once(r, true, err);
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
        rc = job_query(&r->job, &r->now, err);
    if (rc == 0) {
        show_progress(r);
        look_after_workers(r);
    }
    if (rc < 0 && rc != -ETIMEDOUT && rc != -EINTR)
        job_disconnect(&r->job);
    return job_is_passing(rc) || rc == -EINTR ? 0 : rc;
}

/* 0: done, paused or stopped on request (see r->now.state). */
static int watch(struct run *r, struct err *err)
{
    bool told = false;

    r->line_ms = clock_mono_ms();
    for (;;) {
        int rc = ask(r, err);

        if (rc == 0 && r->now.state == MSG_JOB_FAILED)
            rc = err_set(err, -EIO, "the job failed: %s", r->now.text);
        if (rc < 0 || r->now.state == MSG_JOB_DONE || r->now.state == MSG_JOB_PAUSED)
            return rc;
        if (r->stop_sent && (r->now.state == MSG_JOB_STOPPED || r->now.state == MSG_JOB_BLOCKED))
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
    uint32_t n = r->feed ? feed_peeked(r->feed) : FEED_PEEK_ITEMS; /* a store that is there keeps its unit size */

    *open = (struct msg_job_open){.recipe = o->plan->recipe,
                                  .n_nodes = o->plan->n_nodes,
                                  .unit_items = o->unit_items,
                                  .create = true,
                                  .check = o->check};
    open->max_failures = o->max_failures;
    open->max_failed_per_mille = o->max_failed_per_mille;
    memcpy(open->nodes, o->plan->nodes, sizeof(o->plan->nodes));
    if (!getcwd(cwd, sizeof(cwd)))
        return err_set(err, -errno, "cannot read the working folder: %s", strerror(errno));
    if ((size_t)snprintf(open->path, sizeof(open->path), "%s%s%s", o->store[0] == '/' ? "" : cwd,
                         o->store[0] == '/' ? "" : "/", o->store) >= sizeof(open->path))
        return err_set(err, -ENAMETOOLONG, "-o %s: the path is too long", o->store);
    for (int i = 0; i < o->n_sources; i++) {
        size_t used = strlen(open->source);

        (void)snprintf(open->source + used, sizeof(open->source) - used, "%s%s", i ? " " : "", o->sources[i]);
    }
    /* for few pictures: units small enough that the stages run in parallel */
    if (open->unit_items == 0 && n < FEED_PEEK_ITEMS)
        open->unit_items = n > 8 ? (n + 7) / 8 : 1;
    return 0;
}

static int prepare(struct run *r, struct err *err)
{
    const struct caption_options *o = r->o;
    struct daemons_conf conf = {.placement = o->placement,
                                .recipe = &o->plan->recipe,
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
    job_init(&r->job, r->endpoint, &open);
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
    terminal_note(&r->terminal, "paused: %s", r->now.text);
    terminal_note(
        &r->terminal,
        "nothing is lost, and these failures are not stored%s. Find the cause (a missing folder, the disk, the "
        "network), then run the same command again to continue",
        r->o->max_failed_per_mille ? ", except the oldest (--retry tries those again)" : "");
    terminal_note(&r->terminal, "if the pictures cannot be repaired: --max-failures N allows more failures in a row, "
                                "--max-failures 100%% any number of them");
}

static int conclude(struct run *r, int rc, const struct err *err)
{
    struct report report = {.store = r->o->store,
                            .progress = &r->now,
                            .n_before = r->n_before,
                            .elapsed_ms = r->end_ms - r->start_ms,
                            .waited_ms = r->waited_ms + (r->blocked_ms ? r->end_ms - r->blocked_ms : 0),
                            .done = rc == 0 && r->now.state == MSG_JOB_DONE,
                            .recipe = &r->o->plan->recipe};

    report.n_redone_before = r->n_redone_before;
    report.paused = rc == 0 && r->now.state == MSG_JOB_PAUSED;
    if (r->feed)
        passed_over_of_walk(&feed_counts(r->feed)->skipped, &report.passed_over);
    terminal_status(&r->terminal, "");
    if (rc < 0 && rc != -EINTR) {
        say_error(r, rc, err);
        return r->error_exit;
    }
    if (r->feed)
        source_notes(r->feed, &r->job.compared, r->o, r->columns, &r->terminal);
    if (r->job_begun && r->now.job)
        report_words(&report, &r->terminal);
    if (r->o->json && r->job_begun && r->now.job)
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
    return r->now.n_failed || r->now.n_again || passed_over_is_incomplete(&report.passed_over) ? CLI_EXIT_FAILED_ITEMS
                                                                                               : CLI_EXIT_OK;
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
    return there ? 0 : caption_open_feed(r, NULL, err);
}

int caption_run(const struct caption_options *o)
{
    struct run r = {.o = o, .signal_fd = -1, .rundir = {.lock_fd = -1}, .error_exit = CLI_EXIT_ERROR};
    struct err err = {""};
    int rc;

    buf_init(&r.advice, 0);
    terminal_init(&r.terminal, STDERR_FILENO);
    rc = look_first(&r, &err);
    if (rc < 0 || o->dry_run) {
        feed_close(r.feed);
        if (rc < 0)
            say_error(&r, rc, &err);
        buf_release(&r.advice);
        return rc < 0 ? r.error_exit : CLI_EXIT_OK;
    }
    rc = run_job(&r, &err);
    r.end_ms = clock_mono_ms();
    if (r.signal_fd >= 0)
        end_daemons(&r);
    rc = conclude(&r, rc, &err);
    feed_close(r.feed);
    job_release(&r.job);
    wire_exit();
    if (r.daemons.gave_up)
        rundir_keep(&r.rundir);
    rundir_remove(&r.rundir);
    return rc;
}
