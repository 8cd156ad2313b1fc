#include "client/selftest/selftest_job.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "local/program.h"
#include "store/reader.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MAX_ARGS = 40, MAX_LIST_BYTES = 1 << 20 };

/* The reference's scores (MODEL.md "Precision"); those of coarse types are as far off as these are. */
static const struct {
    const char *dtype;
    double limit;
} score_limits[] = {{"fp32", 1e-3}, {"fp16", 1e-2}, {"bf16", 5e-2}, {"fp8", 0.5}};

/* A number a kind of answer. */
enum { KIND_CAPTION, KIND_ANSWER, KIND_ITC, KIND_ITM, KIND_SAME, N_KINDS };

static const struct job {
    const char *name; /* of its store */
    const char *const args[12];
    const char *caption; /* the answer that its first prompt's caption is compared with */
    bool questions;      /* its second prompt asks what the list asks */
    bool scores;         /* of given texts */
    const char *unit;    /* pictures of a unit; NULL: 4 */
    const char *same_as; /* a job that was run before this one, on the CPU: its records must be the same to the bit */
    const char *stages[N_KINDS];
} jobs[] = {
    {.name = "greedy", .args = {NULL}, .caption = "greedy", .stages = {"captions, greedy"}},
    {.name = "beams",
     .args = {"--beams=5", "--score=itc,itm", "--text-field=text", NULL},
     .caption = "beam5",
     .scores = true,
     .stages = {"captions, 5 beams", NULL, "ITC similarities", "ITM probabilities"}},
    {.name = "prompts",
     .args = {"--prompt=a photo of", "--question={question}", NULL},
     .caption = "photo",
     .questions = true,
     .stages = {"captions after a prompt", "answers to questions"}},
    {.name = "again",
     .args = {"--beams=5", "--score=itc,itm", "--text-field=text", NULL},
     .caption = "beam5",
     .scores = true,
     .unit = "7",
     .same_as = "beams",
     .stages = {[KIND_SAME] = "the same bytes in other units, on one thread"}},
};

/* What one kind of answer has come to. */
struct tally {
    int n, n_equal;
    double worst;
    char detail[256];
};

struct state {
    struct selftest_job *t;
    struct program_dir place;
    json_t *answers;
    char list[RUNDIR_MAX + 32];
};

/* -- the list: key, picture, questions, texts -- */

static json_t *questions_of(const json_t *answer)
{
    json_t *all = json_array(), *pair;
    size_t i;

    json_array_foreach(json_object_get(answer, "vqa"), i, pair)
    {
        (void)json_array_append(all, json_array_get(pair, 0));
    }
    return all;
}

static int write_list(struct state *s, struct err *err)
{
    struct buf text;
    const char *name;
    json_t *answer;
    int rc = 0;

    buf_init(&text, MAX_LIST_BYTES);
    json_object_foreach(s->answers, name, answer)
    {
        json_t *row = json_pack("{s:s, s:o, s:O*}", "key", name, "question", questions_of(answer), "text",
                                json_object_get(answer, "score_texts"));
        char *line = NULL;

        if (row && json_object_set_new(row, "path", json_sprintf("%s/%s", s->t->demo->images, name)) == 0)
            line = json_dumps(row, JSON_COMPACT);
        rc = line ? buf_appendf(&text, "%s\n", line) : -ENOMEM;
        free(line);
        json_decref(row);
        if (rc < 0)
            break;
    }
    rundir_file(&s->place.rundir, "pictures.jsonl", s->list, sizeof(s->list));
    rc = rc < 0 ? err_set(err, rc, "%s: %s", s->t->demo->answers, strerror(-rc))
                : file_write_atomic(s->list, text.data, text.size_bytes, err);
    buf_release(&text);
    return rc;
}

static int load_answers(struct state *s, struct err *err)
{
    json_error_t where;

    s->answers = json_load_file(s->t->demo->answers, 0, &where);
    if (!json_is_object(s->answers) || json_object_size(s->answers) == 0)
        return err_set(err, -EINVAL, "%s: line %d: %s", s->t->demo->answers, s->answers ? 1 : where.line,
                       s->answers ? "no answers" : where.text);
    return 0;
}

/* -- comparing -- */

static double score_limit(const char *dtype)
{
    for (size_t i = 0; i < sizeof(score_limits) / sizeof(score_limits[0]); i++)
        if (strcmp(score_limits[i].dtype, dtype) == 0)
            return score_limits[i].limit;
    return 0; /* no score passes */
}

static void tell(struct tally *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void tell(struct tally *t, const char *fmt, ...)
{
    va_list ap;

    if (t->detail[0])
        return;
    va_start(ap, fmt);
    (void)vsnprintf(t->detail, sizeof(t->detail), fmt, ap);
    va_end(ap);
}

static void compare_text(struct tally *t, const char *key, const char *wanted, const struct row_caption *c)
{
    const bool equal = wanted && c->text_bytes == strlen(wanted) && memcmp(c->text, wanted, c->text_bytes) == 0;

    t->n++;
    t->n_equal += equal;
    if (!equal)
        tell(t, "%s: \"%.*s\", wanted \"%s\"", key, (int)(c->text_bytes < 80 ? c->text_bytes : 80),
             (const char *)c->text, wanted ? wanted : "nothing");
}

static void compare_score(struct tally *t, const char *key, const json_t *wanted, bool has, float score, double limit)
{
    const double w = json_is_number(wanted) ? json_number_value(wanted) : NAN;
    const double off = has ? fabs((double)score - w) : NAN;

    t->n++;
    t->n_equal += off <= limit;
    if (!(off <= t->worst))
        t->worst = off;
    if (!(off <= limit))
        tell(t, "%s: %.7g, wanted %.7g", key, has ? (double)score : NAN, w);
}

static void compare_record(const struct state *s, const struct job *job, const json_t *answer, const char *key,
                           const struct row_record *r, struct tally *tallies)
{
    const double limit = score_limit(s->t->dtype);
    size_t n_answers = 0, n_texts = 0;

    for (uint32_t i = 0; i < r->n_captions; i++) {
        const struct row_caption *c = &r->captions[i];

        if (c->given) {
            compare_score(&tallies[KIND_ITC], key, json_array_get(json_object_get(answer, "itc"), n_texts), c->has_itc,
                          c->itc, limit);
            compare_score(&tallies[KIND_ITM], key, json_array_get(json_object_get(answer, "itm"), n_texts++),
                          c->has_itm, c->itm, limit);
        } else if (c->prompt == 0) {
            compare_text(&tallies[KIND_CAPTION], key, json_string_value(json_object_get(answer, job->caption)), c);
        } else {
            const json_t *pair = json_array_get(json_object_get(answer, "vqa"), n_answers++);

            compare_text(&tallies[KIND_ANSWER], key, json_string_value(json_array_get(pair, 2)), c);
        }
    }
}

/* How many of each kind the answers have, so that a missing one is seen. */
static void count_wanted(const struct state *s, const struct job *job, int ret[N_KINDS])
{
    const char *name;
    json_t *answer;

    memset(ret, 0, N_KINDS * sizeof(ret[0]));
    json_object_foreach(s->answers, name, answer)
    {
        ret[KIND_CAPTION]++;
        ret[KIND_SAME]++;
        ret[KIND_ANSWER] += job->questions ? (int)json_array_size(json_object_get(answer, "vqa")) : 0;
        ret[KIND_ITC] += job->scores ? (int)json_array_size(json_object_get(answer, "itc")) : 0;
        ret[KIND_ITM] += job->scores ? (int)json_array_size(json_object_get(answer, "itm")) : 0;
    }
}

static int compare_store(const struct state *s, const struct job *job, const char *store, struct tally *tallies,
                         struct err *err)
{
    struct reader *r = NULL;
    struct reader_row row;
    int rc = reader_open(store, true, &r, err);

    while (rc == 0 && (rc = reader_next(r, &row, err)) == 1) {
        char key[256];
        const json_t *answer;

        (void)snprintf(key, sizeof(key), "%.*s", (int)row.listed.key_bytes, (const char *)row.listed.key);
        answer = json_object_get(s->answers, key);
        if (!row.has_record || row.record.failed)
            tell(&tallies[KIND_CAPTION], "%s: %s", key, row.has_record ? row.record.error_code : "not done");
        else if (answer)
            compare_record(s, job, answer, key, &row.record, tallies);
        rc = 0;
    }
    reader_close(r);
    return rc;
}

/* Their numbers are finite. */
static bool same_caption(const struct row_caption *a, const struct row_caption *b)
{
    return a->text_bytes == b->text_bytes && memcmp(a->text, b->text, a->text_bytes) == 0 && a->logprob == b->logprob &&
           a->has_itc == b->has_itc && a->itc == b->itc && a->itm == b->itm;
}

static bool same_record(const struct row_record *a, const struct row_record *b)
{
    bool same = a->n_captions == b->n_captions && !a->failed && !b->failed;

    for (uint32_t i = 0; same && i < a->n_captions; i++)
        same = same_caption(&a->captions[i], &b->captions[i]);
    return same;
}

/* Items are in the list's order in both. */
static int compare_stores(const char *store, const char *other, struct tally *t, struct err *err)
{
    struct reader *a = NULL, *b = NULL;
    struct reader_row row, row_b;
    int rc = reader_open(store, true, &a, err);

    if (rc == 0)
        rc = reader_open(other, true, &b, err);
    while (rc == 0 && (rc = reader_next(a, &row, err)) == 1 && (rc = reader_next(b, &row_b, err)) == 1) {
        const bool same = row.has_record && row_b.has_record && same_record(&row.record, &row_b.record);

        t->n++;
        t->n_equal += same;
        if (!same)
            tell(t, "%.*s: another record", (int)row.listed.key_bytes, (const char *)row.listed.key);
        rc = 0;
    }
    reader_close(a);
    reader_close(b);
    return rc;
}

/* -- running -- */

static int run_caption(struct state *s, const struct job *job, const char *store, struct err *err)
{
    char list[RUNDIR_MAX + 40], threads[24], how[512];
    const char *args[MAX_ARGS] = {"caption",
                                  list,
                                  "-o",
                                  store,
                                  "--model",
                                  s->t->demo->caption_model,
                                  "--dtype",
                                  s->t->dtype,
                                  "--max-new-tokens=24",
                                  "--device",
                                  s->t->device,
                                  "--unit",
                                  job->unit ? job->unit : "4"};
    struct program program = {.name = "blipline", .args = args, .stop_signal = SIGTERM};
    const int n_threads = job->same_as ? 1 : s->t->n_threads;
    int n = 13, rc;

    (void)snprintf(list, sizeof(list), "@%s", s->list);
    for (int i = 0; job->args[i]; i++)
        args[n++] = job->args[i];
    if (job->scores) {
        args[n++] = "--score-model";
        args[n++] = s->t->demo->score_model;
    }
    if (n_threads > 0) {
        (void)snprintf(threads, sizeof(threads), "--threads=%d", n_threads);
        args[n++] = threads;
    }
    if (s->t->cpu_isa != CPU_ISA_AUTO) {
        args[n++] = "--cpu-isa";
        args[n++] = cpu_isa_name(s->t->cpu_isa);
    }
    if (s->t->cuda_library[0]) {
        args[n++] = "--cuda-library";
        args[n++] = s->t->cuda_library;
    }
    rc = program_run(&s->place, &program, err);
    /* 3: some pictures failed, which the comparison says better */
    if (rc == 0 &&
        !(WIFEXITED(program.status) && (WEXITSTATUS(program.status) == 0 || WEXITSTATUS(program.status) == 3)))
        rc = err_set(err, -EIO, "blipline caption %s", program_end(&s->place, &program, how, sizeof(how)));
    program_release(&program);
    return rc;
}

static int report(const struct state *s, const struct job *job, const struct tally *tallies, double seconds,
                  json_t *rows, struct err *err)
{
    const bool exact = strcmp(s->t->dtype, "fp32") == 0;
    int wanted[N_KINDS];

    count_wanted(s, job, wanted);
    for (int kind = 0; kind < N_KINDS; kind++) {
        const struct tally *t = &tallies[kind];
        const bool is_score = kind == KIND_ITC || kind == KIND_ITM, all = t->n == wanted[kind];
        const bool pass = all && (t->n_equal == t->n || (!is_score && !exact && kind != KIND_SAME));
        json_t *row;

        if (!job->stages[kind])
            continue;
        row = json_pack(
            "{s:s, s:s, s:s, s:[i], s:o*, s:o, s:o, s:b, s:f, s:s*}", "model", "demo", "worker", "job", "stage",
            job->stages[kind], "shape", wanted[kind], "equal", kind == KIND_SAME ? NULL : json_integer(t->n_equal),
            "relative_error", is_score && isfinite(t->worst) ? json_real(t->worst) : json_null(), "limit",
            is_score ? json_real(score_limit(s->t->dtype)) : json_null(), "pass", pass, "seconds",
            kind == KIND_CAPTION || kind == KIND_SAME ? seconds : 0.0, "detail", t->detail[0] ? t->detail : NULL);
        if (!row || json_array_append_new(rows, row) < 0)
            return err_set(err, -ENOMEM, "no memory for a row of the self-test's report");
    }
    return 0;
}

static int run_job(struct state *s, const struct job *job, json_t *rows, struct err *err)
{
    struct tally tallies[N_KINDS] = {0};
    const int64_t start_ns = clock_mono_ns();
    char store[RUNDIR_MAX + 32], other[RUNDIR_MAX + 32];
    int rc;

    rundir_file(&s->place.rundir, job->name, store, sizeof(store));
    rc = run_caption(s, job, store, err);
    if (rc == 0 && job->same_as)
        rc = compare_stores(store, rundir_file(&s->place.rundir, job->same_as, other, sizeof(other)),
                            &tallies[KIND_SAME], err);
    else if (rc == 0)
        rc = compare_store(s, job, store, tallies, err);
    if (rc == 0)
        rc = report(s, job, tallies, (double)(clock_mono_ns() - start_ns) / 1e9, rows, err);
    return rc;
}

int selftest_job(struct selftest_job *t, json_t *rows, struct err *err)
{
    struct state s = {.t = t, .place = PROGRAM_DIR_NONE};
    int rc = load_answers(&s, err);

    if (rc == 0)
        rc = program_dir_open(&s.place, err);
    if (rc == 0)
        rc = write_list(&s, err);
    for (size_t i = 0; rc == 0 && i < sizeof(jobs) / sizeof(jobs[0]); i++)
        if (!jobs[i].same_as || strcmp(t->device, "cpu") == 0)
            rc = run_job(&s, &jobs[i], rows, err);
    t->signal_number = s.place.signal_number;
    program_dir_close(&s.place);
    json_decref(s.answers);
    return rc;
}
