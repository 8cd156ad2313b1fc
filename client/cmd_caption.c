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
#include "client/retry.h"
#include "local/device_probe.h"
#include "local/devices.h"
#include "recipe/home.h"
#include "recipe/recipe.h"
#include "console/shell.h"

enum { MAX_THREADS = 1024, MAX_UNIT = 64, ALL_STAGES = RECIPE_CAPTION | RECIPE_SCORE | RECIPE_EMBED };

struct caption_flags {
    const char *store, *model, *score_model, *recipe, *device, *cuda_library, *cpu_isa, *join, *image_column, *fields;
    const char *max_failures;
    struct cli_settings settings, retry;
    int64_t threads, unit, limit, max_pixels, max_file_size;
    bool json, verbose, dry_run, refresh, check;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(struct caption_flags, store), "STORE",
     "the store, a folder. It is created if it does not exist; an existing store is continued", 0, 0, NULL},
    {"model", 'm', CLI_TEXT, offsetof(struct caption_flags, model), "DIR",
     "the checkpoint: a folder, or the name of a folder in models/ or of a model that comes with Blipline "
     "(blipline help models)",
     0, 0, NULL},
    {"recipe", 'r', CLI_TEXT, offsetof(struct caption_flags, recipe), "RECIPE",
     "what to compute: a built-in recipe or a recipe file (blipline help recipe). The options below override it", 0, 0,
     NULL},
    {"join", 'j', CLI_TEXT, offsetof(struct caption_flags, join), "TABLE",
     "a table (.jsonl, .csv, .tsv) with a column `key`. Its other columns are added to the pictures with these "
     "keys. If several rows have the same key, all their values are used",
     0, 0, NULL},
    {"image-column", 0, CLI_TEXT, offsetof(struct caption_flags, image_column), "NAME",
     "the column of a list that names the picture (default: the first of path, image, image_path, ...: blipline "
     "help sources)",
     0, 0, NULL},
    {"fields", 0, CLI_TEXT, offsetof(struct caption_flags, fields), "NAMES",
     "columns of the lists to keep with the pictures, separated by commas, for `export --fields`. path, size, "
     "mtime and source are always kept. Only for a new store",
     0, 0, NULL},
    {"threads", 't', CLI_NUMBER, offsetof(struct caption_flags, threads), "N",
     "threads for computing, all stages together (default: every CPU)", 1, MAX_THREADS, NULL},
    {"unit", 0, CLI_NUMBER, offsetof(struct caption_flags, unit), "N",
     "pictures that are processed and committed together (default: depends on their number). Only for a new store", 1,
     MAX_UNIT, NULL},
    {"limit", 0, CLI_NUMBER, offsetof(struct caption_flags, limit), "N",
     "list only the first N pictures of the sources", 1, INT64_MAX, NULL},
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
    {"max-failures", 0, CLI_TEXT, offsetof(struct caption_flags, max_failures), "N",
     "pause when N pictures in a row fail, before these failures are written down (default: 50). N%: pause when "
     "more than this share of at least 100 pictures of this run fails (100%: never)",
     0, 0, NULL},
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
        return recipe_option(ALL_STAGES, i - 1, offsetof(struct caption_flags, settings), ret);
    *ret = (struct cli_option){"score-model",
                               0,
                               CLI_TEXT,
                               offsetof(struct caption_flags, score_model),
                               "DIR",
                               "the retrieval checkpoint, if the job also scores or stores ITC embeddings",
                               0,
                               0,
                               NULL};
    return true;
}

static bool score_options_more(size_t i, struct cli_option *ret)
{
    return recipe_option(RECIPE_SCORE | RECIPE_EMBED, i, offsetof(struct caption_flags, settings), ret);
}

static int complain_no_model(const char *command, const struct recipe *r)
{
    bool captions = r->stages & RECIPE_CAPTION;
    const char *demo = captions ? "blip2-opt-demo" : "blip2-itm-demo";
    const char *published = captions ? "blip2-opt-2.7b" : "blip2-itm-vit-g";
    char path[PATH_MAX];

    cli_error("%s: --model DIR is missing. Two ways to get a model:\n"
              "  1. the small one that comes with Blipline (it only knows drawings of pictograms):\n"
              "       --model %-20s (%s)\n"
              "  2. a published one for real photographs (%s; hf is in the Python package "
              "huggingface_hub):\n"
              "       hf download Salesforce/%s --exclude '*.bin' --local-dir models/%s\n"
              "       --model %s",
              command, demo, home_model("--model", demo, path, NULL) == 0 ? path : "run `make install` first",
              captions ? "15 GB" : "5 GB", published, published, published);
    return CLI_EXIT_USAGE;
}

static int make_recipe(const struct cli_command *self, const struct caption_flags *f, struct recipe *ret)
{
    struct err err = {""};
    int rc = recipe_load(f->recipe ? f->recipe : self->name, ret, &err);

    if (rc == 0)
        rc = recipe_override(ret, &f->settings, &err);
    if (rc == 0)
        rc = recipe_check(ret, RECIPE_OPTIONS, &err);
    if (rc < 0)
        cli_error("%s: %s", self->name, err.text[0] ? err.text : strerror(-rc));
    return rc;
}

/* "50", "5%", NULL: the default. */
static int parse_max_failures(const char *text, struct caption_options *ret, struct err *err)
{
    char *end;
    double n = 50;

    if (text) {
        errno = 0;
        n = strtod(text, &end);
        if (errno || end == text || strspn(text, "0123456789.") != (size_t)(end - text) ||
            (*end && strcmp(end, "%") != 0))
            return err_set(
                err, -EINVAL,
                "--max-failures %.60s: is neither a number of pictures in a row, such as 50, nor a share, such "
                "as 5%%",
                text);
        if (*end && n > 100)
            return err_set(err, -EINVAL, "--max-failures %.60s: is more than 100%%", text);
        if (*end) {
            ret->max_failed_per_mille = (uint32_t)(n * 10 + 0.5);
            if (ret->max_failed_per_mille == 0)
                return err_set(err, -EINVAL,
                               "--max-failures %.60s: is less than 0.1%%; --max-failures 1 pauses at the "
                               "first failure",
                               text);
            return 0;
        }
    }
    if (n < 1 || n > 1000000000 || n != (double)(uint32_t)n)
        return err_set(err, -EINVAL,
                       "--max-failures %.60s: a whole number from 1 to 1000000000, or a share such as 5%%", text);
    ret->max_failures = (uint32_t)n;
    return 0;
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

static int make_plan(const struct cli_command *self, const struct caption_flags *f, struct recipe *recipe,
                     enum device_kind device, struct plan *ret)
{
    struct plan_options o = {
        .recipe = recipe,
        .model_dir = f->model,
        .score_model_dir = f->score_model,
        .device = device,
        .no_fingerprints = f->dry_run && !f->json && access(f->store, F_OK) < 0,
    };
    struct err err = {""};
    int rc = plan_make(&o, ret, &err);

    if (rc < 0) {
        cli_error("%s: %s", self->name, err.text[0] ? err.text : strerror(-rc));
        return rc;
    }
    /* show the types that were left open */
    recipe->dtype_encode = ret->recipe.dtype_encode;
    recipe->dtype_qformer = ret->recipe.dtype_qformer;
    recipe->dtype_llm = ret->recipe.dtype_llm;
    return 0;
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
    if (plan->is_demo)
        cli_error("the demo model only knows drawings of pictograms; do not expect more of it");
    if (plan->note[0])
        cli_error("%s", plan->note);
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

/* Returns the exit code; 0: no error in the command line so far. */
static int check_flags(const struct cli_command *self, const struct caption_flags *f, const struct recipe *recipe)
{
    bool captions = recipe->stages & RECIPE_CAPTION;

    if (strcmp(f->device, "null") != 0 && !f->model && (captions || !f->score_model))
        return complain_no_model(self->name, recipe);
    if (f->score_model && captions && !recipe->itc && !recipe->itm && recipe->n_embeddings == 0) {
        cli_error("%s: --score-model: the recipe %s does not use it; add --score or --embed itc", self->name,
                  recipe->name);
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
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
    rc = parse_max_failures(f.max_failures, &o, &err);
    for (int i = 0; rc == 0 && i < f.retry.n; i++)
        rc = retry_add(&o.again, f.retry.list[i].value, &err);
    if (rc < 0) {
        cli_error("%s: %s", self->name, err.text);
        return CLI_EXIT_USAGE;
    }
    if (make_recipe(self, &f, &recipe) < 0)
        return CLI_EXIT_USAGE;
    rc = check_flags(self, &f, &recipe);
    if (rc != CLI_EXIT_OK)
        return rc;
    rc = choose_devices(self, &f, &have, &chosen);
    if (rc < 0)
        return cli_exit_of(rc);
    rc = make_plan(self, &f, &recipe, chosen.kind, &plan);
    if (rc < 0)
        return rc == -EDOM ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    place_workers(&plan, &chosen, f.threads ? (int)f.threads : have.n_threads, &placement);
    rc = probe(self, &plan, &have, f.dry_run, &placement);
    if (rc != CLI_EXIT_OK)
        return rc;
    say_more(&plan, &have, &chosen);
    return caption_run(&(struct caption_options){
        .sources = (const char *const *)argv + argc - n_args,
        .n_sources = n_args,
        .store = f.store,
        .recipe = &recipe,
        .plan = &plan,
        .placement = &placement,
        .unit_items = (uint32_t)f.unit,
        .join = f.join,
        .again = o.again,
        .check = f.check,
        .max_failures = o.max_failures,
        .max_failed_per_mille = o.max_failed_per_mille,
        .image_column = f.image_column,
        .fields = f.fields,
        .limit = (uint64_t)f.limit,
        .max_pixels = f.max_pixels,
        .max_file_bytes = f.max_file_size,
        .json = f.json,
        .verbose = f.verbose,
        .dry_run = f.dry_run,
    });
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
