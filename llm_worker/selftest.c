#include "llm_worker/selftest.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "llm_worker/opt.h"
#include "model/golden.h"
#include "model/tokenizer.h"
#include "tensor/ops.h"

enum {
    SELFTEST_MAX_NEW_TOKENS = 1024,
    SELFTEST_MAX_TEXT_POSITIONS = 512, /* prompt and new tokens: keeps the cache of a large model small */
};

struct selftest {
    struct golden *g;
    struct tokenizer *tokenizer;
    struct ops *o;
    struct lm *lm;
    struct opt *m;
    float *image_rows; /* [n_images, Q, L] golden projections */
    struct err *err;
};

/* A prompt of expected.json: a string, or null for none, which is the bos id alone. */
static int prompt_ids(const struct selftest *t, const json_t *prompt, struct token_ids *ret)
{
    if (json_is_string(prompt))
        return tokenizer_encode(t->tokenizer, json_string_value(prompt), json_string_length(prompt), true, ret, t->err);
    if (token_ids_append(ret, t->g->checkpoint->config.bos) < 0)
        return err_set(t->err, -ENOMEM, "no memory for a prompt");
    return 0;
}

static bool ids_equal(const json_t *want, const int32_t *ids, size_t n)
{
    if (json_array_size(want) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids[i])
            return false;
    return true;
}

/* -- tokenizer -- */

/* Returns 1 when encoding (both ways) and decoding agree, 0 when not. */
static int tokenizer_case(const struct selftest *t, const json_t *want)
{
    const json_t *text = json_object_get(want, "text"), *decoded = json_object_get(want, "decoded");
    struct token_ids with = {0}, without = {0};
    struct buf out;
    int rc;

    buf_init(&out, 0);
    rc = tokenizer_encode(t->tokenizer, json_string_value(text), json_string_length(text), true, &with, t->err);
    if (rc == 0)
        rc = tokenizer_encode(t->tokenizer, json_string_value(text), json_string_length(text), false, &without, t->err);
    if (rc == 0)
        rc = tokenizer_decode(t->tokenizer, with.ids, with.n, true, &out, t->err);
    if (rc == 0)
        rc = ids_equal(json_object_get(want, "ids"), with.ids, with.n) &&
             ids_equal(json_object_get(want, "ids_no_special"), without.ids, without.n) &&
             out.size_bytes == json_string_length(decoded) &&
             (out.size_bytes == 0 || memcmp(out.data, json_string_value(decoded), out.size_bytes) == 0);
    buf_release(&out);
    token_ids_release(&with);
    token_ids_release(&without);
    return rc;
}

static int test_tokenizer(const struct selftest *t)
{
    const json_t *cases = json_object_get(t->g->expected, "tokenizer");
    const size_t n = json_array_size(cases);
    char detail[128] = "";
    int n_wrong = 0;

    if (n == 0)
        return golden_report_skipped(t->g, "tokenizer", "expected.json has no tokenizer cases", t->err);
    for (size_t i = 0; i < n; i++) {
        const json_t *want = json_array_get(cases, i);
        int rc = 0;

        if (json_is_string(json_object_get(want, "text")) && json_is_string(json_object_get(want, "decoded")))
            rc = tokenizer_case(t, want);
        if (rc < 0)
            return rc;
        if (rc == 0 && n_wrong++ == 0)
            snprintf(detail, sizeof(detail), "first wrong: case %zu", i);
    }
    return golden_report_equal(t->g, "tokenizer", (int)n, n_wrong == 0, *detail ? detail : NULL, t->err);
}

/* -- logits of the first new token -- */

/* first_logits_none, _photo, _question: which prompt each belongs to. */
static const char *logits_name(const json_t *prompt)
{
    const char *text = json_string_value(prompt);

    if (!text)
        return "first_logits_none";
    return strncmp(text, "Question", strlen("Question")) == 0 ? "first_logits_question" : "first_logits_photo";
}

static int first_logits(const struct selftest *t, const struct token_ids *prompt, float *ret)
{
    const struct config *c = &t->g->checkpoint->config;
    const int n_prefix = lm_prefix_rows(t->lm, c->n_queries, (int)prompt->n), n = t->g->n_images;
    struct lm_start *starts = calloc((size_t)n, sizeof(*starts));
    const float *logits;
    int rc;

    if (!starts)
        return err_set(t->err, -ENOMEM, "no memory for a pass");
    for (int i = 0; i < n; i++)
        starts[i] = (struct lm_start){.image_rows = t->image_rows + (int64_t)i * c->n_queries * c->lm_width,
                                      .n_image_rows = c->n_queries,
                                      .ids = prompt->ids,
                                      .n_ids = (int)prompt->n,
                                      .prefix_row = i * n_prefix,
                                      .first_row = n * n_prefix + i};
    rc = lm_forward(t->lm, n, starts, 0, NULL, &logits);
    if (rc == 0)
        rc = t->o->f->download_f32_from_f32(t->o, ret, logits, (size_t)n * (size_t)c->lm_vocab_size);
    free(starts);
    return rc < 0 ? err_set(t->err, rc, "the language model could not be run") : 0;
}

/* All pictures with this prompt fit one pass. */
static int check_prompt(const struct selftest *t, const char *stage, const struct token_ids *prompt)
{
    int rc;

    if (prompt->n > SELFTEST_MAX_TEXT_POSITIONS)
        return err_set(t->err, -E2BIG, "%s: a prompt of %zu tokens, at most %d", stage, prompt->n,
                       SELFTEST_MAX_TEXT_POSITIONS);
    rc = lm_check_lengths(t->lm, t->g->checkpoint->config.n_queries, (int)prompt->n, 1, t->err);
    return rc < 0 ? err_prefix(t->err, rc, "%s", stage) : 0;
}

static int test_logits(const struct selftest *t, const json_t *prompt)
{
    const struct config *c = &t->g->checkpoint->config;
    const int64_t shape[] = {t->g->n_images, c->lm_vocab_size};
    const double limit = c->lm == CONFIG_LM_T5 ? GOLDEN_LIMIT_T5_LOGITS : GOLDEN_LIMIT;
    float *got = calloc((size_t)(shape[0] * shape[1]), sizeof(*got)), *want = NULL;
    struct token_ids ids = {0};
    int rc = got ? prompt_ids(t, prompt, &ids) : err_set(t->err, -ENOMEM, "no memory for logits");

    if (rc == 0)
        rc = golden_floats(t->g, logits_name(prompt), 2, shape, &want, t->err);
    if (rc == 0)
        rc = check_prompt(t, logits_name(prompt), &ids);
    if (rc == 0)
        rc = first_logits(t, &ids, got);
    if (rc == 0)
        rc = golden_report_within(t->g, logits_name(prompt), 2, shape, limit, got, want, t->err);
    token_ids_release(&ids);
    free(want);
    free(got);
    return rc;
}

/* -- greedy ids -- */

static int run_greedy(const struct selftest *t, const struct token_ids *prompt, int max_new_tokens,
                      struct generate_result *results)
{
    const struct config *c = &t->g->checkpoint->config;
    struct generate *g = NULL;
    struct generate_result r;
    int rc = generate_new(t->m, t->g->n_images, c->image_token, &g, t->err);

    for (int i = 0; rc == 0 && i < t->g->n_images; i++)
        rc = generate_submit(g,
                             &(struct generate_request){
                                 .tag = (uint64_t)i,
                                 .image_rows = t->image_rows + (int64_t)i * c->n_queries * c->lm_width,
                                 .n_image_rows = c->n_queries,
                                 .prompt = prompt->ids,
                                 .n_prompt = (int)prompt->n,
                                 .max_new_tokens = max_new_tokens,
                                 .eos = c->eos,
                                 .n_eos = c->n_eos,
                             },
                             t->err);
    while (rc == 0 && (rc = generate_step(g)) != 0)
        rc = rc > 0 ? 0 : err_set(t->err, rc, "the language model could not be run");
    while (rc == 0 && generate_take(g, &r) == 1) {
        generate_result_release(&results[r.tag]);
        results[r.tag] = r;
    }
    generate_free(g);
    return rc;
}

/* The first place where the ids of any picture differ, in words; "" when they are equal. */
static void first_difference(const json_t *want, const struct generate_result *got, int n, char *ret, size_t size)
{
    *ret = '\0';
    for (int i = 0; i < n; i++) {
        const json_t *ids = json_array_get(want, (size_t)i);
        const size_t n_want = json_array_size(ids);

        for (int k = 0; k < got[i].n_ids || (size_t)k < n_want; k++) {
            long long w = (size_t)k < n_want ? json_integer_value(json_array_get(ids, (size_t)k)) : -1;
            long long found = k < got[i].n_ids ? got[i].ids[k] : -1;

            if (w == found)
                continue;
            snprintf(ret, size, "picture %d, token %d: %lld, wanted %lld (-1: ended)", i, k, found, w);
            return;
        }
    }
}

static bool is_greedy(const json_t *options)
{
    return json_object_size(options) == 1 && json_integer_value(json_object_get(options, "num_beams")) == 1;
}

static int test_ids(const struct selftest *t, const json_t *row, const char *stage)
{
    const json_t *want = json_object_get(row, "ids");
    const json_int_t max_new = json_integer_value(json_object_get(row, "max_new_tokens"));
    struct generate_result *got = calloc((size_t)t->g->n_images, sizeof(*got));
    struct token_ids ids = {0};
    char detail[160];
    int rc;

    if (max_new < 1 || max_new > SELFTEST_MAX_NEW_TOKENS || json_array_size(want) != (size_t)t->g->n_images)
        rc = err_set(t->err, -EINVAL, "%s/expected.json: %s has no usable max_new_tokens or ids", t->g->dir, stage);
    else
        rc = got ? prompt_ids(t, json_object_get(row, "prompt"), &ids) : err_set(t->err, -ENOMEM, "no memory for ids");
    if (rc == 0)
        rc = run_greedy(t, &ids, (int)max_new, got);
    if (rc == 0) {
        first_difference(want, got, t->g->n_images, detail, sizeof(detail));
        rc = golden_report_equal(t->g, stage, t->g->n_images, !*detail, *detail ? detail : NULL, t->err);
    }
    for (int i = 0; got && i < t->g->n_images; i++)
        generate_result_release(&got[i]);
    token_ids_release(&ids);
    free(got);
    return rc;
}

static int test_row(const struct selftest *t, const json_t *row)
{
    const json_t *prompt = json_object_get(row, "prompt"), *options = json_object_get(row, "options");
    char *text = json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY), stage[256];
    int rc = 0;

    snprintf(stage, sizeof(stage), "ids %s %s", json_is_string(prompt) ? json_string_value(prompt) : "(no prompt)",
             text ? text : "");
    free(text);
    if (!is_greedy(options))
        return golden_report_skipped(t->g, stage, "only greedy decoding is built so far", t->err);
    rc = test_logits(t, prompt);
    if (rc == 0 && !t->m)
        return golden_report_skipped(t->g, stage, "only OPT is decoded so far", t->err);
    return rc < 0 ? rc : test_ids(t, row, stage);
}

static int test_generate(const struct selftest *t)
{
    const json_t *rows = json_object_get(t->g->expected, "generate");
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < json_array_size(rows); i++)
        rc = test_row(t, json_array_get(rows, i));
    return rc;
}

static int open_model(struct selftest *t)
{
    const struct config *c = &t->g->checkpoint->config;
    const int64_t rows = (int64_t)t->g->n_images * (c->n_queries + SELFTEST_MAX_TEXT_POSITIONS + 1);
    struct lm_limits limits = {.n_sequences = t->g->n_images};

    limits.n_kv_rows = limits.max_rows = rows < INT32_MAX ? (int)rows : INT32_MAX;
    return lm_open(t->o, t->g->checkpoint, &limits, &t->lm, t->err);
}

static int load(struct selftest *t, int n_threads)
{
    const struct config *c = &t->g->checkpoint->config;
    const int64_t shape[] = {t->g->n_images, c->n_queries, c->lm_width};
    struct opt_limits limits = {.n_slots = t->g->n_images};
    int rc;

    if (c->lm == CONFIG_LM_NONE)
        return err_set(t->err, -ENOTSUP, "%s: a retrieval checkpoint has no language model", t->g->dir);
    if ((rc = tokenizer_load(t->g->checkpoint->tokenizer_path, &t->tokenizer, t->err)) < 0 ||
        (rc = golden_floats(t->g, "language_projection", 3, shape, &t->image_rows, t->err)) < 0 ||
        (rc = ops_cpu_new(n_threads, DTYPE_F32, &t->o, t->err)) < 0 || (rc = open_model(t)) < 0 ||
        c->lm != CONFIG_LM_OPT)
        return rc;
    limits.n_positions = c->n_queries + SELFTEST_MAX_TEXT_POSITIONS;
    if (limits.n_positions > c->opt.max_positions)
        limits.n_positions = c->opt.max_positions;
    limits.max_rows = limits.n_slots * limits.n_positions;
    return opt_new(t->o, t->g->checkpoint, &limits, &t->m, t->err);
}

int llm_selftest(const char *golden_dir, int n_threads, FILE *out, struct err *err)
{
    struct selftest t = {.err = err};
    int rc = golden_open(golden_dir, &t.g, err);

    if (rc == 0)
        rc = load(&t, n_threads);
    if (rc == 0)
        rc = test_tokenizer(&t);
    if (rc == 0)
        rc = test_generate(&t);
    if (rc == 0)
        rc = golden_print(t.g, out, err);
    lm_free(t.lm);
    opt_free(t.m);
    ops_free(t.o);
    tokenizer_free(t.tokenizer);
    free(t.image_rows);
    golden_free(t.g);
    return rc;
}
