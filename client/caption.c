#include "client/caption.h"

#include "base/clock.h"
#include "client/answer.h"
#include "client/cli.h"
#include "client/daemons.h"
#include "client/dry_run.h"
#include "client/feed.h"
#include "client/interrupt.h"
#include "client/job.h"
#include "client/passed_over.h"
#include "client/progress.h"
#include "client/report.h"
#include "client/rundir.h"
#include "client/screen.h"
#include "client/source_notes.h"
#include "client/spawn.h"
#include "client/store_check.h"
#include "wire/context.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    QUERY_EVERY_MS = 200,
    LINE_EVERY_MS = 10000, /* where there is no terminal */
    CONNECT_MS = 200,      /* between looks at signals and children */
    END_WITHIN_MS = 20000, /* of the daemons, once asked */
    BUSY_STORE_MS = 10000, /* a run that was killed leaves a broker that still commits what it has */
};

struct run {
    const struct caption_options *o;
    struct screen screen;
    struct rundir rundir;
    struct daemons daemons;
    const char *columns[PLAN_MAX_FIELDS];
    struct feed *feed;
    struct job job;
    char endpoint[RUNDIR_MAX + 16];
    int signal_fd;
    int signal_number; /* the user wants to stop */
    int n_signals;
    bool stop_sent, job_begun, any_done;
    unsigned broker_starts;      /* of the broker that the session talks to */
    struct msg_job_progress now; /* last answer */
    struct progress progress;
    uint64_t n_before, n_redone_before; /* records that there were, that had taken the place of others */
    int64_t start_ms, end_ms, line_ms, busy_until_ms;
    int64_t blocked_ms, waited_ms; /* since when the disk is full, 0: it is not; how long it was before */
    char told[MSG_TEXT_SIZE];      /* what was last said of a full disk */
    struct buf advice;             /* what to do about an error of -o, with NUL; or empty */
};

/* Look at signals, children and logs; wait up to wait_ms for the first two. */
static int pump(struct run *r, int64_t wait_ms, struct err *err)
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
        job_disconnect(&r->job); /* whoever we talked to is gone */
    r->broker_starts = daemons_broker_starts(&r->daemons);
    return rc;
}

/* -- opening and importing ------------------------------------------------------------------------------------------
 */

static int reopen_feed(struct run *r, struct err *err)
{
    const struct plan *p = r->o->plan;
    struct feed_options o = {.sources = r->o->sources,
                             .n_sources = r->o->n_sources,
                             .limit = r->o->limit,
                             .store_path = r->o->store,
                             .kept = r->o->fields,
                             .join = r->o->join,
                             .retry = r->o->retry,
                             .refresh = r->o->refresh};

    for (uint32_t i = 0; i < p->n_fields; i++) {
        r->columns[i] = p->fields[i].name;
        o.needed |= (uint32_t)p->fields[i].needed << i;
    }
    o.columns = (struct source_columns){.names = r->columns, .n = p->n_fields, .picture = r->o->image_column};

    for (int i = 0; r->feed && i < o.n_sources; i++) {
        const char *arg = feed_origins(r->feed)->args[i].arg;

        if (source_is_read_once(arg))
            return err_set(err, -EIO, "the list %s cannot be read twice; run the command again", arg + 1);
    }
    feed_close(r->feed);
    r->feed = NULL;
    return feed_open(&o, &r->feed, err);
}

/* The broker took the job: workers are of use now. */
static int begin(struct run *r, struct err *err)
{
    const struct msg_job_opened *opened = &r->job.opened;
    uint64_t n_left;

    if (r->job_begun)
        return 0;
    r->job_begun = true;
    r->n_before = opened->n_done;
    r->n_redone_before = opened->n_redone;
    n_left = opened->n_items - opened->n_done + opened->n_again;
    r->start_ms = clock_mono_ms();
    progress_init(&r->progress, r->start_ms, opened->n_items - n_left, opened->n_items);
    if (n_left)
        screen_note(&r->screen, "%s: going on, %" PRIu64 " of %" PRIu64 " items are done", r->o->store,
                    opened->n_items - n_left, opened->n_items);
    if (opened->n_items && r->o->unit_items)
        screen_note(&r->screen, "--unit is for new stores: %s keeps the size that it was begun with", r->o->store);
    return opened->n_items ? feed_compare(r->feed, err) : 0;
}

static int stream(struct run *r, struct err *err)
{
    bool more = true;
    char text[80];

    while (more) {
        int rc = job_stream(&r->job, r->feed, &more, err);

        if (rc == 0 && feed_counts(r->feed)->n_new + feed_counts(r->feed)->n_retried > 0)
            rc = daemons_start_workers(&r->daemons, err);
        if (rc == 0)
            rc = pump(r, 0, err);
        if (rc < 0 || r->signal_number)
            return rc < 0 ? rc : -EINTR;
        if (!r->job.session)
            return -ECONNRESET;
        (void)snprintf(text, sizeof(text), "listing pictures: %" PRIu64, feed_counts(r->feed)->n_walked);
        screen_status(&r->screen, text);
    }
    return 0;
}

/* The broker died, or was gone too long, in the middle of the import: what it has is made durable, the rest is found by
 * walking again. */
static int import_again(struct run *r, struct err *err)
{
    int rc = reopen_feed(r, err);

    if (rc == 0 && r->job.opened.n_items) {
        rc = job_seal(&r->job, err);
        r->job.sealed = false;
        if (rc == 0)
            rc = feed_compare(r->feed, err);
    }
    return rc;
}

static int establish_once(struct run *r, bool again, struct err *err)
{
    int rc = job_open(&r->job, CONNECT_MS, err);

    if (rc == 0 && !r->job.sealed)
        rc = job_sources(&r->job, r->feed, err);
    if (rc == 0 && !r->job_begun)
        rc = begin(r, err);
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
    screen_note(&r->screen, "waiting: %s", r->now.text);
}

/* The broker that has the store may be that of a run that was killed: it commits what it has and ends. One whose
 * command still runs will not. */
static bool is_left_over(const char *refusal)
{
    const char *who = strstr(refusal, "in use by process ");
    long pid = who ? strtol(who + strlen("in use by process "), NULL, 10) : 0;
    long parent;

    if (pid <= 0)
        return false;
    parent = spawn_parent(pid);
    return parent < 0 || !spawn_is_same_program(parent);
}

/* Somebody else has the store: worth a moment's patience? */
static bool busy_but_not_for_long(struct run *r, int rc, const struct err *err)
{
    if (rc != -EIO || r->job_begun || !is_left_over(err->text))
        return false;
    if (!r->busy_until_ms) {
        screen_note(&r->screen, "%s; waiting up to %d s for it to end", err->text, BUSY_STORE_MS / 1000);
        r->busy_until_ms = clock_mono_ms() + BUSY_STORE_MS;
    }
    return clock_mono_ms() < r->busy_until_ms;
}

/* Until the job is open and sealed, over any number of brokers. -EINTR: the user wants to stop. */
static int establish(struct run *r, struct err *err)
{
    for (;;) {
        bool again = r->job_begun;
        int rc = establish_once(r, again, err);

        if (rc == -EINTR) {
            int pumped = pump(r, 0, err);

            return pumped < 0 ? pumped : -EINTR;
        }
        if (!job_is_passing(rc) && !busy_but_not_for_long(r, rc, err))
            return rc;
        if (rc == -ETIMEDOUT)
            tell_if_blocked(r);
        if (job_is_passing(rc))
            job_disconnect(&r->job);
        rc = pump(r, rc == -EIO ? 500 : 50, err);
        if (rc < 0 || r->signal_number)
            return rc < 0 ? rc : -EINTR;
    }
}

/* -- watching -------------------------------------------------------------------------------------------------------
 */

static uint64_t n_this_run(const struct run *r)
{
    return r->now.n_done - r->n_before + r->now.n_redone - r->n_redone_before;
}

static void show_progress(struct run *r)
{
    int64_t now_ms = clock_mono_ms();
    const struct msg_job_progress *p = &r->now;
    char text[256];

    if (!r->any_done && n_this_run(r) > 0) { /* loading the model is no measure of speed */
        r->any_done = true;
        progress_init(&r->progress, now_ms, p->n_done - p->n_again, p->n_items);
    }
    progress_update(&r->progress, now_ms, p->n_done - p->n_again, p->n_failed, p->n_items);
    if (r->screen.is_terminal) {
        progress_bar(&r->progress, now_ms, screen_columns(&r->screen), text, sizeof(text));
        screen_status(&r->screen, text);
    } else if (now_ms - r->line_ms >= LINE_EVERY_MS) {
        progress_line(&r->progress, now_ms, text, sizeof(text));
        screen_note(&r->screen, "%s", text);
        r->line_ms = now_ms;
    }
    if ((p->state == MSG_JOB_BLOCKED) != (r->blocked_ms != 0)) {
        r->waited_ms += r->blocked_ms ? now_ms - r->blocked_ms : 0;
        r->blocked_ms = r->blocked_ms ? 0 : now_ms;
    }
    if (p->state == MSG_JOB_BLOCKED && strcmp(p->text, r->told) != 0)
        screen_note(&r->screen, "waiting: %s", p->text);
    (void)msg_text_set(r->told, sizeof(r->told), p->state == MSG_JOB_BLOCKED ? p->text : "");
}

/* Ask, unless there is nobody to ask; another broker than before is told of the job again. */
static int ask(struct run *r, struct err *err)
{
    int rc = 0;

    if (!r->job.session) {
        rc = establish_once(r, true, err);
        r->stop_sent = false;
        if (rc < 0)
            job_disconnect(&r->job);
    }
    if (rc == 0 && r->signal_number && !r->stop_sent) {
        rc = job_stop(&r->job, err);
        r->stop_sent = rc == 0;
        daemons_dismiss_encoders(&r->daemons); /* its window may hold minutes of work */
    }
    if (rc == 0)
        rc = job_query(&r->job, &r->now, err);
    if (rc == 0)
        show_progress(r);
    if (rc < 0 && rc != -ETIMEDOUT && rc != -EINTR)
        job_disconnect(&r->job);
    return job_is_passing(rc) || rc == -EINTR ? 0 : rc;
}

/* 0: all done, paused, or stopped as asked (r->now.state says which). */
static int watch(struct run *r, struct err *err)
{
    bool told = false;

    r->line_ms = clock_mono_ms();
    for (;;) {
        int rc = ask(r, err);

        if (rc == 0 && r->now.state == MSG_JOB_FAILED)
            rc = err_set(err, -EIO, "the broker gave the job up: %s", r->now.text);
        if (rc < 0 || r->now.state == MSG_JOB_DONE || r->now.state == MSG_JOB_PAUSED)
            return rc;
        if (r->stop_sent && (r->now.state == MSG_JOB_STOPPED || r->now.state == MSG_JOB_BLOCKED))
            return 0;
        if (r->signal_number && !told)
            screen_note(&r->screen, "stopping: what is in hand is finished first (once more: stop at once)");
        told = r->signal_number != 0;
        rc = daemons_start_workers(&r->daemons, err); /* not before: a finished store needs none */
        if (rc == 0)
            rc = pump(r, QUERY_EVERY_MS, err);
        if (rc < 0)
            return rc;
        if (r->n_signals > 1)
            return -EINTR;
    }
}

/* -- beginning and end ----------------------------------------------------------------------------------------------
 */

/* Ask the daemons to end, then wait for it, unless the user is in a hurry. */
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
        if (pump(r, 100, &ignored) < 0)
            break;
    }
    daemons_release(&r->daemons);
}

static int fill_open(struct run *r, struct msg_job_open *open, struct err *err)
{
    const struct caption_options *o = r->o;
    char cwd[MSG_PATH_SIZE];
    uint32_t n = feed_peeked(r->feed);

    *open = (struct msg_job_open){
        .recipe = o->plan->recipe, .n_nodes = o->plan->n_nodes, .unit_items = o->unit_items, .create = true};
    open->max_failures = o->max_failures;
    open->max_failed_per_mille = o->max_failed_per_mille;
    memcpy(open->nodes, o->plan->nodes, sizeof(o->plan->nodes));
    if (!getcwd(cwd, sizeof(cwd)))
        return err_set(err, -errno, "the current folder: %s", strerror(errno));
    if ((size_t)snprintf(open->path, sizeof(open->path), "%s%s%s", o->store[0] == '/' ? "" : cwd,
                         o->store[0] == '/' ? "" : "/", o->store) >= sizeof(open->path))
        return err_set(err, -ENAMETOOLONG, "-o %s: the path is too long", o->store);
    for (int i = 0; i < o->n_sources; i++) {
        size_t used = strlen(open->source);

        (void)snprintf(open->source + used, sizeof(open->source) - used, "%s%s", i ? " " : "", o->sources[i]);
    }
    /* Few pictures: units small enough that the stages work side by side. */
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
    rc = daemons_init(&r->daemons, &r->rundir, &conf, &r->screen, err);
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
    screen_note(&r->screen, "%s", text);
    answer_error(text);
    free(all);
}

static void tell_of_pause(struct run *r)
{
    screen_note(&r->screen, "paused: %s", r->now.text);
    screen_note(&r->screen, "nothing is lost, and these failures are not written down. See to the cause (is the folder "
                            "there? is the disk or network?), then run the same command again to go on");
    screen_note(&r->screen, "if nothing can be done about them: --max-failures N lets more fail in a row, "
                            "--max-failures 100%% any number");
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
    screen_status(&r->screen, "");
    if (rc < 0 && rc != -EINTR) {
        say_error(r, rc, err);
        return CLI_EXIT_ERROR;
    }
    source_notes(r->feed, r->o, r->columns, &r->screen);
    if (r->job_begun && r->now.job)
        report_words(&report, &r->screen);
    if (r->o->json && r->job_begun && r->now.job)
        report_json(&report);
    else
        answer_error("stopped before the job had begun");
    if (report.paused && !r->signal_number) {
        tell_of_pause(r);
        return CLI_EXIT_ERROR;
    }
    if (!report.done) {
        screen_note(&r->screen, "stopped; run the same command again to go on");
        return 128 + r->signal_number;
    }
    return r->now.n_failed || r->now.n_again || passed_over_is_incomplete(&report.passed_over) ? CLI_EXIT_FAILED_ITEMS
                                                                                               : CLI_EXIT_OK;
}

static int run_job(struct run *r, struct err *err)
{
    int rc = prepare(r, err);

    if (rc == 0)
        rc = establish(r, err);
    if (rc == 0)
        source_notes_again(r->feed, r->o, &r->screen);
    if (rc == 0)
        rc = watch(r, err);
    return rc;
}

int caption_run(const struct caption_options *o)
{
    struct run r = {.o = o, .signal_fd = -1, .rundir = {.lock_fd = -1}};
    struct err err = {""};
    struct stat st;
    bool there;
    int rc;

    buf_init(&r.advice, 0);
    screen_init(&r.screen, STDERR_FILENO);
    rc = reopen_feed(&r, &err);
    if (rc < 0) {
        say_error(&r, rc, &err);
        return cli_exit_of(rc);
    }
    if (feed_peeked(r.feed) == 0 && stat(o->store, &st) < 0)
        rc = err_set(&err, -ENOENT, "no pictures in %s%s (.jpg, .jpeg, .png, .webp; blipline help sources)",
                     o->sources[0], o->n_sources > 1 ? " and the other sources" : "");
    if (rc == 0)
        rc = store_check(o->store, o->plan, &there, &r.advice, &err);
    if (rc == 0 && o->dry_run)
        rc = dry_run(o, r.feed, r.columns, there, &r.screen, &err);
    if (rc < 0 || o->dry_run) {
        feed_close(r.feed);
        if (rc < 0)
            say_error(&r, rc, &err);
        buf_release(&r.advice);
        return rc < 0 ? CLI_EXIT_ERROR : CLI_EXIT_OK;
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
