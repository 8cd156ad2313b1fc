#include "client/selftest/selftest_table.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { MAX_LINES = 512, MAX_NAME = 160, SHOWN_FAILURES = 5, WIDEST_NAME = 56 /* longer ones push their own line */ };

struct line {
    char name[MAX_NAME];
    const char *model, *worker;
    int n_rows, n_failed;
    long long n_items, n_equal;
    bool has_equal;
    double worst, limit; /* NAN: none */
    double seconds;
};

/* What a stage is called. */
static const struct {
    const char *stage, *name;
} names[] = {
    {"vision_last_hidden_state", "pictures to vision features"},
    {"qformer_last_hidden_state", "query outputs"},
    {"language_projection", "projected queries"},
    {"first_logits_none", "logits without a prompt"},
    {"first_logits_photo", "logits after a prompt"},
    {"first_logits_question", "logits after a question"},
    {"itc_image_embeds", "ITC image embeddings"},
    {"itc_text_embeds", "ITC text embeddings"},
    {"itc_similarity", "ITC similarities"},
    {"itm_logits", "ITM logits"},
};

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text ? text : "?";
}

bool selftest_row_is_test(const json_t *row)
{
    return !json_object_get(row, "machine") && !json_object_get(row, "skipped");
}

bool selftest_row_failed(const json_t *row)
{
    return selftest_row_is_test(row) && !json_is_true(json_object_get(row, "pass"));
}

static bool is_decoding(const json_t *row)
{
    const char *stage = json_string_value(json_object_get(row, "stage"));

    return stage && strncmp(stage, "ids ", 4) == 0;
}

static void name_row(const json_t *row, bool every_row, char *ret, size_t size)
{
    const char *stage = text_of(row, "stage");

    if (is_decoding(row) && !every_row) {
        (void)snprintf(ret, size, "decoding");
        return;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(stage, names[i].stage) == 0)
            stage = names[i].name;
    (void)snprintf(ret, size, "%s", is_decoding(row) ? stage + 4 : stage);
}

static long long n_items(const json_t *row)
{
    return json_integer_value(json_array_get(json_object_get(row, "shape"), 0));
}

static double number_of(const json_t *row, const char *key)
{
    const json_t *v = json_object_get(row, key);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static bool same_line(const struct line *l, const json_t *row, const char *name)
{
    return strcmp(l->name, name) == 0 && strcmp(l->model, text_of(row, "model")) == 0 &&
           strcmp(l->worker, text_of(row, "worker")) == 0;
}

static void add(struct line *l, const json_t *row)
{
    const json_t *equal = json_object_get(row, "equal");

    l->n_rows++;
    l->n_failed += selftest_row_failed(row);
    l->n_items += n_items(row);
    l->has_equal |= equal != NULL;
    l->n_equal += json_integer_value(equal);
    l->worst = fmax(l->worst, number_of(row, "relative_error")); /* fmax passes over NAN */
    l->limit = fmax(l->limit, number_of(row, "limit"));
    l->seconds += json_number_value(json_object_get(row, "seconds"));
}

static int gather(const json_t *rows, bool every_row, struct line *lines)
{
    char name[MAX_NAME];
    int n = 0, at;
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row)
    {
        if (!selftest_row_is_test(row))
            continue;
        name_row(row, every_row, name, sizeof(name));
        for (at = 0; at < n && !same_line(&lines[at], row, name);)
            at++;
        if (at == MAX_LINES)
            break;
        if (at == n) {
            lines[n] = (struct line){
                .model = text_of(row, "model"), .worker = text_of(row, "worker"), .worst = NAN, .limit = NAN};
            (void)snprintf(lines[n++].name, MAX_NAME, "%s", name);
        }
        add(&lines[at], row);
    }
    return n;
}

static void how_many(const struct line *l, char *ret, size_t size)
{
    int n = 0;

    if (l->n_rows > 1)
        n = snprintf(ret, size, "%d option sets, ", l->n_rows);
    if (l->has_equal)
        (void)snprintf(ret + n, size - (size_t)n, "%lld of %lld equal", l->n_equal, l->n_items);
    else
        (void)snprintf(ret + n, size - (size_t)n, "%lld", l->n_items);
}

static void number_text(double v, char *ret, size_t size)
{
    if (isnan(v))
        (void)snprintf(ret, size, "-");
    else
        (void)snprintf(ret, size, "%.1e", v);
}

/* The rows behind a line that failed. */
static void print_failures(const json_t *rows, const struct line *l, bool every_row, FILE *out)
{
    char name[MAX_NAME];
    int n = 0;
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row)
    {
        if (!selftest_row_failed(row))
            continue;
        name_row(row, every_row, name, sizeof(name));
        if (!same_line(l, row, name) || n++ >= SHOWN_FAILURES)
            continue;
        if (l->n_rows > 1)
            fprintf(out, "      %s\n", text_of(row, "stage") + (is_decoding(row) ? 4 : 0));
        if (json_object_get(row, "detail"))
            fprintf(out, "      %s\n", text_of(row, "detail"));
    }
    if (n > SHOWN_FAILURES)
        fprintf(out, "      and %d more (--verbose)\n", n - SHOWN_FAILURES);
}

/* Rows skipped for the same reason are one line. */
static void print_skipped(const json_t *rows, FILE *out)
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
    json_object_foreach(reasons, reason, n)
    {
        fprintf(out, "%lld skipped: %s\n", (long long)json_integer_value(n), reason);
    }
    json_decref(reasons);
}

void selftest_table_print(const json_t *rows, bool every_row, FILE *out)
{
    struct line lines[MAX_LINES];
    const int n = gather(rows, every_row, lines);
    int name_width = (int)strlen("stage"), model_width = (int)strlen("model");

    for (int i = 0; i < n; i++) {
        if ((int)strlen(lines[i].name) > name_width && strlen(lines[i].name) <= WIDEST_NAME)
            name_width = (int)strlen(lines[i].name);
        if ((int)strlen(lines[i].model) > model_width)
            model_width = (int)strlen(lines[i].model);
    }
    fprintf(out, "%-*s  %-8s %-*s  %-36s %11s %8s %7s\n", model_width, "model", "worker", name_width, "stage",
            "how many", "worst error", "limit", "time");
    for (int i = 0; i < n; i++) {
        const struct line *l = &lines[i];
        char many[64], worst[24], limit[24];

        how_many(l, many, sizeof(many));
        number_text(l->worst, worst, sizeof(worst));
        number_text(l->limit, limit, sizeof(limit));
        fprintf(out, "%-*s  %-8s %-*s  %-36s %11s %8s %5.1f s  %s\n", model_width, l->model, l->worker, name_width,
                l->name, many, worst, limit, l->seconds, l->n_failed ? "FAILED" : "ok");
        print_failures(rows, l, every_row, out);
    }
    print_skipped(rows, out);
}
