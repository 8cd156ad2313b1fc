#include "client/submit.h"

#include "base/file.h"
#include "client/broker_client.h"
#include "client/import.h"
#include "client/source_notes.h"
#include "client/watch.h"
#include "console/answer.h"
#include "console/printable.h"
#include "job/passed_over.h"
#include "job/push.h"
#include "job/pending.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct submission {
    const struct submit_options *o;
    struct broker_client broker;
    struct pending pending;
    struct job job;
    struct import import;
    struct watch watch;          /* its number is 0 until the job is accepted */
    bool waits;                  /* has said that another process has the submission */
    bool noted_room;             /* has looked whether the broker has room for the pictures */
    char waiting[MSG_TEXT_SIZE]; /* why the broker took no pictures, when it last did not */
};

/* -- until the broker has accepted the job -- */

static void begin(void *arg)
{
    struct submission *s = arg;
    const uint64_t n = s->job.opened.n_items;

    (void)job_view_begin(&s->watch.view, &s->broker.terminal, &s->job.opened);
    if (n)
        terminal_note(&s->broker.terminal,
                      "continuing a submission that was cut off: the broker has %" PRIu64 " item%s of it", n, cli_s(n));
}

static int tick(void *arg, struct err *err)
{
    struct submission *s = arg;

    (void)err;
    return broker_client_pause(&s->broker, 0);
}

static int tick_push(const struct push_progress *p, struct err *err)
{
    struct submission *s = p->arg;
    char text[96];

    (void)err;
    if (p->waiting[0] && strcmp(p->waiting, s->waiting) != 0)
        terminal_note(&s->broker.terminal, "waiting for the broker to take more pictures; it says: %s", p->waiting);
    memcpy(s->waiting, p->waiting, sizeof(s->waiting));
    (void)snprintf(text, sizeof(text), "sending pictures: %" PRIu64 " of %" PRIu64 ", %.1f MiB", p->n_items,
                   s->job.accepted.n_items, (double)p->n_bytes / (1 << 20));
    terminal_status(&s->broker.terminal, text);
    return broker_client_pause(&s->broker, 0);
}

/* Of pictures that another process has listed the sizes are not known. */
static void note_room(struct submission *s)
{
    const uint64_t want = s->import.feed ? feed_counts(s->import.feed)->n_bytes : 0, room = s->job.accepted.disk_room;
    char have[32], need[32];

    if (want > room && !s->noted_room)
        terminal_note(
            &s->broker.terminal,
            "the pictures take %s, and the broker's disk has room for %s: once it is full, the others are sent "
            "as workers finish pictures",
            printable_size(want, need), printable_size(room, have));
    s->noted_room = true;
}

static int push(struct submission *s, struct err *err)
{
    struct push_progress p = {
        .sources = s->o->job.sources, .n_sources = s->o->job.n_sources, .tick = tick_push, .arg = s};

    note_room(s);
    return job_push(&s->job, &p, err);
}

static int establish(struct submission *s, struct err *err)
{
    for (;;) {
        int rc = watch_open(&s->watch, err);

        if (rc == 0)
            rc = import_send(&s->import, err);
        if (rc == 0 && s->o->push)
            rc = push(s, err);
        if (rc == 0 || (rc != -EINTR && !watch_may_try_again(&s->watch, rc, err)))
            return rc;
        rc = broker_client_pause(&s->broker, rc == -EINTR ? 0 : BROKER_CLIENT_PAUSE_MS);
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
    int rc = buf_appendf(ret, "%s\n%s\n%u %u %" PRIu64 " %u %u\n%s\n%s\n", s->broker.conf.broker,
                         o->name ? o->name : "", o->priority, j->unit_items, j->limit, j->max_failures,
                         j->max_failed_per_mille, j->image_column ? j->image_column : "", j->fields ? j->fields : "");

    if (rc == 0 && o->push)
        rc = buf_appendf(ret, "push\n");
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
        terminal_note(&s->broker.terminal, "the same submission is under way in another process; waiting for it");
    s->waits = true;
    return broker_client_pause(&s->broker, BROKER_CLIENT_PAUSE_MS);
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

static int fill_open(const struct submission *s, struct msg_job_open *ret, struct err *err)
{
    struct msg_submission *sub = &ret->submission;

    job_open_fill(&s->o->job, s->import.feed ? feed_peeked(s->import.feed) : FEED_PEEK_ITEMS, ret);
    ret->priority = s->o->priority;
    sub->given = true;
    sub->push = s->o->push;
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
    job_init(&s->job, s->broker.conf.broker, &s->broker.keys, &open);
    if (!s->pending.job) {
        rc = establish(s, err);
        if (rc == 0)
            rc = pending_accepted(&s->pending, s->job.opened.job, err);
    }
    if (rc == 0)
        watch_set_number(&s->watch, s->pending.job ? s->pending.job : s->job.opened.job);
    return rc;
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
        source_notes(&s->import, &nothing, s->watch.label);
    if (s->o->json)
        return;
    printf("%" PRIu64 "\n", s->watch.number);
    (void)fflush(stdout);
}

static int conclude_accepted(const struct submission *s, const struct passed_over *passed)
{
    const struct feed *f = s->import.feed; /* NULL: another process has listed the pictures */

    if (s->o->json)
        answer_print("submit",
                     json_pack("{s:I, s:o, s:o}", "job", (json_int_t)s->watch.number, "items",
                               f ? json_integer((json_int_t)feed_counts(f)->n_walked) : json_null(), "passed_over",
                               passed_over_json(passed)),
                     0);
    return passed_over_is_incomplete(passed) ? CLI_EXIT_FAILED_ITEMS : CLI_EXIT_OK;
}

static int conclude(struct submission *s, int rc, const struct err *err)
{
    struct passed_over passed = {0};

    terminal_status(&s->broker.terminal, "");
    if (rc < 0 && rc != -EINTR)
        return broker_client_fail(&s->broker, rc, err);
    if (rc < 0 && !s->watch.number) {
        terminal_note(&s->broker.terminal, "stopped before the broker had accepted the job; run the same command again "
                                           "to continue");
        answer_error("stopped before the broker had accepted the job");
        return 128 + s->broker.signal_number;
    }
    count_passed_over(s, &passed);
    return s->o->wait ? watch_conclude(&s->watch, "submit", &passed, s->o->json) : conclude_accepted(s, &passed);
}

int submit_run(const struct submit_options *o)
{
    static struct submission s; /* large for a stack */
    struct err err = {""};
    int rc;

    s = (struct submission){.o = o, .pending = {.fd = -1}};
    s.import = (struct import){.o = &o->job,
                               .how = &(const struct msg_comparison){0},
                               .job = &s.job,
                               .terminal = &s.broker.terminal,
                               .begin = begin,
                               .tick = tick,
                               .arg = &s,
                               .error_exit = CLI_EXIT_ERROR};
    s.watch = (struct watch){.broker = &s.broker, .job = &s.job};
    rc = broker_client_init(&s.broker, "submit", o->broker, &err);
    if (rc == 0) {
        rc = submit(&s, &err);
        s.broker.error_exit = s.import.error_exit;
    }
    if (rc == 0)
        say_accepted(&s);
    pending_close(&s.pending);
    if (rc == 0 && o->wait)
        rc = watch_until_end(&s.watch, &err);
    if (rc == -EINTR)
        rc = broker_client_pause(&s.broker, 0);
    rc = conclude(&s, rc, &err);
    import_release(&s.import);
    job_release(&s.job);
    broker_client_release(&s.broker);
    return rc;
}
