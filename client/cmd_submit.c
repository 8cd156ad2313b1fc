/* cmd_submit.c - `blipline submit`: a job for a broker that runs elsewhere. */
#include <stdbool.h>
#include <string.h>

#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_options.h"
#include "client/job_row.h"
#include "client/submit.h"

struct submit_flags {
    struct job_flags job;
    const char *broker, *name, *device;
    int64_t priority;
    bool push, wait, dry_run, json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct submit_flags),
    JOB_OPTION(struct submit_flags, "model", 'm', CLI_TEXT, model, "NAME",
               "the model: one that workers have offered (blipline models), or a checkpoint of this machine, as for "
               "caption",
               0, 0),
    JOB_OPTION_RECIPE(struct submit_flags),
    {"name", 'N', CLI_TEXT, offsetof(struct submit_flags, name), "NAME",
     "a name for the job, for people (default: the last part of the first source's path)", 0, 0, NULL},
    {"priority", 'p', CLI_NUMBER, offsetof(struct submit_flags, priority), "P",
     "the job's share of the workers, in proportion to the priorities of the other jobs (default: 100)", 1,
     JOB_MAX_PRIORITY, NULL},
    JOB_OPTION_JOIN(struct submit_flags),
    JOB_OPTION_IMAGE_COLUMN(struct submit_flags),
    JOB_OPTION_FIELDS(struct submit_flags),
    JOB_OPTION_UNIT(struct submit_flags),
    JOB_OPTION_LIMIT(struct submit_flags),
    JOB_OPTION_MAX_FAILURES(struct submit_flags),
    {"device", 0, CLI_CHOICE, offsetof(struct submit_flags, device), "KIND",
     "the devices of the workers, which decide the number types that the recipe leaves open if the model is a "
     "checkpoint of this machine: fp32 on cpu, bf16 on cuda. null: workers without a model, to measure everything else "
     "(default: cpu)",
     0, 0, "cpu cuda null"},
    {"push", 0, CLI_FLAG, offsetof(struct submit_flags, push), NULL,
     "send the pictures to the broker, for workers that cannot see them. The job is accepted once the broker has all "
     "of them on its disk",
     0, 0, NULL},
    {"wait", 'w', CLI_FLAG, offsetof(struct submit_flags, wait), NULL,
     "show the progress until the job is done, and exit with the codes of `caption`. Ctrl-C ends the command, not "
     "the job",
     0, 0, NULL},
    {"dry-run", 'n', CLI_FLAG, offsetof(struct submit_flags, dry_run), NULL,
     "show the recipe, the stages, and how much time and disk the job would take; submit nothing", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct submit_flags, json), NULL,
     "print one JSON object on standard output at the end (blipline help json)", 0, 0, NULL},
    {0},
};

static bool options_more(size_t i, struct cli_option *ret)
{
    if (i > 0)
        return recipe_option(JOB_ALL_STAGES, i - 1, offsetof(struct submit_flags, job.settings), ret);
    *ret = (struct cli_option)JOB_OPTION_SCORE_MODEL(struct submit_flags);
    return true;
}

static enum device_kind kind_of(const char *word)
{
    return strcmp(word, "null") == 0 ? DEVICE_NULL : strcmp(word, "cuda") == 0 ? DEVICE_CUDA : DEVICE_CPU;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct recipe recipe; /* large for a stack */
    static struct plan plan;
    static struct offered_models offered;
    struct submit_flags f = {.device = "cpu", .job.recipe = "caption"};
    struct submit_options o = {0};
    struct err err = {""};
    int n_args = cli_parse(self, argc, argv, &f), rc;

    if (n_args < 0)
        return cli_exit_code(n_args);
    rc = job_flags_options(&f.job, (const char *const *)argv + argc - n_args, n_args, &o.job, &err);
    if (rc < 0) {
        cli_error("%s: %s", self->name, err.text);
        return CLI_EXIT_USAGE;
    }
    if (job_flags_recipe(self->name, &f.job, &recipe) < 0)
        return CLI_EXIT_USAGE;
    rc = job_flags_check_models(self->name, &f.job, &recipe, kind_of(f.device) == DEVICE_NULL, true);
    if (rc != CLI_EXIT_OK)
        return rc;
    if (kind_of(f.device) != DEVICE_NULL) {
        rc = offered_find(self->name, f.broker, f.job.model, f.job.score_model, &offered);
        if (rc != CLI_EXIT_OK)
            return rc;
    }
    rc = job_flags_plan(self->name, &f.job, &offered, kind_of(f.device), false, &recipe, &plan);
    if (rc < 0)
        return cli_exit_of(rc);
    job_plan_notes(&plan);
    o.job.recipe = &recipe;
    o.job.plan = &plan;
    o.broker = f.broker;
    o.name = f.name;
    o.priority = (uint32_t)f.priority;
    o.push = f.push;
    o.wait = f.wait;
    o.json = f.json;
    return f.dry_run ? submit_dry_run(&o) : submit_run(&o);
}

const struct cli_command cmd_submit = {
    .name = "submit",
    .line = "give a job to a broker that runs elsewhere",
    .usage = "SOURCE... --model NAME [--broker ENDPOINT] [OPTIONS]",
    .about = HELP_SUBMIT,
    .examples = HELP_SUBMIT_EXAMPLES,
    .options = options,
    .more_options = options_more,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
