/* cmd_selftest.c - `blipline selftest`: compares this machine's results with the reference. */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "console/answer.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "local/devices.h"
#include "recipe/home.h"
#include "client/selftest/selftest_demo.h"
#include "client/selftest/selftest_job.h"
#include "client/selftest/selftest_run.h"
#include "client/selftest/selftest_table.h"

enum { MAX_THREADS = 1024 };

struct selftest_options {
    const char *golden, *images, *device, *cuda_library, *cpu_isa, *dtype;
    int64_t threads;
    bool json, verbose;
};

static const struct cli_option options[] = {
    {"golden", 0, CLI_TEXT, offsetof(struct selftest_options, golden), "DIR",
     "reference data: expected.json and expected.safetensors (default: MODEL_DIR)", 0, 0, NULL},
    {"images", 0, CLI_TEXT, offsetof(struct selftest_options, images), "DIR",
     "the pictures that expected.json names (default: images/ in the golden folder, or the odd pictures beside it)", 0,
     0, NULL},
    {"dtype", 0, CLI_CHOICE, offsetof(struct selftest_options, dtype), "TYPE",
     "fp32 (default); bf16, if the processor has it; fp16 and fp8 on GPUs (the Q-Former then uses bf16). The "
     "limits depend on the type; those of fp8 are so wide that only nonsense exceeds them. Differing token ids and "
     "texts are failures for fp32; for other types they are only counted",
     0, 0, "fp32 bf16 fp16 fp8"},
    {"device", 0, CLI_TEXT, offsetof(struct selftest_options, device), "DEVICE",
     "cpu (default), auto (the first GPU, otherwise the CPU), or a GPU: cuda:N, or GPU-... as blipline devices "
     "lists them",
     0, 0, NULL},
    {"cuda-library", 0, CLI_TEXT, offsetof(struct selftest_options, cuda_library), "FILE",
     "the CUDA operators (default: libblipline-cuda.so beside the programs, or in ../lib/blipline)", 0, 0, NULL},
    {"cpu-isa", 0, CLI_CHOICE, offsetof(struct selftest_options, cpu_isa), "LEVEL",
     "which vector instructions of the CPU to use (default: the best it has)", 0, 0, "auto base avx2 avx512"},
    {"threads", 't', CLI_NUMBER, offsetof(struct selftest_options, threads), "N",
     "threads for computing (default: the workers' own; the jobs use every CPU)", 1, MAX_THREADS, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct selftest_options, json), NULL,
     "print one JSON object instead of the table (blipline help json)", 0, 0, NULL},
    {"verbose", 'v', CLI_FLAG, offsetof(struct selftest_options, verbose), NULL,
     "print one line for each set of decoding options", 0, 0, NULL},
    {0},
};

struct outcome {
    json_t *rows;
    size_t n_tests, n_failed, n_skipped;
    double seconds;
    const char *dtype;
    const char *device;
    bool demo;
};

/* -- running -- */

static int run_model(const struct selftest_options *o, const struct device_choice *d, const struct selftest_run *what,
                     json_t *rows, int *ret_signal, struct err *err)
{
    struct selftest_run t = *what;
    int rc;

    t.device = d->names[0];
    t.cuda_library = d->library;
    t.dtype = o->dtype;
    t.cpu_isa = d->cpu_isa;
    t.n_threads = (int)o->threads;
    rc = selftest_run(&t, rows, err);
    *ret_signal = t.signal_number;
    return rc;
}

static int run_demo(const struct selftest_options *o, const struct device_choice *d, json_t *rows, int *ret_signal,
                    struct err *err)
{
    struct selftest_demo demo;
    struct selftest_job job = {.demo = &demo,
                               .device = d->names[0],
                               .cuda_library = d->library,
                               .dtype = o->dtype,
                               .cpu_isa = d->cpu_isa,
                               .n_threads = (int)o->threads};
    int rc = selftest_demo_find(&demo, err);

    if (rc == 0)
        rc = run_model(o, d,
                       &(struct selftest_run){.model_dir = demo.caption_model,
                                              .golden_dir = demo.caption_golden,
                                              .images_dir = demo.images,
                                              .sampler_path = demo.sampler},
                       rows, ret_signal, err);
    if (rc == 0)
        rc = run_model(o, d,
                       &(struct selftest_run){
                           .model_dir = demo.score_model, .golden_dir = demo.score_golden, .images_dir = demo.images},
                       rows, ret_signal, err);
    if (rc == 0) {
        rc = selftest_job(&job, rows, err);
        *ret_signal = job.signal_number;
    }
    return rc;
}

/* -- reporting -- */

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

/* The stage of the first row that failed: later failures follow from it. */
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

/* Sums over the rows that count equal results. */
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
                       "this machine does NOT compute %s correctly: %zu of %zu tests failed, first: %s (%s, %s)",
                       subject, r->n_failed, r->n_tests, stage, worker, model);
        return;
    }
    count_equal(r->rows, &equal, &n);
    at = snprintf(ret, size, "this machine computes %s correctly: %zu tests in %s passed", subject, r->n_tests,
                  r->dtype);
    if (n && (size_t)at < size)
        at += snprintf(ret + at, size - (size_t)at, ", %zu of %zu sequences and scores equal those of the reference",
                       equal, n);
    if ((size_t)at < size)
        (void)snprintf(ret + at, size - (size_t)at, " (%.1f s)", r->seconds);
}

static void print_words(const struct outcome *r, bool every_row)
{
    const json_t *machine = machine_of(r->rows);
    char text[512];

    selftest_table_print(r->rows, every_row, stdout);
    if (strcmp(r->device, "cpu") != 0)
        printf("device: %s\n", r->device);
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
    all = json_pack("{s:b, s:s, s:o*, s:s, s:s, s:I, s:I, s:I, s:f, s:o}", "pass", r->n_failed == 0, "verdict", text,
                    "machine", machine, "device", r->device, "dtype", r->dtype, "n_rows",
                    (json_int_t)json_array_size(rows), "n_failed", (json_int_t)r->n_failed, "n_skipped",
                    (json_int_t)r->n_skipped, "seconds", r->seconds, "rows", rows);
    answer_print("selftest", all, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
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

/* Chooses one device that supports the type. Returns the exit code; errors have been printed. */
static int choose_device(const struct selftest_options *o, struct device_choice *ret)
{
    static struct devices have; /* large for a stack */
    struct err err = {""};
    int rc;

    devices_find(o->cuda_library, &have);
    rc = devices_choose(&have, o->device, o->cuda_library, ret, &err);
    if (rc == 0 && o->cpu_isa)
        rc = devices_choose_isa(o->cpu_isa, &ret->cpu_isa, &err);
    if (rc < 0) {
        cli_error("selftest: %s", err.text);
        return cli_exit_of(rc);
    }
    if (ret->kind == DEVICE_NULL || (ret->n > 1 && strcmp(o->device, "auto") != 0)) {
        cli_error("selftest: --device %s: expected one CPU or GPU", o->device);
        return CLI_EXIT_USAGE;
    }
    if (ret->kind == DEVICE_CPU && (strcmp(o->dtype, "fp16") == 0 || strcmp(o->dtype, "fp8") == 0)) {
        cli_error("selftest: --dtype %s: CPUs compute in fp32, some also in bf16; add --device cuda:0", o->dtype);
        return CLI_EXIT_USAGE;
    }
    if (ret->note[0])
        cli_error("%s", ret->note);
    return CLI_EXIT_OK;
}

static bool is_there(const char *option, const char *path)
{
    if (!path || access(path, F_OK) == 0)
        return true;
    cli_error("selftest: %s %s: %s", option, path, strerror(errno));
    return false;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    static struct device_choice device; /* large for a stack */
    struct selftest_options o = {.dtype = "fp32", .device = "cpu"};
    int n_args = cli_parse(self, argc, argv, &o), signal_number = 0, rc;
    const int64_t start_ns = clock_mono_ns();
    struct outcome r = {.demo = n_args == 0, .dtype = o.dtype, .device = device.names[0]};
    struct err err = {""};
    char model[PATH_MAX];

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (n_args == 0 && (o.golden || o.images)) {
        cli_error("selftest: --golden and --images belong to a checkpoint: blipline selftest MODEL_DIR --golden DIR");
        return CLI_EXIT_USAGE;
    }
    if (!is_there("--golden", o.golden) || !is_there("--images", o.images))
        return CLI_EXIT_USAGE;
    if (n_args && home_model("MODEL_DIR", argv[argc - 1], model, &err) < 0) {
        cli_error("selftest: %s", err.text);
        return CLI_EXIT_USAGE;
    }
    rc = choose_device(&o, &device);
    if (rc != CLI_EXIT_OK)
        return rc;
    r.rows = json_array();
    if (r.demo)
        rc = run_demo(&o, &device, r.rows, &signal_number, &err);
    else
        rc = run_model(&o, &device,
                       &(struct selftest_run){.model_dir = model, .golden_dir = o.golden, .images_dir = o.images},
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
    .line = "test whether this machine computes BLIP-2 correctly",
    .usage = "[MODEL_DIR [--golden DIR] [--images DIR]] [--device NAME] [--dtype TYPE] [--json]",
    .about = HELP_SELFTEST,
    .examples = HELP_SELFTEST_EXAMPLES,
    .options = options,
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
