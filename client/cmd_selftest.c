/* cmd_selftest.c - `blipline selftest`: does this machine compute what the reference computed? */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "client/selftest_run.h"

struct selftest_options {
    const char *golden, *images;
    bool json;
};

static const struct cli_option options[] = {
    {"golden", 0, CLI_TEXT, offsetof(struct selftest_options, golden), "DIR",
     "reference data: expected.json and expected.safetensors (default: MODEL_DIR itself)", 0, 0, NULL},
    {"images", 0, CLI_TEXT, offsetof(struct selftest_options, images), "DIR",
     "where the pictures named in expected.json are (default: images/ in the golden folder, or the odd pictures beside "
     "it)",
     0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct selftest_options, json), NULL, "one JSON object instead of the table", 0, 0,
     NULL},
    {0},
};

static void shape_text(const json_t *shape, char *ret, size_t ret_size)
{
    size_t n = 0, i;
    json_t *v;

    ret[0] = '\0';
    json_array_foreach(shape, i, v)
    {
        if (n < ret_size)
            n += (size_t)snprintf(ret + n, ret_size - n, "%s%lld", i ? "x" : "", (long long)json_integer_value(v));
    }
    if (json_is_string(shape))
        (void)snprintf(ret, ret_size, "%s", json_string_value(shape));
}

static void number_text(const json_t *v, char *ret, size_t ret_size)
{
    if (json_is_number(v))
        (void)snprintf(ret, ret_size, "%.1e", json_number_value(v));
    else
        (void)snprintf(ret, ret_size, "%s", json_is_string(v) ? json_string_value(v) : "-");
}

static bool row_failed(const json_t *row)
{
    return !json_object_get(row, "skipped") && !json_is_true(json_object_get(row, "pass"));
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text ? text : "?";
}

static void print_row(const json_t *row, int stage_width)
{
    char shape[64], error[32], limit[32];

    shape_text(json_object_get(row, "shape"), shape, sizeof(shape));
    number_text(json_object_get(row, "relative_error"), error, sizeof(error));
    number_text(json_object_get(row, "limit"), limit, sizeof(limit));
    printf("%-8s %-*s %-14s %14s %9s  %s\n", text_of(row, "worker"), stage_width, text_of(row, "stage"), shape, error,
           limit, row_failed(row) ? "FAIL" : "ok");
    if (row_failed(row) && json_is_string(json_object_get(row, "detail")))
        printf("         %s\n", text_of(row, "detail"));
}

/* Rows skipped for the same reason are one line. */
static void print_skipped(const json_t *rows)
{
    json_t *reasons = json_object(), *row, *n;
    const char *reason;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        if (!json_object_get(row, "skipped"))
            continue;
        reason = text_of(row, "skipped");
        n = json_object_get(reasons, reason);
        (void)json_object_set_new(reasons, reason, json_integer(json_integer_value(n) + 1));
    }
    for (void *at = json_object_iter(reasons); at; at = json_object_iter_next(reasons, at))
        printf("%lld skipped: %s (--json names them)\n", (long long)json_integer_value(json_object_iter_value(at)),
               json_object_iter_key(at));
    json_decref(reasons);
}

static void print_table(const json_t *rows, size_t n_failed, size_t n_skipped)
{
    int width = (int)strlen("stage");
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row)
    {
        int n = (int)strlen(text_of(row, "stage"));

        if (!json_object_get(row, "skipped") && n > width)
            width = n;
    }
    printf("%-8s %-*s %-14s %14s %9s\n", "worker", width, "stage", "shape", "relative error", "limit");
    json_array_foreach(rows, i, row)
    {
        if (!json_object_get(row, "skipped"))
            print_row(row, width);
    }
    print_skipped(rows);
    printf("%zu of %zu passed", json_array_size(rows) - n_failed - n_skipped, json_array_size(rows) - n_skipped);
    if (n_failed)
        printf(", %zu FAILED", n_failed);
    putchar('\n');
}

static int show(json_t *rows, bool as_json)
{
    size_t n_failed = 0, n_skipped = 0, i;
    json_t *row, *all;

    json_array_foreach(rows, i, row)
    {
        n_failed += row_failed(row);
        n_skipped += json_object_get(row, "skipped") != NULL;
    }
    if (as_json) {
        all = json_pack("{s:b, s:I, s:I, s:I, s:O}", "pass", n_failed == 0, "n_rows", (json_int_t)json_array_size(rows),
                        "n_failed", (json_int_t)n_failed, "n_skipped", (json_int_t)n_skipped, "rows", rows);
        if (all)
            (void)json_dumpf(all, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(all);
    } else {
        print_table(rows, n_failed, n_skipped);
    }
    if (fflush(stdout) != 0) {
        cli_error("selftest: standard output: %s", strerror(errno));
        return CLI_EXIT_ERROR;
    }
    return n_failed ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct selftest_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o);
    struct selftest_run t = {0};
    json_t *rows;
    struct err err;
    int rc;

    if (n_args < 0)
        return cli_exit_code(n_args);
    t = (struct selftest_run){.model_dir = argv[argc - 1], .golden_dir = o.golden, .images_dir = o.images};
    err.text[0] = '\0';
    rc = selftest_run(&t, &rows, &err);
    if (rc < 0 && t.signal_number)
        return 128 + t.signal_number;
    if (rc < 0) {
        cli_error("selftest: %s", err.text[0] ? err.text : strerror(-rc));
        return CLI_EXIT_ERROR;
    }
    rc = show(rows, o.json);
    json_decref(rows);
    return rc;
}

const struct cli_command cmd_selftest = {
    .name = "selftest",
    .line = "compare every stage of a model with reference data",
    .usage = "MODEL_DIR [--golden DIR] [--images DIR] [--json]",
    .about = "Runs the self-test of every worker (blipline-encoder, -qformer, -llm with -t) on a checkpoint for which\n"
             "there are reference results: the tensors after each stage must agree within the limit, token ids and\n"
             "tokenizer cases must be equal. Prints stage, shape, relative error (of the whole tensor, in the\n"
             "Euclidean norm) and limit. Exit code 0 only if everything passed.\n\n"
             "A golden folder holds a checkpoint, expected.json (pictures, token ids, tokenizer cases) and\n"
             "expected.safetensors (the tensors); where the reference data lie elsewhere, name them with --golden.",
    .examples = "Example:\n  blipline selftest tests/golden/opt_a",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
