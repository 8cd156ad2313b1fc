#include "client/submit.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "client/import.h"
#include "client/job_view.h"
#include "client/report.h"
#include "client/source_notes.h"
#include "console/answer.h"
#include "job/broker_conf.h"
#include "job/passed_over.h"
#include "job/pending.h"
#include "wire/context.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CONNECT_MS = 1000,       /* one attempt */
    FIRST_CONTACT_MS = 5000, /* all attempts to reach a broker */
    RETURN_MS = 60000,       /* for a broker that is gone to come back before it has accepted the job */
    PAUSE_MS = 200,          /* between attempts, and between queries */
};

struct submission {
    const struct submit_options *o;
    struct terminal terminal;
    struct broker_conf conf;
    struct wire_keys keys;
    struct pending pending;
    struct job job;
    struct import import;
    struct job_view view;
    int signal_fd, signal_number;
    bool reached;       /* a broker has answered */
    bool waits;         /* has said that another process has the submission */
    int64_t give_up_ms; /* when to stop trying to reach a broker; 0: it answers */
    uint64_t number;    /* of the job, once it is accepted; else 0 */
    char label[32];     /* "job 7" */
};

/* -- signals -- */

/* Wait up to wait_ms for a signal. -EINTR: there was one. */
static int pause_for(struct submission *s, int wait_ms)
{
    struct pollfd p = {.fd = s->signal_fd, .events = POLLIN};
    struct interrupt in;

    if (wait_ms)
        (void)poll(&p, 1, wait_ms);
    interrupt_read(s->signal_fd, &in);
    if (in.signal_number && !s->signal_number)
        s->signal_number = in.signal_number;
    return s->signal_number ? -EINTR : 0;
}

/* -- the connection -- */

/* Is the broker only away, or is its store only being opened, and is there time left to wait for that? */
static bool may_try_again(struct submission *s, int rc, const struct err *err)
{
    const bool passing = job_is_passing(rc), wait_long = s->reached || s->number;

    if (!passing && rc != -EBUSY)
        return false;
    if (passing)
        job_disconnect(&s->job);
    if (!s->give_up_ms) {
        s->give_up_ms = clock_mono_ms() + (wait_long ? RETURN_MS : FIRST_CONTACT_MS);
        if (wait_long)
            terminal_note(&s->terminal, "%s; trying again", err->text);
    }
    return s->number || clock_mono_ms() < s->give_up_ms;
}

static int open_job(struct submission *s, struct err *err)
{
    const struct msg_recipe *stored;
    int rc = job_open(&s->job, CONNECT_MS, &stored, err);

    s->reached |= s->job.session != NULL;
    if (rc == 0)
        s->give_up_ms = 0;
    return rc;
}

/* -- until the broker has accepted the job -- */

static void begin(void *arg)
{
    struct submission *s = arg;
    const uint64_t n = s->job.opened.n_items;

    (void)job_view_begin(&s->view, &s->terminal, &s->job.opened);
    if (n)
        terminal_note(&s->terminal, "continuing a submission that was cut off: the broker has %" PRIu64 " item%s of it",
                      n, cli_s(n));
}

static int tick(void *arg, struct err *err)
{
    (void)err;
    return pause_for(arg, 0);
}

static int establish(struct submission *s, struct err *err)
{
    for (;;) {
        int rc = open_job(s, err);

        if (rc == 0)
            rc = import_send(&s->import, err);
        if (rc == 0 || (rc != -EINTR && !may_try_again(s, rc, err)))
            return rc;
        rc = pause_for(s, rc == -EINTR ? 0 : PAUSE_MS);
        if (rc < 0)
            return rc;
    }
}

static int append_source(const char *arg, struct buf *ret)
{
    const bool is_list = arg[0] == '@';
    char path[PATH_MAX];

    if (realpath(arg + is_list, path) || getcwd(path, sizeof(path)))
        return buf_appendf(ret, "source %s %s\n", arg, path);
    return -errno;
}

/* What makes two submissions the same: the broker, the pictures, and what is to be done with them. */
static int identify(const struct submission *s, struct buf *ret)
{
    const struct submit_options *o = s->o;
    const struct job_options *j = &o->job;
    char hex[FINGERPRINT_HEX_SIZE];
    int rc = buf_appendf(ret, "%s\n%s\n%u %u %" PRIu64 " %u %u\n%s\n%s\n", s->conf.broker, o->name ? o->name : "",
                         o->priority, j->unit_items, j->limit, j->max_failures, j->max_failed_per_mille,
                         j->image_column ? j->image_column : "", j->fields ? j->fields : "");

    if (rc == 0 && j->join)
        rc = append_source(j->join, ret);
    for (int i = 0; rc == 0 && i < j->n_sources; i++)
        rc = append_source(j->sources[i], ret);
    for (uint32_t i = 0; rc == 0 && i < j->plan->n_nodes; i++)
        rc = buf_appendf(ret, "%s\n", fingerprint_to_hex(&j->plan->nodes[i].fingerprint, hex));
    return rc < 0 ? rc : recipe_print(j->recipe, ret);
}

static int wait_for_other(void *arg)
{
    struct submission *s = arg;

    if (!s->waits)
        terminal_note(&s->terminal, "the same submission is under way in another process; waiting for it");
    s->waits = true;
    return pause_for(s, PAUSE_MS);
}

static int open_pending(struct submission *s, struct err *err)
{
    bool once = false;
    struct buf identity;
    int rc;

    for (int i = 0; i < s->o->job.n_sources; i++)
        once |= source_is_read_once(s->o->job.sources[i]);
    buf_init(&identity, 0);
    rc = identify(s, &identity);
    if (rc < 0)
        rc = err_set(err, rc, "cannot tell which sources these are: %s", strerror(-rc));
    else
        rc = pending_open(&s->pending, once ? NULL : &identity, wait_for_other, s, err);
    buf_release(&identity);
    return rc;
}

static int open_broker(struct submission *s, struct err *err)
{
    int rc;

    s->import.error_exit = CLI_EXIT_USAGE;
    rc = broker_conf_find(s->o->broker, BROKER_CONF_SYSTEM, &s->conf, err);
    if (rc == 0)
        rc = broker_conf_keys(&s->conf, &s->keys, err);
    if (rc == 0)
        s->import.error_exit = CLI_EXIT_ERROR;
    return rc;
}

static int fill_open(const struct submission *s, struct msg_job_open *ret, struct err *err)
{
    struct msg_submission *sub = &ret->submission;

    job_open_fill(&s->o->job, s->import.feed ? feed_peeked(s->import.feed) : FEED_PEEK_ITEMS, ret);
    ret->priority = s->o->priority;
    sub->given = true;
    memcpy(sub->token, s->pending.token, sizeof(sub->token));
    if (!s->o->name)
        file_base_name(s->o->job.sources[0], sub->name, sizeof(sub->name));
    else if (!msg_text_set(sub->name, sizeof(sub->name), s->o->name))
        return err_set(err, -EDOM, "--name %.60s...: is longer than %zu bytes", s->o->name, sizeof(sub->name) - 1);
    return 0;
}

/* Have the job accepted, or learn which one another process had accepted. */
static int submit(struct submission *s, struct err *err)
{
    struct msg_job_open open = {0};
    int rc = open_pending(s, err);

    /* what the sources of a submission that goes on are, the broker says */
    if (rc == 0 && !s->pending.job && !s->pending.resumed)
        rc = import_open_feed(&s->import, NULL, err);
    if (rc == 0 && !s->pending.job)
        rc = fill_open(s, &open, err);
    if (rc < 0) {
        pending_drop(&s->pending);
        return rc;
    }
    job_init(&s->job, s->conf.broker, &s->keys, &open);
    if (!s->pending.job) {
        rc = establish(s, err);
        if (rc == 0)
            rc = pending_accepted(&s->pending, s->job.opened.job, err);
    }
    if (rc == 0)
        s->number = s->pending.job ? s->pending.job : s->job.opened.job;
    (void)snprintf(s->label, sizeof(s->label), "job %" PRIu64, s->number);
    return rc;
}

/* -- watching -- */

static int ask(struct submission *s, struct err *err)
{
    int rc = 0;

    if (!s->job.session) {
        rc = open_job(s, err);
        if (rc == 0 && !s->view.terminal)
            (void)job_view_begin(&s->view, &s->terminal, &s->job.opened);
    }
    if (rc == 0)
        rc = job_query(&s->job, &s->view.now, err);
    if (rc == 0)
        job_view_show(&s->view);
    return rc == -EINTR || (rc < 0 && may_try_again(s, rc, err)) ? 0 : rc;
}

/* 0: done or paused. */
static int watch(struct submission *s, struct err *err)
{
    s->job.open = (struct msg_job_open){.job = s->number}; /* for a broker that was restarted */
    s->job.sealed = true;
    job_view_watch(&s->view);
    for (;;) {
        int rc = ask(s, err);

        if (rc == 0 && s->view.now.state == MSG_JOB_FAILED)
            rc = err_set(err, -EIO, "the job failed: %s", s->view.now.text);
        if (rc < 0 || s->view.now.state == MSG_JOB_DONE || s->view.now.state == MSG_JOB_PAUSED)
            return rc;
        rc = pause_for(s, PAUSE_MS);
        if (rc < 0)
            return rc;
    }
}

/* -- the end -- */

static void count_passed_over(const struct submission *s, struct passed_over *ret)
{
    if (s->import.feed)
        passed_over_of_walk(&feed_counts(s->import.feed)->skipped, ret);
}

/* The number for scripts; notes for people. */
static void say_accepted(const struct submission *s)
{
    static const struct msg_compared nothing;

    if (s->import.feed)
        source_notes(&s->import, &nothing, s->label);
    if (s->o->json)
        return;
    printf("%" PRIu64 "\n", s->number);
    (void)fflush(stdout);
}

static int conclude_accepted(const struct submission *s)
{
    const struct feed *f = s->import.feed; /* NULL: another process has listed the pictures */
    struct passed_over passed = {0};

    count_passed_over(s, &passed);
    if (s->o->json)
        answer_print("submit",
                     json_pack("{s:I, s:o, s:o}", "job", (json_int_t)s->number, "items",
                               f ? json_integer((json_int_t)feed_counts(f)->n_walked) : json_null(), "passed_over",
                               passed_over_json(&passed)),
                     0);
    return passed_over_is_incomplete(&passed) ? CLI_EXIT_FAILED_ITEMS : CLI_EXIT_OK;
}

static int conclude_watched(struct submission *s, int rc)
{
    struct report report = {.store = s->label,
                            .job = s->number,
                            .done = rc == 0 && s->view.now.state == MSG_JOB_DONE,
                            .paused = rc == 0 && s->view.now.state == MSG_JOB_PAUSED,
                            .recipe = &s->o->job.plan->recipe};

    job_view_report(&s->view, clock_mono_ms(), &report);
    count_passed_over(s, &report.passed_over);
    if (s->view.now.job)
        report_words(&report, &s->terminal);
    if (s->o->json && s->view.now.job)
        report_json(&report);
    if (report.paused) {
        terminal_note(&s->terminal, "%s is paused: %s", s->label, s->view.now.text);
        return CLI_EXIT_ERROR;
    }
    return report.done ? report_exit_code(&report) : 128 + s->signal_number;
}

static int conclude(struct submission *s, int rc, const struct err *err)
{
    terminal_status(&s->terminal, "");
    if (rc < 0 && rc != -EINTR) {
        const char *text = err->text[0] ? err->text : strerror(-rc);

        terminal_note(&s->terminal, "submit: %s", text);
        answer_error(text);
        return s->import.error_exit;
    }
    if (rc < 0 && !s->number) {
        terminal_note(&s->terminal, "stopped before the broker had accepted the job; run the same command again to "
                                    "continue");
        answer_error("stopped before the broker had accepted the job");
        return 128 + s->signal_number;
    }
    if (rc < 0)
        terminal_note(&s->terminal, "%s goes on at the broker; only this command has ended", s->label);
    return s->o->wait ? conclude_watched(s, rc) : conclude_accepted(s);
}

int submit_run(const struct submit_options *o)
{
    static struct submission s; /* large for a stack */
    struct err err = {""};
    int rc;

    s = (struct submission){.o = o, .signal_fd = -1, .pending = {.fd = -1}};
    s.import = (struct import){.o = &o->job,
                               .how = &(const struct msg_comparison){0},
                               .job = &s.job,
                               .terminal = &s.terminal,
                               .begin = begin,
                               .tick = tick,
                               .arg = &s,
                               .error_exit = CLI_EXIT_ERROR};
    terminal_init(&s.terminal, STDERR_FILENO);
    rc = open_broker(&s, &err);
    if (rc == 0)
        rc = interrupt_open(&s.signal_fd, &err);
    if (rc == 0)
        rc = wire_init(1, &err);
    if (rc == 0)
        rc = submit(&s, &err);
    if (rc == 0)
        say_accepted(&s);
    pending_close(&s.pending);
    if (rc == 0 && o->wait)
        rc = watch(&s, &err);
    if (rc == -EINTR)
        (void)pause_for(&s, 0);
    rc = conclude(&s, rc, &err);
    import_release(&s.import);
    job_release(&s.job);
    wire_exit();
    wire_keys_wipe(&s.keys);
    return rc;
}
