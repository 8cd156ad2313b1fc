/* cmd_status.c - `blipline status`: everything the broker says of a job. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/stage.h"
#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_row.h"
#include "client/progress.h"
#include "client/report.h"
#include "console/answer.h"
#include "console/printable.h"
#include "wire/client_jobs.h"

struct status_flags {
    const char *broker;
    bool json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct status_flags),
    {"json", 0, CLI_FLAG, offsetof(struct status_flags, json), NULL,
     "print one JSON object on standard output (blipline help json)", 0, 0, NULL},
    {0},
};

struct status {
    uint64_t job;
    struct stored_job_entry row;
    bool is_open; /* then there is progress */
    struct msg_job_progress progress;
};

static int request(struct client_session *s, void *arg, struct err *err)
{
    struct status *st = arg;
    int rc = client_session_find_job(s, st->job, &st->row, err);

    st->is_open = rc == 0 && st->row.state;
    if (!st->is_open)
        return rc;
    rc = client_session_query(s, st->job, &st->progress, err);
    st->is_open = rc == 0;
    return rc == -ENOENT ? 0 : rc; /* it was closed in between */
}

/* -- for people -- */

static void line(const char *label, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void line(const char *label, const char *fmt, ...)
{
    char text[2 * MSG_TEXT_SIZE], shown[4 * sizeof(text)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (text[0])
        printf("  %-10s %s\n", label, printable_text(text, strlen(text), shown, sizeof(shown)));
}

/* "2026-12-02 10:37:01 (3m07s ago)" */
static void time_line(const char *label, int64_t then_ms, int64_t now_ms)
{
    const time_t t = (time_t)(then_ms / 1000);
    char age[PROGRESS_DURATION_SIZE], text[64];
    struct tm tm;

    if (then_ms > 0 && localtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
        line(label, "%s (%s ago)", text, job_row_age(then_ms, now_ms, age));
}

static void stage_lines(const struct msg_job_progress *p)
{
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const struct msg_stage_progress *g = &p->stages[i];
        char label[REPORT_LABEL_SIZE], benched[48] = "";

        if (g->benched)
            (void)snprintf(benched, sizeof(benched), " (%u of them benched)", g->benched);
        line(report_stage_label(p, i, label),
             "%" PRIu64 " item%s done, %u unit%s being worked on, %u ready; %u worker%s%s", g->items_done,
             cli_s(g->items_done), g->units_leased, cli_s(g->units_leased), g->units_ready, g->workers,
             cli_s(g->workers), benched);
    }
}

/* What the user can do now. */
static void hint_line(const struct broker_client *broker, const struct stored_job_entry *e, const char *state)
{
    const bool done = strcmp(state, "done") == 0, cancelled = strcmp(state, "cancelled") == 0;
    char command[SHELL_SIZE];

    if (e->n_done)
        line("read it", "%s", broker_client_hint(broker, "export", e->job, command));
    if (done && e->n_failed && !e->push)
        line("try again", "%s", broker_client_hint(broker, "retry", e->job, command));
    if (done || cancelled)
        line("delete it", "%s", broker_client_hint(broker, "rm", e->job, command));
    else if (strcmp(state, "paused") == 0 || strcmp(state, "failed") == 0)
        line("continue", "%s", broker_client_hint(broker, "resume", e->job, command));
    else if (strcmp(state, "incomplete") == 0)
        line("continue", "run its submit command again");
    else
        line("watch it", "%s", broker_client_hint(broker, "watch", e->job, command));
}

static void print_words(const struct broker_client *broker, const struct status *s)
{
    const struct stored_job_entry *e = &s->row;
    const char *state = job_row_state(e);
    const int64_t now_ms = clock_wall_ms();

    printf("job %" PRIu64 "\n", e->job);
    line("name", "%s", e->name);
    line("state", "%s%s%s", state, e->text[0] ? ": " : "", e->text);
    line("items", "%" PRIu64 " of %" PRIu64 " done, %" PRIu64 " failed%s", e->n_done, e->n_items, e->n_failed,
         e->sealed ? "" : " (not all are listed yet)");
    if (e->n_again)
        line("again", "%" PRIu64 " of them are to be done again", e->n_again);
    line("owner", "%s", e->owner);
    line("priority", "%u", job_row_priority(e));
    line("recipe", "%s", e->recipe);
    line("model", "%s", e->model);
    time_line("submitted", e->created_ms, now_ms);
    time_line("ended", e->ended_ms, now_ms);
    line("store", "jobs/%08" PRIu64 ".lmdb in the broker's state_dir", e->job);
    if (s->is_open)
        stage_lines(&s->progress);
    for (uint32_t i = 0; s->is_open && i < s->progress.n_hung; i++)
        line("hung", "process %u on %s: %s", s->progress.hung[i].pid, s->progress.hung[i].host,
             s->progress.hung[i].text);
    hint_line(broker, e, state);
}

/* -- for scripts -- */

static void print_json(const struct status *s)
{
    json_t *all = job_row_json(&s->row);

    (void)json_object_set_new(all, "open", json_boolean(s->is_open));
    (void)json_object_set_new(all, "stages", s->is_open ? report_stages_json(&s->progress) : json_null());
    answer_print("status", all, JSON_REAL_PRECISION(9));
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct status s; /* large for a stack */
    struct broker_client broker;
    struct status_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f), rc, exit_code = CLI_EXIT_OK;
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (job_number_parse(argv[argc - 1], &s.job, &err) < 0) {
        cli_error("%s: %s", self->name, err.text);
        return CLI_EXIT_USAGE;
    }
    rc = broker_client_init(&broker, self->name, f.broker, &err);
    if (rc == 0) {
        rc = broker_client_ask(&broker, request, &s, &err);
        broker.error_exit = cli_exit_of(rc);
    }
    if (rc < 0)
        exit_code = broker_client_fail(&broker, rc, &err);
    else if (f.json)
        print_json(&s);
    else
        print_words(&broker, &s);
    broker_client_release(&broker);
    return exit_code;
}

const struct cli_command cmd_status = {
    .name = "status",
    .line = "show a job of a broker",
    .usage = "JOB [--broker ENDPOINT] [--json]",
    .about = HELP_STATUS,
    .examples = HELP_STATUS_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
