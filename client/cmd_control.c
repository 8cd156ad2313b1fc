/* cmd_control.c - the commands that change jobs of a broker: pause, resume, cancel, retry, priority, rm. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_row.h"
#include "client/retry.h"
#include "console/answer.h"
#include "wire/client_jobs.h"

struct control_flags {
    const char *broker;
    bool json;
    struct cli_texts reasons; /* of retry */
};

#define JSON_OPTION                                                                     \
    {                                                                                   \
        "json", 0, CLI_FLAG, offsetof(struct control_flags, json), NULL,                \
            "print one JSON object on standard output (blipline help json)", 0, 0, NULL \
    }

static const struct cli_option options[] = {BROKER_CLIENT_OPTION(struct control_flags), JSON_OPTION, {0}};

static const struct cli_option retry_options[] = {
    {"reason", 'r', CLI_TEXTS, offsetof(struct control_flags, reasons), "CODE,...",
     "only items that failed for one of these reasons, such as truncated or missing; may be given several times "
     "(default: all items that failed)",
     0, 0, NULL},
    BROKER_CLIENT_OPTION(struct control_flags),
    JSON_OPTION,
    {0},
};

struct control {
    struct broker_client broker;
    struct msg_job_control what;
    struct stored_job_entry row; /* the answer, unless the job is removed */
    bool tried;                  /* the broker may have got it */
    json_t *jobs;                /* for --json; else NULL */
    int exit_code;               /* of the jobs so far */
};

/* -- one job -- */

static int request(struct client_session *s, void *arg, struct err *err)
{
    struct control *c = arg;
    int rc = client_session_control_job(s, &c->what, &c->row, err);

    if (rc == -ENOENT && c->tried && c->what.action == MSG_JOB_REMOVE)
        rc = 0; /* the answer was lost */
    c->tried = true;
    return rc;
}

/* While its items are being marked, somebody else may have paused or cancelled the job. */
static void say_retried(struct control *c)
{
    const struct stored_job_entry *row = &c->row;
    const uint64_t job = c->what.job;

    if (row->retrying)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " does failed items again once it is resumed", job);
    else if (row->n_again)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " does %" PRIu64 " item%s again", job, row->n_again,
                      cli_s(row->n_again));
    else
        terminal_note(&c->broker.terminal, "job %" PRIu64 " has no items that failed%s", job,
                      c->what.n_codes ? " for such a reason" : "");
}

static void say_done(struct control *c)
{
    const struct stored_job_entry *row = &c->row;
    const uint64_t job = c->what.job;
    char command[SHELL_SIZE];

    if (c->what.action == MSG_JOB_PAUSE)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " is paused; `%s` continues it", job,
                      broker_client_hint(&c->broker, "resume", job, command));
    else if (c->what.action == MSG_JOB_RESUME && strcmp(job_row_state(row), "incomplete") == 0)
        terminal_note(&c->broker.terminal,
                      "job %" PRIu64 " goes on when the rest of its pictures is sent: run its `submit` command again",
                      job);
    else if (c->what.action == MSG_JOB_RESUME)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " goes on", job);
    else if (c->what.action == MSG_JOB_CANCEL)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " is cancelled; `%s` deletes it with its results", job,
                      broker_client_hint(&c->broker, "rm", job, command));
    else if (c->what.action == MSG_JOB_RETRY)
        say_retried(c);
    else if (c->what.action == MSG_JOB_PRIORITY)
        terminal_note(&c->broker.terminal, "job %" PRIu64 " has the priority %u", job, job_row_priority(row));
    else
        terminal_note(&c->broker.terminal, "job %" PRIu64 " and its results are deleted", job);
}

static void say_refused(struct control *c, int rc, const struct err *err)
{
    const bool not_ended = c->what.action == MSG_JOB_REMOVE && rc == -EPERM;
    char command[SHELL_SIZE];

    terminal_note(&c->broker.terminal, "%s: %s%s%s%s", c->broker.command, err->text, not_ended ? ": `" : "",
                  not_ended ? broker_client_hint(&c->broker, "cancel", c->what.job, command) : "",
                  not_ended ? "`" : "");
    answer_error(err->text);
}

static void add_json(struct control *c, int rc, const struct err *err)
{
    json_t *row;

    if (!c->jobs)
        return;
    row = rc == 0 && c->what.action != MSG_JOB_REMOVE ? job_row_json(&c->row)
                                                      : json_pack("{s:I}", "job", (json_int_t)c->what.job);
    (void)json_object_set_new(row, "error", rc < 0 ? answer_text(err->text) : json_null());
    (void)json_array_append_new(c->jobs, row);
}

/* Does the broker refuse only this job, so that the next one may be asked for? */
static bool is_refusal(int rc)
{
    return rc == -EPERM || rc == -ENOENT || rc == -EIO;
}

static int control_job(struct control *c, uint64_t job, struct err *err)
{
    int rc;

    c->what.job = job;
    c->tried = false;
    rc = broker_client_ask(&c->broker, request, c, err);
    if (rc < 0 && !is_refusal(rc))
        return rc;
    if (rc == 0)
        say_done(c);
    else
        say_refused(c, rc, err);
    if (rc < 0 && c->exit_code != CLI_EXIT_ERROR)
        c->exit_code = rc == -ENOENT ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    add_json(c, rc, err);
    return 0;
}

/* -- the commands -- */

/* All numbers are checked before the first is sent. */
static int parse_jobs(const struct control *c, int n, char **args, uint64_t *ret, struct err *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < n; i++)
        rc = job_number_parse(args[i], &ret[i], err);
    if (rc < 0)
        cli_error("%s: %s", c->broker.command, err->text);
    return rc;
}

static int control_jobs(struct control *c, const struct control_flags *f, int n, char **args)
{
    uint64_t *jobs = calloc((size_t)n + 1, sizeof(*jobs));
    const char *command = c->broker.command;
    struct err err = {""};
    int rc;

    if (!jobs || parse_jobs(c, n, args, jobs, &err) < 0) {
        free(jobs);
        return jobs ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    }
    c->jobs = f->json ? json_array() : NULL;
    rc = broker_client_init(&c->broker, command, f->broker, &err);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = control_job(c, jobs[i], &err);
    if (rc < 0)
        c->exit_code = broker_client_fail(&c->broker, rc, &err);
    else if (f->json)
        answer_print("control", json_pack("{s:s, s:O}", "action", command, "jobs", c->jobs), 0);
    json_decref(c->jobs);
    broker_client_release(&c->broker);
    free(jobs);
    return c->exit_code;
}

static int run_action(const struct cli_command *self, enum msg_job_action action, int argc, char **argv)
{
    struct control c = {.broker.command = self->name, .what.action = action};
    struct control_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f);

    return n_args < 0 ? cli_exit_code(n_args) : control_jobs(&c, &f, n_args, argv + argc - n_args);
}

static int run_pause(const struct cli_command *self, int argc, char **argv)
{
    return run_action(self, MSG_JOB_PAUSE, argc, argv);
}

static int run_resume(const struct cli_command *self, int argc, char **argv)
{
    return run_action(self, MSG_JOB_RESUME, argc, argv);
}

static int run_cancel(const struct cli_command *self, int argc, char **argv)
{
    return run_action(self, MSG_JOB_CANCEL, argc, argv);
}

static int run_rm(const struct cli_command *self, int argc, char **argv)
{
    return run_action(self, MSG_JOB_REMOVE, argc, argv);
}

static int run_retry(const struct cli_command *self, int argc, char **argv)
{
    struct control c = {.broker.command = self->name, .what.action = MSG_JOB_RETRY};
    struct control_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f), rc = 0;
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    for (int i = 0; rc == 0 && i < f.reasons.n; i++)
        rc = retry_codes_add("--reason", f.reasons.texts[i], &c.what.n_codes, c.what.codes, &err);
    if (rc == 0)
        return control_jobs(&c, &f, n_args, argv + argc - n_args);
    cli_error("%s: %s", self->name, err.text);
    return CLI_EXIT_USAGE;
}

static int run_priority(const struct cli_command *self, int argc, char **argv)
{
    struct control c = {.broker.command = self->name, .what.action = MSG_JOB_PRIORITY};
    struct control_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f);
    struct err err = {""};
    uint64_t priority;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (job_number_parse(argv[argc - 1], &priority, &err) < 0 || priority > JOB_MAX_PRIORITY) {
        cli_error("%s: %.40s is no priority: a whole number from 1 to %d", self->name, argv[argc - 1],
                  JOB_MAX_PRIORITY);
        return CLI_EXIT_USAGE;
    }
    c.what.priority = (uint32_t)priority;
    return control_jobs(&c, &f, n_args - 1, argv + argc - n_args);
}

const struct cli_command cmd_pause = {
    .name = "pause",
    .line = "pause jobs of a broker",
    .usage = "JOB... [--broker ENDPOINT] [--json]",
    .about = HELP_PAUSE,
    .examples = HELP_PAUSE_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run_pause,
};

const struct cli_command cmd_resume = {
    .name = "resume",
    .line = "continue paused or failed jobs of a broker",
    .usage = "JOB... [--broker ENDPOINT] [--json]",
    .about = HELP_RESUME,
    .examples = HELP_RESUME_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run_resume,
};

const struct cli_command cmd_cancel = {
    .name = "cancel",
    .line = "end jobs of a broker for good; their results stay",
    .usage = "JOB... [--broker ENDPOINT] [--json]",
    .about = HELP_CANCEL,
    .examples = HELP_CANCEL_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run_cancel,
};

const struct cli_command cmd_retry = {
    .name = "retry",
    .line = "do failed items of jobs of a broker again",
    .usage = "JOB... [--reason CODE,...] [--broker ENDPOINT] [--json]",
    .about = HELP_RETRY,
    .examples = HELP_RETRY_EXAMPLES,
    .options = retry_options,
    .min_args = 1,
    .max_args = -1,
    .run = run_retry,
};

const struct cli_command cmd_priority = {
    .name = "priority",
    .line = "change the priority of jobs of a broker",
    .usage = "JOB... PRIORITY [--broker ENDPOINT] [--json]",
    .about = HELP_PRIORITY,
    .examples = HELP_PRIORITY_EXAMPLES,
    .options = options,
    .min_args = 2,
    .max_args = -1,
    .run = run_priority,
};

const struct cli_command cmd_rm = {
    .name = "rm",
    .line = "delete ended jobs of a broker with their results",
    .usage = "JOB... [--broker ENDPOINT] [--json]",
    .about = HELP_RM,
    .examples = HELP_RM_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run_rm,
};
