/* cmd_caption.c - `blipline caption`: pictures in, captions out, everything on this machine. */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "client/caption.h"
#include "client/commands.h"

enum { MAX_THREADS = 1024, MAX_UNIT = 64, DEFAULT_NEW_TOKENS = 20 };

struct caption_flags {
    const char *store, *model, *prompt, *device;
    int64_t max_new_tokens, threads, unit, limit;
    bool json, verbose, dry_run;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(struct caption_flags, store), "STORE",
     "the store: a folder, made if it is not there; one that is there goes on where it was", 0, 0, NULL},
    {"model", 'm', CLI_TEXT, offsetof(struct caption_flags, model), "DIR",
     "the checkpoint (blipline help models says where to get one)", 0, 0, NULL},
    {"prompt", 'p', CLI_TEXT, offsetof(struct caption_flags, prompt), "TEXT",
     "the words that the caption continues, or a question: \"Question: what is this? Answer:\"", 0, 0, NULL},
    {"max-new-tokens", 0, CLI_NUMBER, offsetof(struct caption_flags, max_new_tokens), "N",
     "tokens of a caption at most (default: 20)", 1, 4096, NULL},
    {"threads", 't', CLI_NUMBER, offsetof(struct caption_flags, threads), "N",
     "threads to compute with, all stages together (default: every CPU)", 1, MAX_THREADS, NULL},
    {"unit", 0, CLI_NUMBER, offsetof(struct caption_flags, unit), "N",
     "pictures that are handed out and committed together (default: chosen from their number; only for a new store)", 1,
     MAX_UNIT, NULL},
    {"limit", 0, CLI_NUMBER, offsetof(struct caption_flags, limit), "N", "only the first N pictures of the sources", 1,
     INT64_MAX, NULL},
    {"device", 0, CLI_CHOICE, offsetof(struct caption_flags, device), "DEVICE",
     "auto (default), cpu, or null: no arithmetic, to measure everything else", 0, 0, "auto cpu null"},
    {"dry-run", 'n', CLI_FLAG, offsetof(struct caption_flags, dry_run), NULL,
     "check the model and count the pictures, do nothing", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct caption_flags, json), NULL,
     "one JSON object on standard output at the end: items, done, failed, seconds, images_per_s, stages", 0, 0, NULL},
    {"verbose", 'v', CLI_FLAG, offsetof(struct caption_flags, verbose), NULL,
     "show the logs of broker and workers as they are written", 0, 0, NULL},
    {0},
};

static int online_cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

static int complain_no_model(void)
{
    cli_error("caption: a model is needed: --model DIR. Two ways to get one:\n"
              "  1. the small one that comes with the source (it only knows drawings of pictograms):\n"
              "       --model models/blip2-opt-demo\n"
              "  2. a published one for real photographs (15 GB; huggingface-cli is in the Python package "
              "huggingface_hub):\n"
              "       huggingface-cli download Salesforce/blip2-opt-2.7b --exclude '*.bin' --local-dir blip2-opt-2.7b\n"
              "       --model blip2-opt-2.7b");
    return CLI_EXIT_USAGE;
}

static int make_plan(const struct caption_flags *f, struct plan *ret)
{
    struct plan_options o = {.model_dir = f->model, .prompt = f->prompt, .max_new_tokens = f->max_new_tokens};
    struct err err = {""};
    int rc = strcmp(f->device, "null") == 0 ? plan_null(&o, ret, &err) : plan_model(&o, ret, &err);

    if (rc < 0)
        cli_error("caption: %s", err.text[0] ? err.text : strerror(-rc));
    else if (ret->is_demo)
        cli_error("the demo model only knows drawings of pictograms; do not expect more of it");
    return rc;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct caption_flags f = {.max_new_tokens = DEFAULT_NEW_TOKENS, .device = "auto"};
    int n_args = cli_parse(self, argc, argv, &f);
    struct caption_options o;
    struct plan plan;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (!f.store || !f.store[0]) {
        cli_error("caption: -o STORE is missing: where are the captions to go?\nUsage: blipline caption %s",
                  self->usage);
        return CLI_EXIT_USAGE;
    }
    if (!f.model && strcmp(f.device, "null") != 0)
        return complain_no_model();
    if (make_plan(&f, &plan) < 0)
        return CLI_EXIT_ERROR;
    o = (struct caption_options){
        .sources = (const char *const *)argv + argc - n_args,
        .n_sources = n_args,
        .store = f.store,
        .plan = &plan,
        .n_threads = f.threads ? (int)f.threads : online_cpus(),
        .unit_items = (uint32_t)f.unit,
        .limit = (uint64_t)f.limit,
        .json = f.json,
        .verbose = f.verbose,
        .dry_run = f.dry_run,
    };
    return caption_run(&o);
}

const struct cli_command cmd_caption = {
    .name = "caption",
    .line = "write captions for pictures into a store",
    .usage = "SOURCE... -o STORE --model DIR [OPTIONS]",
    .about =
        "Finds the pictures of the sources (folders, files, @lists: blipline help sources), starts a broker and three\n"
        "workers (image encoder, Q-Former, language model) as processes of their own on this machine, and writes one\n"
        "record a picture into the store: its caption, or the reason why there is none.\n\n"
        "Ctrl-C stops cleanly; the same command again goes on where it stopped, and adds what is new in the sources\n"
        "(blipline help resume). Progress goes to standard error. Exit codes: 0 all done, 3 done but some pictures\n"
        "failed, 2 wrong command line, 1 anything else (blipline help exit-codes).",
    .examples = "Examples:\n"
                "  blipline caption photos/ -o photos.lmdb --model blip2-opt-2.7b\n"
                "  blipline caption examples/images -o demo.lmdb --model models/blip2-opt-demo\n"
                "  find . -name '*.jpg' | blipline caption @- -o all.lmdb --model blip2-opt-2.7b --prompt 'a photo of'",
    .options = options,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
