/* The language models on tests/golden: logits of mixed passes, greedy ids through ancestor tables, and that nothing
 * depends on what else is in a pass. */
#include "tests/unit/lm_rig.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "model/golden.h"

enum { N_IMAGES = 4, N_PROMPTS = 3, N = N_IMAGES * N_PROMPTS, MAX_IDS = 20, MAX_NEW = 14 };

struct prompt {
    int n;
    int32_t ids[MAX_IDS];
};

/* What the tokenizers of these checkpoints make of no prompt, "a photo of" and "Question: how many objects are there?
 * Answer:". */
static const struct prompt opt_prompts[N_PROMPTS] = {
    {1, {2}}, {7, {2, 68, 301, 75, 390, 82, 303}}, {11, {2, 285, 29, 345, 343, 346, 328, 293, 34, 286, 29}}};
static const struct prompt t5_prompts[N_PROMPTS] = {
    {1, {1}},
    {8, {3, 4, 374, 398, 228, 274, 20, 1}},
    {18, {4, 10, 13, 15, 12, 5, 32, 31, 33, 25, 18, 8, 4, 9, 14, 11, 5, 1}}};
static const char *const prompt_texts[N_PROMPTS] = {NULL, "a photo of",
                                                    "Question: how many objects are there? Answer:"};
static const char *const logits_names[N_PROMPTS] = {"first_logits_none", "first_logits_photo", "first_logits_question"};

/* What the next group of tests runs on. */
static struct model_case {
    const char *ops, *dir;
    double limit; /* MODEL.md "Precision" */
} model_case;

struct fixture {
    struct lm_rig r;
    struct golden *g;
    const struct prompt *prompts;
    float *rows; /* [N_IMAGES, Q, L] */
    int n_queries;
    size_t vocab;
    float *logits; /* [N, V] room for any pass */
};

static int set_up(void **state)
{
    static struct fixture f;
    struct err err = {""};
    struct ops *o = lm_rig_ops(model_case.ops);
    const struct config *c;

    lm_rig_open(&f.r, model_case.dir, o);
    LM_RIG_OK(golden_open(model_case.dir, &f.g, &err), err);
    c = &f.g->checkpoint->config;
    assert_int_equal(f.g->n_images, N_IMAGES);
    f.prompts = c->lm == CONFIG_LM_OPT ? opt_prompts : t5_prompts;
    f.n_queries = c->n_queries;
    f.vocab = (size_t)c->lm_vocab_size;
    LM_RIG_OK(golden_floats(f.g, "language_projection", 3, (const int64_t[]){N_IMAGES, c->n_queries, c->lm_width},
                            &f.rows, &err),
              err);
    f.logits = calloc(LM_RIG_SEQUENCES * f.vocab, sizeof(float));
    assert_non_null(f.logits);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct ops *o = f->r.o;

    lm_rig_close(&f->r);
    ops_free(o);
    golden_free(f->g);
    free(f->rows);
    free(f->logits);
    *f = (struct fixture){0};
    return 0;
}

static float *floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

/* Number i: picture i % N_IMAGES with prompt i / N_IMAGES. */
static struct lm_start start_of(struct fixture *f, int i)
{
    const struct prompt *p = &f->prompts[i / N_IMAGES];
    const size_t len = (size_t)f->n_queries * (size_t)lm_width(f->r.m);

    return lm_rig_start(&f->r, f->rows + (size_t)(i % N_IMAGES) * len, f->n_queries, p->ids, p->n);
}

/* Every picture with every prompt in one pass, lengths mixed. */
static const int order[N] = {9, 0, 4, 10, 3, 6, 1, 11, 5, 2, 8, 7};

static void test_lm_first_logits_of_a_mixed_pass_match_the_reference(void **state)
{
    struct fixture *f = *state;
    struct lm_start starts[N];
    float *by_number = floats(N * f->vocab);
    struct err err = {""};

    lm_rig_clear(&f->r);
    for (int i = 0; i < N; i++)
        starts[i] = start_of(f, order[i]);
    lm_rig_forward(&f->r, N, starts, 0, NULL, f->logits);
    for (int i = 0; i < N; i++)
        memcpy(by_number + (size_t)order[i] * f->vocab, f->logits + (size_t)i * f->vocab, f->vocab * sizeof(float));
    for (int p = 0; p < N_PROMPTS; p++) {
        const size_t n = N_IMAGES * f->vocab;
        float *want = NULL;
        double e;

        LM_RIG_OK(golden_floats(f->g, logits_names[p], 2, (const int64_t[]){N_IMAGES, (int64_t)f->vocab}, &want, &err),
                  err);
        e = golden_relative_error(by_number + (size_t)p * n, want, n);
        print_message("%s %s %-22s %.2e\n", model_case.ops, model_case.dir, logits_names[p], e);
        if (!(e <= model_case.limit))
            fail_msg("%s: relative error %g, limit %g", logits_names[p], e, model_case.limit);
        free(want);
    }
    free(by_number);
}

/* -- greedy ids -- */

static const json_t *expected_ids(const struct fixture *f, int prompt)
{
    const json_t *rows = json_object_get(f->g->expected, "generate");

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *options = json_object_get(row, "options");
        const char *text = json_string_value(json_object_get(row, "prompt")), *wanted = prompt_texts[prompt];

        if (json_object_size(options) == 1 && json_integer_value(json_object_get(options, "num_beams")) == 1 &&
            (wanted ? text && strcmp(wanted, text) == 0 : !text)) {
            assert_int_equal(json_integer_value(json_object_get(row, "max_new_tokens")), MAX_NEW);
            return json_object_get(row, "ids");
        }
    }
    fail_msg("expected.json has no greedy row for prompt %d", prompt);
    return NULL;
}

static int32_t best_of(const float *logits, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static int n_wanted(const struct fixture *f, int number)
{
    return (int)json_array_size(json_array_get(expected_ids(f, number / N_IMAGES), (size_t)(number % N_IMAGES)));
}

static int32_t wanted_id(const struct fixture *f, int number, int at)
{
    const json_t *ids = json_array_get(expected_ids(f, number / N_IMAGES), (size_t)(number % N_IMAGES));

    return (int32_t)json_integer_value(json_array_get(ids, (size_t)at));
}

/* Sequences join one by one and leave at their ends: starts and tokens are mixed in most passes. */
static void test_lm_greedy_ids_equal_the_reference(void **state)
{
    struct fixture *f = *state;
    struct lm_rig_sequence sequences[N];
    int n_said[N] = {0}, n_started = 0, n_done = 0;

    lm_rig_clear(&f->r);
    while (n_done < N) {
        struct lm_token tokens[N];
        struct lm_start start;
        int rows[N], n_tokens = 0, n_starts = n_started < N;

        if (n_starts)
            start = start_of(f, order[n_started]);
        for (int i = 0; i < n_started; i++) {
            if (n_said[i] == n_wanted(f, order[i]))
                continue;
            rows[n_tokens] = i;
            tokens[n_tokens++] = lm_rig_next(&f->r, &sequences[i], wanted_id(f, order[i], n_said[i] - 1));
        }
        lm_rig_forward(&f->r, n_starts, &start, n_tokens, tokens, f->logits);
        if (n_starts) {
            sequences[n_started] = lm_rig_sequence(&f->r, &start);
            rows[n_tokens] = n_started++;
        }
        for (int r = 0; r < n_starts + n_tokens; r++) { /* the start's row of logits is the first */
            const int i = n_starts && r == 0 ? rows[n_tokens] : rows[r - n_starts];

            assert_int_equal(best_of(f->logits + (size_t)r * f->vocab, f->vocab), wanted_id(f, order[i], n_said[i]));
            n_done += ++n_said[i] == n_wanted(f, order[i]);
        }
    }
}

/* -- what a sequence gives depends on nothing else -- */

/* Starts, and tokens of other sequences, in one pass: each, to the bit, as alone. */
static void test_lm_a_mixed_pass_gives_what_each_gives_alone(void **state)
{
    enum { N_OLD = 5, N_NEW = 4 };
    struct fixture *f = *state;
    struct lm_rig_sequence old[N_OLD];
    struct lm_start starts[N_NEW];
    struct lm_token tokens[N_OLD];
    float *alone = floats(f->vocab);

    lm_rig_clear(&f->r);
    for (int i = 0; i < N_OLD; i++) {
        struct lm_start s = start_of(f, order[i]);

        lm_rig_first(&f->r, &s, f->logits);
        old[i] = lm_rig_sequence(&f->r, &s);
        for (int n = 0; n <= i; n++) { /* tails of several lengths */
            tokens[i] = lm_rig_next(&f->r, &old[i], 7 * i + n);
            lm_rig_forward(&f->r, 0, NULL, 1, &tokens[i], f->logits);
        }
    }
    for (int i = 0; i < N_NEW; i++)
        starts[i] = start_of(f, order[N_OLD + i]);
    lm_rig_forward(&f->r, N_NEW, starts, N_OLD, tokens, f->logits);
    for (int i = 0; i < N_NEW + N_OLD; i++) {
        if (i < N_NEW)
            lm_rig_first(&f->r, &starts[i], alone);
        else
            lm_rig_forward(&f->r, 0, NULL, 1, &tokens[i - N_NEW], alone);
        assert_memory_equal(alone, f->logits + (size_t)i * f->vocab, f->vocab * sizeof(float));
    }
    free(alone);
}

/* Beams share the rows of their common beginning, then go apart: as if each had said everything by itself. */
static void test_lm_beams_that_share_rows_give_what_each_gives_alone(void **state)
{
    static const int32_t common[] = {33, 5, 100}, apart[3][2] = {{8, 9}, {8, 77}, {41, 3}};
    struct fixture *f = *state;
    struct lm_rig_sequence beams[3];
    struct lm_token tokens[3];
    float *beam_logits = floats(3 * f->vocab);
    struct lm_start s;

    lm_rig_clear(&f->r);
    s = start_of(f, 6);
    lm_rig_first(&f->r, &s, f->logits);
    beams[0] = lm_rig_sequence(&f->r, &s);
    for (int i = 0; i < 3; i++) {
        tokens[0] = lm_rig_next(&f->r, &beams[0], common[i]);
        lm_rig_forward(&f->r, 0, NULL, 1, tokens, f->logits);
    }
    beams[1] = beams[2] = beams[0];
    for (int step = 0; step < 2; step++) {
        for (int b = 0; b < 3; b++)
            tokens[b] = lm_rig_next(&f->r, &beams[b], apart[b][step]);
        lm_rig_forward(&f->r, 0, NULL, 3, tokens, beam_logits);
        beams[1].tail[beams[1].n_tail - 1] = beams[step == 0 ? 0 : 1].tail[beams[1].n_tail - 1]; /* 8 was said twice */
    }
    for (int b = 0; b < 3; b++) {
        struct lm_start own = start_of(f, 6);
        struct lm_rig_sequence q = lm_rig_sequence(&f->r, &own);

        lm_rig_first(&f->r, &own, f->logits);
        for (int i = 0; i < 5; i++) {
            tokens[0] = lm_rig_next(&f->r, &q, i < 3 ? common[i] : apart[b][i - 3]);
            lm_rig_forward(&f->r, 0, NULL, 1, tokens, f->logits);
        }
        assert_memory_equal(f->logits, beam_logits + (size_t)b * f->vocab, f->vocab * sizeof(float));
    }
    free(beam_logits);
}

/* OPT: token by token gives what a prompt of all of them gives. */
static void test_lm_tokens_give_what_they_give_as_a_prompt(void **state)
{
    struct fixture *f = *state;
    const struct prompt *p = &f->prompts[2];
    float *whole = floats(f->vocab);
    struct lm_rig_sequence q;
    struct lm_start s;
    double e;

    lm_rig_clear(&f->r);
    s = lm_rig_start(&f->r, f->rows, f->n_queries, p->ids, p->n);
    lm_rig_first(&f->r, &s, whole);
    s = lm_rig_start(&f->r, f->rows, f->n_queries, NULL, 0);
    lm_rig_first(&f->r, &s, f->logits);
    q = lm_rig_sequence(&f->r, &s);
    for (int i = 0; i < p->n; i++) {
        struct lm_token t = lm_rig_next(&f->r, &q, p->ids[i]);

        lm_rig_forward(&f->r, 0, NULL, 1, &t, f->logits);
    }
    e = golden_relative_error(f->logits, whole, f->vocab);
    if (!(e <= 1e-6))
        fail_msg("relative error %g", e);
    free(whole);
}

/* -- limits -- */

static void check_refused(const struct lm_rig *r, int n_image_rows, int n_ids, int n_new, int rc, const char *word)
{
    struct err err = {""};

    assert_int_equal(lm_check_lengths(r->m, n_image_rows, n_ids, n_new, &err), rc);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say %s", err.text, word);
}

static void test_lm_lengths_beyond_a_limit_are_refused_with_numbers(void **state)
{
    struct fixture *f = *state;
    const struct config *c = &f->g->checkpoint->config;
    const int q = f->n_queries, start = lm_start_rows(f->r.m);
    struct err err = {""};
    struct lm_rig small = f->r;
    struct lm_limits limits = {.n_sequences = 2, .n_kv_rows = q + 8 + start, .max_rows = q + 5 + start};

    assert_int_equal(lm_check_lengths(f->r.m, q, 1, 1, &err), 0);
    check_refused(&f->r, q, 0, 0, -EINVAL, "new token");
    check_refused(&f->r, 0, 0, 1, -EINVAL, "prompt");
    check_refused(&f->r, q, 1, INT32_MAX, -E2BIG, "2147483647");
    check_refused(&f->r, INT32_MAX, INT32_MAX, INT32_MAX, -E2BIG, "2147483647");
    if (c->lm == CONFIG_LM_OPT) {
        assert_int_equal(lm_check_lengths(f->r.m, q, 1, c->opt.max_positions - q, &err), 0);
        check_refused(&f->r, q, 1, c->opt.max_positions - q + 1, -E2BIG, "positions");
    } else {
        assert_int_equal(lm_check_lengths(f->r.m, 100, 1, 1000, &err), 0);
        check_refused(&f->r, 1, 1, 4097, -E2BIG, "4096");
    }

    LM_RIG_OK(lm_open(f->r.o, f->r.c, &limits, &small.m, &err), err);
    assert_int_equal(lm_pass_rows(small.m, q, 5), q + 5 + start);
    assert_int_equal(lm_prefix_rows(small.m, q, 5), q + 5);
    assert_int_equal(lm_check_lengths(small.m, q, 5, 4, &err), 0);
    check_refused(&small, q, 6, 1, -E2BIG, "but a pass has");
    check_refused(&small, q, 5, 5, -E2BIG, "of the cache");
    lm_free(small.m);
}

static void test_lm_limits_that_cannot_work_are_refused(void **state)
{
    static const struct lm_limits bad[] = {
        {0, 100, 100, 0},  {-1, 100, 100, 0},       {1, 0, 100, 0},       {1, 100, 0, 0},
        {5, 100, 4, 0},    {1, INT32_MAX, 1000, 0}, {1, 1, INT32_MAX, 0}, {INT32_MAX, 1, INT32_MAX, 0},
        {1, 100, 100, -1}, {1, 100, 100, 101}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {""};
        struct lm *m = NULL;

        assert_int_equal(lm_open(f->r.o, f->r.c, &bad[i], &m, &err), -EINVAL);
        assert_null(m);
        assert_non_null(strstr(err.text, "language model"));
    }
}

static void test_lm_sizes_are_those_of_the_checkpoint(void **state)
{
    struct fixture *f = *state;
    const struct config *c = &f->g->checkpoint->config;
    const bool opt = c->lm == CONFIG_LM_OPT;
    const size_t inner = opt ? (size_t)c->opt.width : (size_t)c->t5.n_heads * (size_t)c->t5.head_dim;
    const size_t layers = (size_t)(opt ? c->opt.n_layers : c->t5.n_decoder_layers);

    assert_int_equal(lm_width(f->r.m), c->lm_width);
    assert_int_equal(lm_vocab_size(f->r.m), c->lm_vocab_size);
    assert_int_equal(lm_kv_bytes(f->r.m), layers * LM_RIG_KV_ROWS * 2 * inner * sizeof(float));
    assert_int_equal(lm_is_encoder_decoder(f->r.m), !opt);
    assert_int_equal(lm_start_id(f->r.m), opt ? -1 : c->decoder_start);
    assert_int_equal(lm_start_rows(f->r.m), !opt);
    assert_ptr_equal(lm_ops(f->r.m), f->r.o);
    assert_int_equal(lm_get_limits(f->r.m)->n_kv_rows, LM_RIG_KV_ROWS);
}

int main(void)
{
    static const struct model_case cases[] = {
        {"cpu", "tests/golden/opt_a", GOLDEN_LIMIT},          {"cpu", "tests/golden/opt_c", GOLDEN_LIMIT},
        {"cpu", "tests/golden/t5_a", GOLDEN_LIMIT_T5_LOGITS}, {"ref", "tests/golden/opt_a", GOLDEN_LIMIT},
        {"ref", "tests/golden/opt_c", GOLDEN_LIMIT},          {"ref", "tests/golden/t5_a", GOLDEN_LIMIT_T5_LOGITS}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lm_first_logits_of_a_mixed_pass_match_the_reference),
        cmocka_unit_test(test_lm_greedy_ids_equal_the_reference),
        cmocka_unit_test(test_lm_a_mixed_pass_gives_what_each_gives_alone),
        cmocka_unit_test(test_lm_beams_that_share_rows_give_what_each_gives_alone),
        cmocka_unit_test(test_lm_lengths_beyond_a_limit_are_refused_with_numbers),
        cmocka_unit_test(test_lm_limits_that_cannot_work_are_refused),
        cmocka_unit_test(test_lm_sizes_are_those_of_the_checkpoint),
    };
    const struct CMUnitTest decoder_only[] = {
        cmocka_unit_test(test_lm_tokens_give_what_they_give_as_a_prompt),
    };
    /* transformers in bf16 is 7e-3 to 1.4e-2 (opt_a), 6e-3 (opt_c) and 6e-2 to 0.2 (t5_a) from its own f32: that random
     * T5 magnifies every rounding. */
    static const struct model_case bf16[] = {
        {"bf16", "tests/golden/opt_a", 2e-2}, {"bf16", "tests/golden/opt_c", 1e-2}, {"bf16", "tests/golden/t5_a", 0.4}};
    const struct CMUnitTest bf16_tests[] = {
        cmocka_unit_test(test_lm_first_logits_of_a_mixed_pass_match_the_reference),
        cmocka_unit_test(test_lm_a_mixed_pass_gives_what_each_gives_alone),
        cmocka_unit_test(test_lm_beams_that_share_rows_give_what_each_gives_alone),
    };
    struct ops *has_bf16;
    int failed = 0;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[64];

        model_case = cases[i];
        snprintf(name, sizeof(name), "lm %s %s", cases[i].ops, cases[i].dir);
        failed += cmocka_run_group_tests_name(name, tests, set_up, tear_down);
        if (strstr(cases[i].dir, "opt_"))
            failed += cmocka_run_group_tests_name(name, decoder_only, set_up, tear_down);
    }
    has_bf16 = lm_rig_ops("bf16");
    for (size_t i = 0; has_bf16 && i < sizeof(bf16) / sizeof(bf16[0]); i++) {
        model_case = bf16[i];
        failed += cmocka_run_group_tests_name("lm bf16", bf16_tests, set_up, tear_down);
    }
    ops_free(has_bf16);
    return failed;
}
