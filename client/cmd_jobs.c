/* cmd_jobs.c - `blipline jobs`: the jobs of a broker.
 *
 * The list is asked for twice: first to find the width of each column and which jobs have ended last, then to print
 * it. So any number of jobs is listed in little memory. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_row.h"
#include "client/progress.h"
#include "console/answer.h"
#include "console/table.h"
#include "wire/client_jobs.h"

enum { ENDED_SHOWN = 10 };

struct jobs_flags {
    const char *broker, *state;
    bool all, json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct jobs_flags),
    {"all", 'a', CLI_FLAG, offsetof(struct jobs_flags, all), NULL,
     "list all jobs (default: those that have not ended, and the ten that have ended last)", 0, 0, NULL},
    {"state", 's', CLI_CHOICE, offsetof(struct jobs_flags, state), "STATE", "list all jobs in this state only", 0, 0,
     JOB_ROW_STATES},
    {"json", 0, CLI_FLAG, offsetof(struct jobs_flags, json), NULL,
     "print one JSON object on standard output (blipline help json)", 0, 0, NULL},
    {0},
};

static const struct table_column columns[] = {
    {"JOB", true, false},    {"NAME", false, true},
    {"OWNER", false, true},  {"STATE", false, false},
    {"PRIO", true, false},   {"DONE", true, false},
    {"FAILED", true, false}, {"AGE", true, false},
    {"REASON", false, true}, {0},
};

struct listing {
    struct broker_client broker;
    const struct jobs_flags *f;
    struct client_job_list page;
    uint64_t from_job;                           /* of the next page */
    struct stored_job_entry latest[ENDED_SHOWN]; /* that have ended, in any order */
    uint64_t n_ended;
    struct table table;
    json_t *json; /* the rows, for --json; else NULL */
    int64_t now_ms;
};

/* -- which jobs -- */

static bool shows_all(const struct jobs_flags *f)
{
    return f->all || f->state;
}

static bool is_later(const struct stored_job_entry *a, const struct stored_job_entry *b)
{
    return a->ended_ms != b->ended_ms ? a->ended_ms > b->ended_ms : a->job > b->job;
}

/* Keep a job that has ended in place of the one that has ended first. */
static void note_ended(struct listing *l, const struct stored_job_entry *e)
{
    struct stored_job_entry *first = &l->latest[0];

    for (size_t i = 0; i < ENDED_SHOWN; i++)
        if (is_later(first, &l->latest[i]))
            first = &l->latest[i];
    if (l->n_ended < ENDED_SHOWN || is_later(e, first))
        *first = *e;
    l->n_ended++;
}

static bool is_listed(const struct listing *l, const struct stored_job_entry *e)
{
    if (l->f->state)
        return strcmp(job_row_state(e), l->f->state) == 0;
    if (l->f->all || !e->ended_ms)
        return true;
    for (size_t i = 0; i < ENDED_SHOWN; i++)
        if (l->latest[i].job == e->job)
            return true;
    return false;
}

/* -- one row -- */

/* Fill in the cells of a row, or print them. */
static void show(struct listing *l, const struct stored_job_entry *e, bool print)
{
    char number[24], priority[16], done[48], failed[24], age[PROGRESS_DURATION_SIZE];
    const char *cells[] = {number, e->name, e->owner, job_row_state(e), priority, done, failed, age, e->text};

    (void)snprintf(number, sizeof(number), "%" PRIu64, e->job);
    (void)snprintf(priority, sizeof(priority), "%u", job_row_priority(e));
    (void)snprintf(done, sizeof(done), "%" PRIu64 "/%" PRIu64, e->n_done, e->n_items);
    (void)snprintf(failed, sizeof(failed), "%" PRIu64, e->n_failed);
    (void)job_row_age(e->created_ms, l->now_ms, age);
    if (print)
        table_print(&l->table, cells, stdout);
    else
        table_measure(&l->table, cells);
}

static int measure(struct listing *l, const struct stored_job_entry *e, struct err *err)
{
    (void)err;
    if (!shows_all(l->f) && e->ended_ms)
        note_ended(l, e);
    else if (is_listed(l, e))
        show(l, e, false);
    return 0;
}

static int print(struct listing *l, const struct stored_job_entry *e, struct err *err)
{
    if (!is_listed(l, e))
        return 0;
    if (!l->json)
        show(l, e, true);
    else if (json_array_append_new(l->json, job_row_json(e)) < 0)
        return err_set(err, -ENOMEM, "no memory for the list of jobs");
    return 0;
}

/* -- the list -- */

static int ask_page(struct client_session *s, void *arg, struct err *err)
{
    struct listing *l = arg;

    return client_session_list_jobs(s, l->from_job, &l->page, err);
}

static int walk(struct listing *l, int (*each)(struct listing *l, const struct stored_job_entry *e, struct err *err),
                struct err *err)
{
    int rc = 0;

    l->from_job = 1;
    while (rc == 0 && l->from_job) {
        rc = broker_client_ask(&l->broker, ask_page, l, err);
        for (uint32_t i = 0; rc == 0 && i < l->page.n; i++)
            rc = each(l, &l->page.rows[i], err);
        l->from_job = l->page.next_job;
    }
    return rc;
}

static int list(struct listing *l, struct err *err)
{
    int rc = walk(l, measure, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ENDED_SHOWN; i++)
        if (l->latest[i].job)
            show(l, &l->latest[i], false);
    table_fit(&l->table, isatty(STDOUT_FILENO) ? terminal_columns(&(struct terminal){.fd = STDOUT_FILENO}) : 0);
    if (!l->json)
        table_print_titles(&l->table, stdout);
    return walk(l, print, err);
}

static void conclude(struct listing *l)
{
    if (l->json)
        answer_print("jobs", json_pack("{s:O}", "jobs", l->json), 0);
    else if (!shows_all(l->f) && l->n_ended > ENDED_SHOWN)
        terminal_note(&l->broker.terminal, "%" PRIu64 " more jobs have ended; --all lists them, too",
                      l->n_ended - ENDED_SHOWN);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct listing l; /* large for a stack */
    struct jobs_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f), rc, exit_code = CLI_EXIT_OK;
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    l = (struct listing){.f = &f, .now_ms = clock_wall_ms()};
    l.json = f.json ? json_array() : NULL;
    table_init(&l.table, columns);
    rc = broker_client_init(&l.broker, self->name, f.broker, &err);
    if (rc == 0)
        rc = list(&l, &err);
    if (rc < 0)
        exit_code = broker_client_fail(&l.broker, rc, &err);
    else
        conclude(&l);
    client_job_list_release(&l.page);
    json_decref(l.json);
    broker_client_release(&l.broker);
    return exit_code;
}

const struct cli_command cmd_jobs = {
    .name = "jobs",
    .line = "list the jobs of a broker",
    .usage = "[--all] [--state STATE] [--broker ENDPOINT] [--json]",
    .about = HELP_JOBS,
    .examples = HELP_JOBS_EXAMPLES,
    .options = options,
    .run = run,
};
