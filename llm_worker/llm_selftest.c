#include "llm_worker/llm_selftest.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llm_worker/caption.h"
#include "llm_worker/generate.h"
#include "llm_worker/generate_json.h"
#include "llm_worker/request.h"
#include "llm_worker/lm.h"
#include "model/golden_tokenizer.h"
#include "model/config_tokenizer.h"
#include "worker/selftest.h"

enum {
    SELFTEST_MAX_NEW_TOKENS = 1024,
    SELFTEST_MAX_TEXT_POSITIONS = 512, /* prompt and new tokens: keeps the cache of a large model small */
};

/* Scores are stored with six decimals; this is the resulting error. */
#define SELFTEST_SCORE_DIGIT 1e-6

struct selftest {
    struct golden *g;
    struct tokenizer *tokenizer;
    struct ops *o;
    struct lm *lm;
    float *image_rows; /* [n_images, Q, L] golden projections */
    struct err *err;
};

/* Encodes a prompt of expected.json: a string, or null for none (the bos id alone). */
static int prompt_ids(const struct selftest *t, const json_t *prompt, struct token_ids *ret)
{
    if (json_is_string(prompt)) {
        int rc =
            tokenizer_encode(t->tokenizer, json_string_value(prompt), json_string_length(prompt), true, ret, t->err);

        return rc < 0 ? rc : config_tokenizer_check(&t->g->checkpoint->config, ret->ids, ret->n, t->err);
    }
    if (token_ids_append(ret, t->g->checkpoint->config.bos) < 0)
        return err_set(t->err, -ENOMEM, "no memory for a prompt");
    return 0;
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
                                      .image_dtype = DTYPE_F32,
                                      .n_image_rows = c->n_queries,
                                      .ids = prompt->ids,
                                      .n_ids = (int)prompt->n,
                                      .prefix_row = i * n_prefix,
                                      .first_row = n * n_prefix + i};
    rc = lm_forward(t->lm, n, starts, 0, NULL, &logits);
    if (rc == 0)
        rc = t->o->f->download(t->o, ret, DTYPE_F32, logits, DTYPE_F32, (size_t)n * (size_t)c->lm_vocab_size);
    free(starts);
    return rc < 0 ? err_set(t->err, rc, "the language model failed") : 0;
}

/* Checks that all images with this prompt fit in one pass. */
static int check_prompt(const struct selftest *t, const char *stage, const struct token_ids *prompt)
{
    int rc;

    if (prompt->n > SELFTEST_MAX_TEXT_POSITIONS)
        return err_set(t->err, -E2BIG, "%s: a prompt of %zu tokens, expected at most %d", stage, prompt->n,
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

/* -- ids and sequence scores -- */

/* Reads the options of `row`. */
static int row_options(const struct selftest *t, const json_t *row, struct generation_options *ret)
{
    const json_t *max_new = json_object_get(row, "max_new_tokens");
    int rc;

    *ret = generation_options_default();
    if (json_is_integer(max_new))
        ret->max_new_tokens = (int)json_integer_value(max_new);
    rc = generate_json_options(json_object_get(row, "options"), ret, t->err);
    if (rc < 0)
        return err_prefix(t->err, rc, "%s/expected.json", t->g->dir);
    if (ret->max_new_tokens < 1 || ret->max_new_tokens > SELFTEST_MAX_NEW_TOKENS || ret->n_return < 1 ||
        ret->n_return > GENERATION_MAX_RETURN || ret->n_beams < 1 || ret->n_beams > GENERATION_MAX_BEAMS)
        return err_set(t->err, -EINVAL, "%s/expected.json: %d new tokens, %d beams, %d sequences", t->g->dir,
                       ret->max_new_tokens, ret->n_beams, ret->n_return);
    return 0;
}

static int run(const struct selftest *t, const struct token_ids *prompt, const struct generation_options *options,
               struct generate_result *results)
{
    const struct config *c = &t->g->checkpoint->config;
    struct generate *g = NULL;
    struct generate_result r;
    int rc = generate_new(t->lm, t->g->n_images, c->image_token, &g, t->err);

    for (int i = 0; rc == 0 && i < t->g->n_images; i++)
        rc = generate_submit(g,
                             &(struct generate_request){
                                 .tag = (uint64_t)i,
                                 .image_rows = t->image_rows + (int64_t)i * c->n_queries * c->lm_width,
                                 .image_dtype = DTYPE_F32,
                                 .n_image_rows = c->n_queries,
                                 .prompt = prompt->ids,
                                 .n_prompt = (int)prompt->n,
                                 .options = *options,
                                 .eos = c->eos,
                                 .n_eos = c->n_eos,
                             },
                             t->err);
    while (rc == 0 && (rc = generate_step(g)) != 0)
        rc = rc > 0 ? 0 : err_set(t->err, rc, "the language model failed");
    while (rc == 0 && generate_take(g, &r) == 1) {
        generate_result_release(&results[r.tag]);
        results[r.tag] = r;
    }
    generate_free(g);
    return rc;
}

/* Sequence i over all images, image-major. */
static const struct generate_sequence *sequence(const struct generate_result *results, int n_return, size_t i)
{
    static const struct generate_sequence none = {.score = NAN};
    const struct generate_result *r = &results[i / (size_t)n_return];

    return (int)(i % (size_t)n_return) < r->n_sequences ? &r->sequences[i % (size_t)n_return] : &none;
}

/* True if the ids differ; describes the difference in `ret`. */
static bool ids_differ(const json_t *want, const struct generate_sequence *s, size_t i, char *ret, size_t size)
{
    const int n_want = (int)json_array_size(want);

    for (int k = 0; k < s->n_ids || k < n_want; k++) {
        long long w = k < n_want ? json_integer_value(json_array_get(want, (size_t)k)) : -1;
        long long found = k < s->n_ids ? s->ids[k] : -1;

        if (w == found)
            continue;
        snprintf(ret, size, "sequence %zu, token %d: %lld, expected %lld (-1: ended)", i, k, found, w);
        return true;
    }
    return false;
}

/* Returns 1 if the text of the ids is not `want`. */
static int text_differs(const struct selftest *t, const json_t *want, const struct generate_sequence *s, size_t i,
                        char *ret, size_t size)
{
    const char *wanted = json_string_value(want);
    const size_t n = json_string_length(want); /* a caption may contain a NUL */
    struct buf text;
    int rc;

    if (!wanted)
        return 0;
    buf_init(&text, 0);
    rc = caption_text(t->tokenizer, &t->g->checkpoint->config, s->ids, s->n_ids, &text, t->err);
    if (rc == 0)
        rc = buf_append(&text, "", 1);
    if (rc == 0 && (text.size_bytes != n + 1 || memcmp(text.data, wanted, n) != 0)) {
        snprintf(ret, size, "sequence %zu: \"%.60s\", expected \"%.60s\"", i, (const char *)text.data, wanted);
        rc = 1;
    }
    buf_release(&text);
    return rc;
}

/* The error of a score, a sum of logarithms: relative, but absolute near 0. */
static double score_error(const json_t *want, const struct generate_sequence *s)
{
    const double w = json_number_value(want), off = fabs(s->score - w) - SELFTEST_SCORE_DIGIT / 2;

    if (isnan(s->score))
        return INFINITY;
    return off <= 0 ? 0 : off / fmax(1, fabs(w));
}

static int compare(const struct selftest *t, const json_t *row, const struct generate_result *got, int n_return,
                   struct golden_sequences *ret, char *detail, size_t detail_size)
{
    const json_t *ids = json_object_get(row, "ids"), *scores = json_object_get(row, "sequences_scores");
    const json_t *texts = json_object_get(row, "text");

    for (size_t i = 0; i < json_array_size(ids); i++) {
        const struct generate_sequence *s = sequence(got, n_return, i);
        char first[192] = "";
        int rc = ids_differ(json_array_get(ids, i), s, i, first, sizeof(first));

        if (rc == 0)
            rc = text_differs(t, json_array_get(texts, i), s, i, first, sizeof(first));
        if (rc < 0)
            return rc;
        ret->n_equal += rc == 0;
        if (scores)
            ret->score_error = fmax(ret->score_error, score_error(json_array_get(scores, i), s));
        if (rc > 0 && !*detail)
            snprintf(detail, detail_size, "%s", first);
    }
    return 0;
}

static int test_ids(const struct selftest *t, const json_t *row, const char *stage)
{
    const json_t *want = json_object_get(row, "ids"), *scores = json_object_get(row, "sequences_scores");
    struct generate_result *got = calloc((size_t)t->g->n_images, sizeof(*got));
    struct golden_sequences found = {.n = (int)json_array_size(want), .score_error = scores ? 0 : NAN};
    struct generation_options options;
    struct token_ids ids = {0};
    char detail[192] = "";
    int rc = got ? row_options(t, row, &options) : err_set(t->err, -ENOMEM, "no memory for ids");

    if (rc == 0 && (json_array_size(want) != (size_t)t->g->n_images * (size_t)options.n_return ||
                    (scores && json_array_size(scores) != json_array_size(want))))
        rc = err_set(t->err, -EINVAL, "%s/expected.json: %s has no usable ids or scores", t->g->dir, stage);
    if (rc == 0)
        rc = prompt_ids(t, json_object_get(row, "prompt"), &ids);
    if (rc == 0)
        rc = run(t, &ids, &options, got);
    if (rc == 0)
        rc = compare(t, row, got, options.n_return, &found, detail, sizeof(detail));
    if (rc == 0) {
        found.limit = t->g->checkpoint->config.lm == CONFIG_LM_T5 ? GOLDEN_LIMIT_T5_LOGITS : GOLDEN_LIMIT;
        found.detail = *detail ? detail : NULL;
        rc = golden_report_sequences(t->g, stage, &found, t->err);
    }
    for (int i = 0; got && i < t->g->n_images; i++)
        generate_result_release(&got[i]);
    token_ids_release(&ids);
    free(got);
    return rc;
}

static bool is_greedy(const json_t *options)
{
    return json_object_size(options) == 1 && json_integer_value(json_object_get(options, "num_beams")) == 1;
}

static int test_row(const struct selftest *t, const json_t *row)
{
    const json_t *prompt = json_object_get(row, "prompt"), *options = json_object_get(row, "options");
    char *text = json_dumps(options, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY), stage[256];
    int rc = 0;

    snprintf(stage, sizeof(stage), "ids %s %s", json_is_string(prompt) ? json_string_value(prompt) : "(no prompt)",
             text ? text : "");
    free(text);
    if (is_greedy(options)) /* one row per prompt */
        rc = test_logits(t, prompt);
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

/* Opens the model with room for all images' prompts in one pass and for the largest row of expected.json. */
static int open_model(struct selftest *t)
{
    const struct config *c = &t->g->checkpoint->config;
    const json_t *rows = json_object_get(t->g->expected, "generate");
    const int64_t prompt = c->n_queries + SELFTEST_MAX_TEXT_POSITIONS + 1;
    struct lm_limits limits = {.n_sequences = t->g->n_images};
    int64_t most = 0, n_kv_rows;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        struct generation_options o;
        int rc = row_options(t, json_array_get(rows, i), &o), n;

        if (rc < 0)
            return rc;
        n = request_n_sequences(&o);
        limits.n_sequences = n > limits.n_sequences ? n : limits.n_sequences;
        most = (int64_t)n * o.max_new_tokens > most ? (int64_t)n * o.max_new_tokens : most;
    }
    n_kv_rows = t->g->n_images * prompt + most;
    limits.n_kv_rows = n_kv_rows < INT32_MAX ? (int)n_kv_rows : INT32_MAX;
    limits.max_rows = limits.n_kv_rows - (int)most;
    if (limits.max_rows < limits.n_sequences)
        limits.max_rows = limits.n_sequences;
    return lm_open(t->o, t->g->checkpoint, &limits, &t->lm, t->err);
}

static int load(struct selftest *t)
{
    const struct config *c = &t->g->checkpoint->config;
    const int64_t shape[] = {t->g->n_images, c->n_queries, c->lm_width};
    int rc;

    if (c->lm == CONFIG_LM_NONE)
        return err_set(t->err, -ENOTSUP, "%s: a retrieval checkpoint has no language model", t->g->dir);
    if ((rc = config_tokenizer_load(&t->g->checkpoint->config, t->g->checkpoint->tokenizer_path, &t->tokenizer,
                                    t->err)) < 0 ||
        (rc = golden_floats(t->g, "language_projection", 3, shape, &t->image_rows, t->err)) < 0)
        return rc;
    return open_model(t);
}

/* -- sampling -- */

enum { SELFTEST_MAX_SAMPLER_VOCAB = 256 };

/* Samples with a uniform number from the middle of an id's interval; returns the token and its probability. */
static int draw(const struct selftest *t, const json_t *c, const float *logits, int vocab, double uniform, int32_t *ret,
                float *ret_probability)
{
    float logprob;
    const struct ops_sample_row row = {.sample = true,
                                       .n_best = 1,
                                       .repetition_penalty = 1,
                                       .temperature = (float)json_number_value(json_object_get(c, "temperature")),
                                       .top_k = (int)json_integer_value(json_object_get(c, "top_k")),
                                       .top_p = (float)json_number_value(json_object_get(c, "top_p")),
                                       .uniform = (float)uniform,
                                       .ret_ids = ret,
                                       .ret_values = ret_probability,
                                       .ret_logprobs = &logprob};
    int rc = t->o->f->sample(t->o, &(struct ops_sample_args){1, vocab, logits, vocab, &row});

    return rc < 0 ? err_set(t->err, rc, "sampling failed") : 0;
}

/* Adds the largest error to *ret_error; returns 1 if another token is drawn. */
static int test_draws(const struct selftest *t, const json_t *c, double *ret_error)
{
    const json_t *want = json_object_get(c, "probabilities"), *given = json_object_get(c, "logits");
    const int vocab = (int)json_array_size(want);
    float logits[SELFTEST_MAX_SAMPLER_VOCAB], probability = 0;
    double before = 0;

    if (vocab < 1 || vocab > SELFTEST_MAX_SAMPLER_VOCAB || json_array_size(given) != (size_t)vocab)
        return 1;
    for (int i = 0; i < vocab; i++)
        logits[i] = (float)json_number_value(json_array_get(given, (size_t)i));
    for (int i = 0; i < vocab; i++) {
        const double p = json_number_value(json_array_get(want, (size_t)i));
        int32_t id = -1;
        int rc = p > 1e-6 ? draw(t, c, logits, vocab, before + p / 2, &id, &probability) : 0;

        if (rc < 0 || (p > 1e-6 && id != i))
            return rc < 0 ? rc : 1;
        if (p > 1e-6)
            *ret_error = fmax(*ret_error, fabs((double)probability - p));
        before += p;
    }
    return 0;
}

/* Tests sampler.json, if it exists: the reference's probabilities after temperature, top_k and top_p. */
static int test_sampler(const struct selftest *t)
{
    struct golden_sequences found = {.limit = GOLDEN_LIMIT};
    char path[4096], detail[64] = "";
    json_t *cases, *c;
    json_error_t where;
    size_t i;
    int rc = 0;

    snprintf(path, sizeof(path), "%s/sampler.json", t->g->dir);
    if (access(path, F_OK) < 0)
        return 0;
    cases = json_load_file(path, 0, &where);
    if (!json_is_array(cases))
        rc = err_set(t->err, -EINVAL, "%s: line %d: %s", path, cases ? 1 : where.line, cases ? "no list" : where.text);
    json_array_foreach(cases, i, c)
    {
        if (!json_object_get(c, "probabilities")) /* a case for penalties, which the ids above cover */
            continue;
        rc = test_draws(t, c, &found.score_error);
        if (rc < 0)
            break;
        if (rc > 0 && !*detail)
            snprintf(detail, sizeof(detail), "case %zu draws another token", i);
        found.n++;
        found.n_equal += rc == 0;
        rc = 0;
    }
    found.detail = *detail ? detail : NULL;
    t->g->grain = GOLDEN_EXACT; /* logits are always fp32 */
    if (rc == 0)
        rc = golden_report_sequences(t->g, "sampling probabilities", &found, t->err);
    json_decref(cases);
    return rc;
}

int llm_selftest(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err)
{
    struct selftest t = {.err = err};
    int rc = selftest_open(golden_dir, conf, &t.g, &t.o, err);

    if (rc == 0)
        rc = load(&t);
    if (rc == 0 && json_object_get(t.g->expected, "tokenizer")) /* the texts above test it too */
        rc = golden_report_tokenizer(t.g, t.tokenizer, err);
    if (rc == 0)
        rc = test_generate(&t);
    if (rc == 0)
        rc = test_sampler(&t);
    if (rc == 0)
        rc = golden_print(t.g, out, err);
    lm_free(t.lm);
    ops_free(t.o);
    tokenizer_free(t.tokenizer);
    free(t.image_rows);
    golden_free(t.g);
    return rc;
}
