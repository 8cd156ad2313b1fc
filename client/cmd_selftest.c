/* cmd_selftest.c - `blipline selftest`: does this machine compute what the reference computed? */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "client/commands.h"
#include "client/selftest_demo.h"
#include "client/selftest_job.h"
#include "client/selftest_run.h"
#include "client/selftest_table.h"

enum { MAX_THREADS = 1024 };

struct selftest_options {
    const char *golden, *images, *dtype;
    int64_t threads;
    bool json, verbose;
};

static const struct cli_option options[] = {
    {"golden", 0, CLI_TEXT, offsetof(struct selftest_options, golden), "DIR",
     "reference data: expected.json and expected.safetensors (default: MODEL_DIR itself)", 0, 0, NULL},
    {"images", 0, CLI_TEXT, offsetof(struct selftest_options, images), "DIR",
     "where the pictures named in expected.json are (default: images/ in the golden folder, or the odd pictures beside "
     "it)",
     0, 0, NULL},
    {"dtype", 0, CLI_CHOICE, offsetof(struct selftest_options, dtype), "TYPE",
     "fp32 (default), or bf16 where the processor has it: then the limits are those of bf16, and ids and texts that "
     "differ are counted but are no failure",
     0, 0, "fp32 bf16"},
    {"threads", 't', CLI_NUMBER, offsetof(struct selftest_options, threads), "N",
     "threads to compute with (default: the workers' own; the jobs take every CPU)", 1, MAX_THREADS, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct selftest_options, json), NULL, "one JSON object instead of the table", 0, 0,
     NULL},
    {"verbose", 'v', CLI_FLAG, offsetof(struct selftest_options, verbose), NULL,
     "a line for each set of decoding options", 0, 0, NULL},
    {0},
};

struct outcome {
    json_t *rows;
    size_t n_tests, n_failed, n_skipped;
    double seconds;
    const char *dtype;
    bool demo;
};

/* -- what is run -- */

static int run_model(const struct selftest_options *o, const struct selftest_run *what, json_t *rows, int *ret_signal,
                     struct err *err)
{
    struct selftest_run t = *what;
    int rc;

    t.dtype = o->dtype;
    t.n_threads = (int)o->threads;
    rc = selftest_run(&t, rows, err);
    *ret_signal = t.signal_number;
    return rc;
}

static int run_demo(const struct selftest_options *o, json_t *rows, int *ret_signal, struct err *err)
{
    struct selftest_demo demo;
    struct selftest_job job = {.demo = &demo, .dtype = o->dtype, .n_threads = (int)o->threads};
    int rc = selftest_demo_find(&demo, err);

    if (rc == 0)
        rc = run_model(o,
                       &(struct selftest_run){.model_dir = demo.caption_model,
                                              .golden_dir = demo.caption_golden,
                                              .images_dir = demo.images,
                                              .sampler_path = demo.sampler},
                       rows, ret_signal, err);
    if (rc == 0)
        rc = run_model(o,
                       &(struct selftest_run){
                           .model_dir = demo.score_model, .golden_dir = demo.score_golden, .images_dir = demo.images},
                       rows, ret_signal, err);
    if (rc == 0) {
        rc = selftest_job(&job, rows, err);
        *ret_signal = job.signal_number;
    }
    return rc;
}

/* -- what is said -- */

static const json_t *machine_of(const json_t *rows)
{
    const json_t *machine = json_object_get(json_array_get(rows, 0), "machine");

    return machine ? machine : NULL;
}

static const char *machine_text(const json_t *machine, const char *key)
{
    const char *text = json_string_value(json_object_get(machine, key));

    return text ? text : "unknown";
}

static void count(struct outcome *r)
{
    size_t i;
    json_t *row;

    json_array_foreach(r->rows, i, row)
    {
        r->n_tests += selftest_row_is_test(row);
        r->n_failed += selftest_row_failed(row);
        r->n_skipped += json_object_get(row, "skipped") != NULL;
    }
}

/* The stage of the first row that failed: an error further up the chain makes those behind it. */
static const char *first_failure(const json_t *rows, const char **ret_worker, const char **ret_model)
{
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row)
    {
        if (!selftest_row_failed(row))
            continue;
        *ret_worker = json_string_value(json_object_get(row, "worker"));
        *ret_model = json_string_value(json_object_get(row, "model"));
        return json_string_value(json_object_get(row, "stage"));
    }
    return NULL;
}

/* Of the rows that count what is equal. */
static void count_equal(const json_t *rows, size_t *ret_equal, size_t *ret_n)
{
    size_t i;
    json_t *row;

    *ret_equal = *ret_n = 0;
    json_array_foreach(rows, i, row)
    {
        if (!json_object_get(row, "equal"))
            continue;
        *ret_equal += (size_t)json_integer_value(json_object_get(row, "equal"));
        *ret_n += (size_t)json_integer_value(json_array_get(json_object_get(row, "shape"), 0));
    }
}

static void verdict(const struct outcome *r, char *ret, size_t size)
{
    const char *worker = "?", *model = "?", *stage = first_failure(r->rows, &worker, &model);
    const char *subject = r->demo ? "BLIP-2" : "this model";
    size_t equal, n;
    int at;

    if (stage) {
        (void)snprintf(ret, size,
                       "this machine does NOT compute %s right: %zu of %zu tests failed, the first is %s (%s, %s)",
                       subject, r->n_failed, r->n_tests, stage, worker, model);
        return;
    }
    count_equal(r->rows, &equal, &n);
    at = snprintf(ret, size, "this machine computes %s right: %zu tests in %s passed", subject, r->n_tests, r->dtype);
    if (n && (size_t)at < size)
        at += snprintf(ret + at, size - (size_t)at, ", %zu of %zu sequences and scores are the reference's", equal, n);
    if ((size_t)at < size)
        (void)snprintf(ret + at, size - (size_t)at, " (%.1f s)", r->seconds);
}

static void print_words(const struct outcome *r, bool every_row)
{
    const json_t *machine = machine_of(r->rows);
    char text[512];

    selftest_table_print(r->rows, every_row, stdout);
    printf("machine: %s, %s, %s, %lld threads\n", machine_text(machine, "cpu"), machine_text(machine, "isa"),
           machine_text(machine, "library"), (long long)json_integer_value(json_object_get(machine, "threads")));
    printf("%zu of %zu passed", r->n_tests - r->n_failed, r->n_tests);
    if (r->n_failed)
        printf(", %zu FAILED", r->n_failed);
    verdict(r, text, sizeof(text));
    printf("\n%s\n", text);
}

static void print_json(const struct outcome *r)
{
    json_t *machine = json_deep_copy(machine_of(r->rows)), *rows = json_array(), *row, *all;
    char text[512];
    size_t i;

    json_array_foreach(r->rows, i, row)
    {
        if (!json_object_get(row, "machine"))
            (void)json_array_append(rows, row);
    }
    verdict(r, text, sizeof(text));
    all =
        json_pack("{s:b, s:s, s:o*, s:s, s:I, s:I, s:I, s:f, s:o}", "pass", r->n_failed == 0, "verdict", text,
                  "machine", machine, "dtype", r->dtype, "n_rows", (json_int_t)json_array_size(rows), "n_failed",
                  (json_int_t)r->n_failed, "n_skipped", (json_int_t)r->n_skipped, "seconds", r->seconds, "rows", rows);
    if (all)
        (void)json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static int show(struct outcome *r, const struct selftest_options *o)
{
    count(r);
    if (o->json)
        print_json(r);
    else
        print_words(r, o->verbose);
    if (fflush(stdout) != 0) {
        cli_error("selftest: standard output: %s", strerror(errno));
        return CLI_EXIT_ERROR;
    }
    return r->n_failed || r->n_tests == 0 ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct selftest_options o = {.dtype = "fp32"};
    int n_args = cli_parse(self, argc, argv, &o), signal_number = 0, rc;
    const int64_t start_ns = clock_mono_ns();
    struct outcome r = {.demo = n_args == 0};
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (n_args == 0 && (o.golden || o.images)) {
        cli_error("selftest: --golden and --images belong to a checkpoint: blipline selftest MODEL_DIR --golden DIR");
        return CLI_EXIT_USAGE;
    }
    r.rows = json_array();
    r.dtype = o.dtype;
    if (r.demo)
        rc = run_demo(&o, r.rows, &signal_number, &err);
    else
        rc = run_model(
            &o, &(struct selftest_run){.model_dir = argv[argc - 1], .golden_dir = o.golden, .images_dir = o.images},
            r.rows, &signal_number, &err);
    r.seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    if (rc < 0 && !signal_number)
        cli_error("selftest: %s", err.text[0] ? err.text : strerror(-rc));
    if (rc < 0)
        rc = signal_number ? 128 + signal_number : CLI_EXIT_ERROR;
    else
        rc = show(&r, &o);
    json_decref(r.rows);
    return rc;
}

const struct cli_command cmd_selftest = {
    .name = "selftest",
    .line = "does this machine compute BLIP-2 right?",
    .usage = "[MODEL_DIR [--golden DIR] [--images DIR]] [--dtype fp32|bf16] [--json]",
    .about =
        "Without a checkpoint: takes the demo models and the example pictures through every stage, and through real\n"
        "jobs from picture file to store, and compares with what the reference (Hugging Face transformers, fp32) made\n"
        "of them: tensors after each stage within 1e-5, token ids, texts and sequence scores of 48 sets of prompts "
        "and\n"
        "decoding options, probabilities of sampling, captions, answers to questions, ITC and ITM scores. Some "
        "seconds\n"
        "on two cores.\n\n"
        "With one: runs the self-test of every worker (blipline-encoder, -qformer, -llm with -t) on a checkpoint for\n"
        "which there are reference results. A golden folder holds expected.json (pictures, token ids, tokenizer "
        "cases)\n"
        "and expected.safetensors (the tensors); tests/golden/make_golden.py makes them for any checkpoint.\n\n"
        "Errors of tensors are relative, of the whole tensor in the Euclidean norm; those of scores are absolute "
        "where\n"
        "scores are below 1. Exit code 0 only if everything passed.",
    .examples = "Examples:\n"
                "  blipline selftest\n"
                "  blipline selftest --dtype bf16\n"
                "  blipline selftest tests/golden/t5_a",
    .options = options,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
