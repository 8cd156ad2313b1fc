/* cmd_caption.c - `blipline caption`, `score` and `embed`. They are one command with three default recipes. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/caption.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/job_options.h"
#include "client/retry.h"
#include "local/device_probe.h"
#include "local/devices.h"
#include "recipe/home.h"
#include "recipe/recipe.h"
#include "console/shell.h"

enum { MAX_THREADS = 1024 };

struct caption_flags {
    struct job_flags job;
    const char *store, *device, *cuda_library, *cpu_isa;
    struct cli_settings retry;
    int64_t threads, max_pixels, max_file_size;
    bool json, verbose, dry_run, refresh, check;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(struct caption_flags, store), "STORE",
     "the store, a folder. It is created if it does not exist; an existing store is continued", 0, 0, NULL},
    JOB_OPTION_MODEL(struct caption_flags),
    JOB_OPTION_RECIPE(struct caption_flags),
    JOB_OPTION_JOIN(struct caption_flags),
    JOB_OPTION_IMAGE_COLUMN(struct caption_flags),
    JOB_OPTION_FIELDS(struct caption_flags),
    {"threads", 't', CLI_NUMBER, offsetof(struct caption_flags, threads), "N",
     "threads for computing, all stages together (default: every CPU)", 1, MAX_THREADS, NULL},
    JOB_OPTION_UNIT(struct caption_flags),
    JOB_OPTION_LIMIT(struct caption_flags),
    {"max-pixels", 0, CLI_NUMBER, offsetof(struct caption_flags, max_pixels), "N",
     "a picture with more pixels fails, before memory is allocated for it (default: 178956970, as in Pillow)", 1,
     INT64_MAX, NULL},
    {"max-file-size", 0, CLI_SIZE, offsetof(struct caption_flags, max_file_size), "SIZE",
     "a larger picture file fails without being read (default: 1GiB)", 1, INT64_MAX, NULL},
    {"retry", 0, CLI_SETTING, offsetof(struct caption_flags, retry), "CODE,...",
     "try again what failed for one of these reasons (blipline stats lists them); without a value: everything that "
     "failed. Without this option: missing, unreadable, no_memory, decoder_memory, timed_out, lost",
     0, 0, RETRY_ALL},
    {"refresh", 0, CLI_FLAG, offsetof(struct caption_flags, refresh), NULL,
     "do again what has changed since it was listed: size or time of the file, columns of its row. A record stays "
     "until its replacement is committed",
     0, 0, NULL},
    JOB_OPTION_MAX_FAILURES(struct caption_flags),
    {"check", 0, CLI_FLAG, offsetof(struct caption_flags, check), NULL,
     "check every page of an existing store before writing to it. Without this option, a store that is larger than "
     "1 GiB and was closed properly is not checked",
     0, 0, NULL},
    {"device", 0, CLI_TEXT, offsetof(struct caption_flags, device), "LIST",
     "auto (default: every GPU, otherwise the CPU), cpu, GPUs separated by commas (cuda:N, or GPU-... as blipline "
     "devices lists them; each runs all stages), or null: no arithmetic, to measure everything else",
     0, 0, NULL},
    {"cuda-library", 0, CLI_TEXT, offsetof(struct caption_flags, cuda_library), "FILE",
     "the CUDA operators (default: libblipline-cuda.so beside the programs, or in ../lib/blipline)", 0, 0, NULL},
    {"cpu-isa", 0, CLI_CHOICE, offsetof(struct caption_flags, cpu_isa), "LEVEL",
     "which vector instructions of the CPU to use (default: the best it has). With avx2, every processor gives the "
     "same bytes",
     0, 0, "auto base avx2 avx512"},
    {"dry-run", 'n', CLI_FLAG, offsetof(struct caption_flags, dry_run), NULL,
     "check models and lists, show the recipe and the stages, count the pictures; do nothing else", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct caption_flags, json), NULL,
     "print one JSON object on standard output at the end (blipline help json)", 0, 0, NULL},
    {"verbose", 'v', CLI_FLAG, offsetof(struct caption_flags, verbose), NULL,
     "show the logs of the broker and the workers as they are written", 0, 0, NULL},
    {0},
};

static bool caption_options_more(size_t i, struct cli_option *ret)
{
    if (i > 0)
        return recipe_option(JOB_ALL_STAGES, i - 1, offsetof(struct caption_flags, job.settings), ret);
    *ret = (struct cli_option)JOB_OPTION_SCORE_MODEL(struct caption_flags);
    return true;
}

static bool score_options_more(size_t i, struct cli_option *ret)
{
    return recipe_option(RECIPE_SCORE | RECIPE_EMBED, i, offsetof(struct caption_flags, job.settings), ret);
}

/* Errors have been printed; -EDOM: the command line is wrong. */
static int choose_devices(const struct cli_command *self, const struct caption_flags *f, struct devices *ret_have,
                          struct device_choice *ret)
{
    struct err err = {""};
    int rc;

    devices_find(f->cuda_library, ret_have);
    rc = devices_choose(ret_have, f->device, f->cuda_library, ret, &err);
    if (rc == 0 && f->cpu_isa)
        rc = devices_choose_isa(f->cpu_isa, &ret->cpu_isa, &err);
    if (rc < 0)
        cli_error("%s: %s", self->name, err.text);
    return rc;
}

/* Returns the exit code; 0: the workers can start. A dry run may be meant for another machine. */
static int probe(const struct cli_command *self, const struct plan *plan, const struct devices *have, bool dry_run,
                 const struct placement *p)
{
    const bool ask_workers = !dry_run || p->devices->kind == DEVICE_CUDA;
    struct err err = {""};
    int signal_number = 0, rc = plan_check_machine(plan, p->devices->cpu_isa, have->memory_bytes, &err);

    if (rc < 0 && dry_run) {
        cli_error("not on this machine: %s", err.text);
        rc = 0;
    }
    if (rc == 0 && ask_workers)
        rc = device_probe(p, &signal_number, &err);
    if (signal_number)
        return 128 + signal_number;
    if (rc == 0)
        return CLI_EXIT_OK;
    cli_error("%s: %s", self->name, err.text[0] ? err.text : strerror(-rc));
    return rc == -EDOM ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
}

static void say_more(const struct plan *plan, const struct devices *have, const struct device_choice *chosen)
{
    job_plan_notes(plan);
    if (chosen->note[0])
        cli_error("%s", chosen->note);
    if (chosen->kind == DEVICE_CUDA && !have->has_mps) {
        struct home home;
        char script[PATH_MAX + 16], word[SHELL_SIZE];
        const bool found = home_find(&home, NULL) == 0;

        (void)snprintf(script, sizeof(script), "%s/ops/mps.sh", found ? home.path : ".");
        cli_error("NVIDIA's MPS is not running, so the %u workers of a GPU take turns; `%s start` lets them run at the "
                  "same time (docs/gpu.md)",
                  plan->n_workers, shell_word(script, word, sizeof(word)));
    }
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct recipe recipe; /* large for a stack */
    static struct plan plan;
    static struct devices have;
    static struct device_choice chosen;
    static struct placement placement;
    struct caption_options o = {0};
    struct err err = {""};
    struct caption_flags f = {.device = "auto"};
    int n_args = cli_parse(self, argc, argv, &f), rc;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (!f.store || !f.store[0]) {
        cli_error("%s: -o STORE is missing\nUsage: blipline %s %s", self->name, self->name, self->usage);
        return CLI_EXIT_USAGE;
    }
    o.again.refresh = f.refresh;
    rc = job_flags_options(&f.job, (const char *const *)argv + argc - n_args, n_args, &o.job, &err);
    for (int i = 0; rc == 0 && i < f.retry.n; i++)
        rc = retry_add(&o.again, f.retry.list[i].value, &err);
    if (rc < 0) {
        cli_error("%s: %s", self->name, err.text);
        return CLI_EXIT_USAGE;
    }
    if (job_flags_recipe(self->name, &f.job, &recipe) < 0)
        return CLI_EXIT_USAGE;
    rc = job_flags_check_models(self->name, &f.job, &recipe, strcmp(f.device, "null") == 0, false);
    if (rc != CLI_EXIT_OK)
        return rc;
    rc = choose_devices(self, &f, &have, &chosen);
    if (rc < 0)
        return cli_exit_of(rc);
    rc = job_flags_plan(self->name, &f.job, NULL, chosen.kind, f.dry_run && !f.json && access(f.store, F_OK) < 0,
                        &recipe, &plan);
    if (rc < 0)
        return rc == -EDOM ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    place_workers(&plan, &chosen, f.threads ? (int)f.threads : have.n_threads, &placement);
    rc = probe(self, &plan, &have, f.dry_run, &placement);
    if (rc != CLI_EXIT_OK)
        return rc;
    say_more(&plan, &have, &chosen);
    o.job.recipe = &recipe;
    o.job.plan = &plan;
    o.store = f.store;
    o.placement = &placement;
    o.check = f.check;
    o.max_pixels = f.max_pixels;
    o.max_file_bytes = f.max_file_size;
    o.json = f.json;
    o.verbose = f.verbose;
    o.dry_run = f.dry_run;
    return caption_run(&o);
}

const struct cli_command cmd_caption = {
    .name = "caption",
    .line = "write captions of pictures, or answers to questions, into a store",
    .usage = "SOURCE... -o STORE --model DIR [OPTIONS]",
    .about = HELP_CAPTION HELP_RUN,
    .examples = HELP_CAPTION_EXAMPLES,
    .options = options,
    .more_options = caption_options_more,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};

const struct cli_command cmd_score = {
    .name = "score",
    .line = "measure how well given texts fit their pictures",
    .usage = "@LIST... -o STORE --model DIR [OPTIONS]",
    .about = HELP_SCORE HELP_RUN,
    .examples = HELP_SCORE_EXAMPLES,
    .options = options,
    .more_options = score_options_more,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};

const struct cli_command cmd_embed = {
    .name = "embed",
    .line = "store embeddings of pictures and texts",
    .usage = "SOURCE... -o STORE --model DIR [OPTIONS]",
    .about = HELP_EMBED HELP_RUN,
    .examples = HELP_EMBED_EXAMPLES,
    .options = options,
    .more_options = score_options_more,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
