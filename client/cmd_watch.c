/* cmd_watch.c - `blipline watch`: the progress of a job of a broker, until it ends. */
#include <errno.h>
#include <stdbool.h>

#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_row.h"
#include "client/watch.h"

struct watch_flags {
    const char *broker;
    bool json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct watch_flags),
    {"json", 0, CLI_FLAG, offsetof(struct watch_flags, json), NULL,
     "print one JSON object on standard output at the end (blipline help json)", 0, 0, NULL},
    {0},
};

static int watch(struct watch *w, const struct watch_flags *f, const char *command, uint64_t number)
{
    const struct passed_over nothing = {0};
    struct err err = {""};
    int rc = broker_client_init(w->broker, command, f->broker, &err);

    if (rc < 0)
        return broker_client_fail(w->broker, rc, &err);
    job_init(w->job, w->broker->conf.broker, &w->broker->keys, &(const struct msg_job_open){.job = number});
    watch_set_number(w, number);
    rc = watch_until_end(w, &err);
    if (rc == 0 || rc == -EINTR)
        rc = watch_conclude(w, command, &nothing, f->json);
    else {
        w->broker->error_exit = cli_exit_of(rc);
        rc = broker_client_fail(w->broker, rc, &err);
    }
    job_release(w->job);
    return rc;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct broker_client broker; /* large for a stack */
    static struct job job;
    static struct watch w;
    struct watch_flags f = {0};
    int n_args = cli_parse(self, argc, argv, &f), rc;
    struct err err = {""};
    uint64_t number;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (job_number_parse(argv[argc - 1], &number, &err) < 0) {
        cli_error("%s: %s", self->name, err.text);
        return CLI_EXIT_USAGE;
    }
    w = (struct watch){.broker = &broker, .job = &job};
    rc = watch(&w, &f, self->name, number);
    broker_client_release(&broker);
    return rc;
}

const struct cli_command cmd_watch = {
    .name = "watch",
    .line = "show the progress of a job of a broker until it ends",
    .usage = "JOB [--broker ENDPOINT] [--json]",
    .about = HELP_WATCH,
    .examples = HELP_WATCH_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
