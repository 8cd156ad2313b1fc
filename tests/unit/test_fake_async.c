/* The models on a fake asynchronous device (tests/unit/fake_async_ops.h): they give the same results as on the
 * operators below it, keep to the contract of tensor/ops.h, and size their memory by what the device reports. */
#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "tests/unit/captioner.h"
#include "tests/unit/fixture.h"
#include "tests/unit/fake_async_ops.h"
#include "tests/unit/lm_rig.h"

#include <errno.h>
#include <math.h>

#define OPT_A "tests/golden/opt_a"
#define ITM_C "tests/golden/itm_c"

static struct ops *plain_new(void)
{
    struct ops *o = NULL;
    struct err err = {""};

    LM_RIG_OK(ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    return o;
}

static void random_bytes(uint64_t *seed, void *ret, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)ret)[i] = (uint8_t)fixture_random(seed);
}

static void random_floats(uint64_t *seed, float *ret, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ret[i] = (float)(int64_t)(fixture_random(seed) % 2001 - 1000) / 500;
}

/* -- image encoder -- */

enum { MAX_IMAGES = 3 };

/* Batches of 3, 1, 3, 2, 1, 2 images, each one's features started before the one before is waited for. */
static void run_vit(struct ops *o, struct vit *v, size_t trunk_len, const uint8_t *rgb, size_t image_bytes, float *ret)
{
    static const int sizes[] = {3, 1, 3, 2, 1, 2};
    uint64_t ticket = 0, before = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const void *device = NULL;

        assert_int_equal(vit_forward(v, sizes[i], rgb, &device), 0);
        assert_int_equal(o->f->download_start(o, ret, device, o->act_dtype, (size_t)sizes[i] * trunk_len, &ticket), 0);
        if (i > 0)
            assert_int_equal(o->f->download_wait(o, before), 0);
        before = ticket;
        ret += (size_t)sizes[i] * trunk_len;
        rgb += image_bytes; /* other pictures for the same key */
    }
    assert_int_equal(o->f->download_wait(o, before), 0);
}

static void test_fake_async_encoder_overlaps_batches(void **state)
{
    enum { N_FEATURES = 12, N_PICTURES = 9 };
    struct ops *o[3] = {plain_new(), fake_async_ops_new(plain_new()), fake_async_ops_new(plain_new())};
    uint64_t seed = fixture_seed("async_encoder");
    struct checkpoint *c = NULL;
    float *got[3];
    uint8_t *rgb = NULL;
    size_t image_bytes = 0, trunk_len = 0;
    struct err err = {""};

    (void)state;
    LM_RIG_OK(checkpoint_open(OPT_A, &c, &err), err);
    fake_async_ops_refuse_recordings(o[2]);
    for (int k = 0; k < 3; k++) {
        struct vit *v = NULL;

        LM_RIG_OK(vit_new(o[k], c, MAX_IMAGES, &v, &err), err);
        if (!rgb) {
            image_bytes = (size_t)vit_image_size(v) * (size_t)vit_image_size(v) * 3;
            trunk_len = (size_t)vit_n_tokens(v) * (size_t)vit_width(v);
            rgb = malloc(N_PICTURES * image_bytes);
            assert_non_null(rgb);
            random_bytes(&seed, rgb, N_PICTURES * image_bytes);
        }
        got[k] = viewer_floats(N_FEATURES * trunk_len);
        run_vit(o[k], v, trunk_len, rgb, image_bytes, got[k]);
        vit_free(v);
    }
    for (int k = 1; k < 3; k++)
        assert_memory_equal(got[0], got[k], N_FEATURES * trunk_len * sizeof(float));
    assert_int_equal(fake_async_ops_n_keys(o[1]), 3);
    assert_int_equal(fake_async_ops_n_replays(o[1]), 3);
    assert_int_equal(fake_async_ops_most_downloads(o[1]), 2);
    for (int k = 0; k < 3; k++) {
        free(got[k]);
        ops_free(o[k]);
    }
    free(rgb);
    checkpoint_free(c);
}

/* -- Q-Former -- */

/* Trunks filled into the operators' memory give what trunks handed over as f32 give. */
static void test_fake_async_qformer_takes_what_is_filled_in(void **state)
{
    struct ops *o[2] = {plain_new(), fake_async_ops_new(plain_new())};
    uint64_t seed = fixture_seed("async_qformer");
    struct checkpoint *c = NULL;
    struct qformer *q[2];
    struct err err = {""};
    size_t trunk_len, projected_len;
    float *trunk, *want, *got;

    (void)state;
    LM_RIG_OK(checkpoint_open(OPT_A, &c, &err), err);
    for (int k = 0; k < 2; k++)
        LM_RIG_OK(qformer_new(o[k], c, MAX_IMAGES, &q[k], &err), err);
    trunk_len = (size_t)qformer_n_tokens(q[0]) * (size_t)qformer_image_width(q[0]);
    projected_len = (size_t)qformer_n_queries(q[0]) * (size_t)qformer_language_width(q[0]);
    trunk = viewer_floats(MAX_IMAGES * trunk_len);
    want = viewer_floats(MAX_IMAGES * projected_len);
    got = viewer_floats(2 * MAX_IMAGES * projected_len);
    for (int round = 0; round < 4; round++) {
        const int n = 1 + round % MAX_IMAGES;
        uint64_t tickets[2] = {0, 0};
        const size_t bytes = (size_t)n * projected_len * sizeof(float);
        void *to = NULL;

        random_floats(&seed, trunk, (size_t)n * trunk_len);
        assert_int_equal(qformer_forward(q[0], n, trunk, false, &(struct qformer_out){.projected = want}), 0);
        for (int k = 0; k < 2; k++) { /* one behind the other */
            assert_int_equal(qformer_input(q[1], n, &to), 0);
            memcpy(to, trunk, (size_t)n * trunk_len * sizeof(float));
            assert_int_equal(
                qformer_forward(q[1], n, NULL, false,
                                &(struct qformer_out){.projected = got + (size_t)k * MAX_IMAGES * projected_len,
                                                      .projected_ticket = &tickets[k]}),
                0);
        }
        assert_int_equal(fake_async_ops_n_downloads(o[1]), 2);
        assert_int_equal(o[1]->f->download_wait(o[1], tickets[0]), 0);
        assert_memory_equal(got, want, bytes);
        assert_true(isnan(got[MAX_IMAGES * projected_len])); /* not yet */
        assert_int_equal(o[1]->f->download_wait(o[1], tickets[1]), 0);
        assert_memory_equal(got + MAX_IMAGES * projected_len, want, bytes);
    }
    assert_int_equal(fake_async_ops_n_keys(o[1]), MAX_IMAGES);
    free(trunk);
    free(want);
    free(got);
    for (int k = 0; k < 2; k++) {
        qformer_free(q[k]);
        ops_free(o[k]);
    }
    checkpoint_free(c);
}

/* The passes of a checkpoint with text: queries, texts and pairs, twice. */
static void test_fake_async_qformer_scores_texts(void **state)
{
    static const int32_t ids[] = {101, 7, 8, 102, 101, 9, 102}, start[] = {0, 4, 7}, image[] = {0, 1};
    const struct qformer_texts texts = {.n = 2, .ids = ids, .start = start};
    struct ops *o[2] = {plain_new(), fake_async_ops_new(plain_new())};
    uint64_t seed = fixture_seed("async_texts");
    struct checkpoint *c = NULL;
    struct err err = {""};
    float *itc[2], *embeds[2], logits[2][4], *trunk = NULL;
    size_t itc_len = 0, d = 0, trunk_len = 0;

    (void)state;
    LM_RIG_OK(checkpoint_open(ITM_C, &c, &err), err);
    fake_async_ops_refuse_recordings(o[1]);
    for (int k = 0; k < 2; k++) {
        struct qformer *q = NULL;

        LM_RIG_OK(qformer_new(o[k], c, 2, &q, &err), err);
        d = (size_t)qformer_embed_width(q);
        itc_len = 2 * (size_t)qformer_n_queries(q) * d;
        if (!trunk) {
            trunk_len = 2 * (size_t)qformer_n_tokens(q) * (size_t)qformer_image_width(q);
            trunk = viewer_floats(2 * trunk_len);
            random_floats(&seed, trunk, 2 * trunk_len);
        }
        itc[k] = viewer_floats(itc_len);
        embeds[k] = viewer_floats(2 * d);
        for (int twice = 0; twice < 2; twice++) { /* of other images */
            assert_int_equal(
                qformer_forward(q, 2, trunk + (size_t)twice * trunk_len, false, &(struct qformer_out){.itc = itc[k]}),
                0);
            assert_int_equal(qformer_text(q, &texts, embeds[k]), 0);
            assert_int_equal(qformer_match(q, &texts, image, logits[k]), 0);
        }
        qformer_free(q);
    }
    assert_memory_equal(itc[0], itc[1], itc_len * sizeof(float));
    assert_memory_equal(embeds[0], embeds[1], 2 * d * sizeof(float));
    assert_memory_equal(logits[0], logits[1], sizeof(logits[0]));
    for (int k = 0; k < 2; k++) {
        free(itc[k]);
        free(embeds[k]);
        ops_free(o[k]);
    }
    free(trunk);
    checkpoint_free(c);
}

/* -- language models -- */

static const char *model_dir;

enum { N_REQUESTS = 14, MAX_NEW = 9, N_PROMPTS = 4 };

/* Greedy and beams, with and without pictures, prompts of several lengths: mixed passes and steps. */
static void run_requests(struct lm *m, const float *rows, int n_queries, struct generate_result *ret)
{
    static const int32_t prompts[N_PROMPTS][5] = {{2}, {2, 5, 9}, {2, 11, 4, 7, 3}, {6, 6}};
    static const int n_prompt[N_PROMPTS] = {1, 3, 5, 2};
    struct generate *g = NULL;
    struct generate_result r;
    struct err err = {""};
    int n_done = 0;

    LM_RIG_OK(generate_new(m, N_REQUESTS, -1, &g, &err), err);
    for (int i = 0; i < N_REQUESTS; i++) {
        struct generate_request q = {.tag = (uint64_t)i,
                                     .image_rows = rows,
                                     .image_dtype = DTYPE_F32,
                                     .n_image_rows = i % 5 == 4 ? 0 : n_queries,
                                     .prompt = prompts[i % N_PROMPTS],
                                     .n_prompt = n_prompt[i % N_PROMPTS],
                                     .options = generation_options_default()};

        q.options.max_new_tokens = 1 + i % MAX_NEW;
        q.options.n_beams = i % 3 == 2 ? 3 : 1;
        LM_RIG_OK(generate_submit(g, &q, &err), err);
    }
    while (n_done < N_REQUESTS) {
        assert_true(generate_step(g) > 0);
        for (; generate_take(g, &r) == 1; n_done++)
            ret[r.tag] = r;
    }
    generate_free(g);
}

static void test_fake_async_language_model_steps_are_passes(void **state)
{
    const struct lm_limits limits = {.n_sequences = 16, .n_kv_rows = 700, .max_rows = 200};
    struct ops *o[3] = {plain_new(), fake_async_ops_new(plain_new()), fake_async_ops_new(plain_new())};
    struct generate_result got[3][N_REQUESTS] = {{{0}}};
    uint64_t seed = fixture_seed("async_language_model");
    struct checkpoint *c = NULL;
    float *rows = NULL;
    struct err err = {""};

    (void)state;
    LM_RIG_OK(checkpoint_open(model_dir, &c, &err), err);
    fake_async_ops_refuse_recordings(o[2]);
    for (int k = 0; k < 3; k++) {
        struct lm *m = NULL;

        LM_RIG_OK(lm_open(o[k], c, &limits, &m, &err), err);
        if (!rows) {
            rows = viewer_floats((size_t)c->config.n_queries * (size_t)lm_width(m));
            random_floats(&seed, rows, (size_t)c->config.n_queries * (size_t)lm_width(m));
        }
        run_requests(m, rows, c->config.n_queries, got[k]);
        lm_free(m);
    }
    assert_true(fake_async_ops_n_keys(o[1]) > 1);
    for (int i = 0; i < 3 * N_REQUESTS; i++) {
        const struct generate_sequence *a = got[0][i % N_REQUESTS].sequences,
                                       *b = got[i / N_REQUESTS][i % N_REQUESTS].sequences;

        assert_int_equal(a->n_ids, b->n_ids);
        assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof(*a->ids));
        assert_true(a->logprob == b->logprob && isfinite(a->logprob));
    }
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < N_REQUESTS; i++)
            generate_result_release(&got[k][i]);
        ops_free(o[k]);
    }
    free(rows);
    checkpoint_free(c);
}

/* Four sequences of a prompt of n_prompt ids, 33 tokens each. */
static void run_four(struct generate *g, int n_prompt)
{
    static const int32_t prompt[] = {2, 5, 7};
    struct generate_request r = {.prompt = prompt, .n_prompt = n_prompt, .options = generation_options_default()};
    struct generate_result done;
    struct err err = {""};

    r.options.max_new_tokens = 33;
    for (; r.tag < 4; r.tag++)
        LM_RIG_OK(generate_submit(g, &r, &err), err);
    for (int i = 0; i < 33; i++)
        assert_int_equal(generate_step(g), 4);
    assert_int_equal(generate_step(g), 0);
    while (generate_take(g, &done) == 1)
        generate_result_release(&done);
}

/* The same step again and again is the same key as long as its tails stay below a power of two; another longest prompt
 * is another key. */
static void test_fake_async_language_model_keys_are_few(void **state)
{
    struct ops *o = fake_async_ops_new(plain_new());
    const struct lm_limits limits = {.n_sequences = 4, .n_kv_rows = 400, .max_rows = 100};
    struct generate *g = NULL;
    struct checkpoint *c = NULL;
    struct lm *m = NULL;
    struct err err = {""};
    int n_keys;

    (void)state;
    LM_RIG_OK(checkpoint_open(model_dir, &c, &err), err);
    LM_RIG_OK(lm_open(o, c, &limits, &m, &err), err);
    LM_RIG_OK(generate_new(m, 4, -1, &g, &err), err);
    run_four(g, 2);
    n_keys = fake_async_ops_n_keys(o);
    assert_in_range(n_keys, 6, 7); /* tails of 1, 2, 4, 8, 16, 32; T5's are one longer */
    assert_int_equal(n_keys + fake_async_ops_n_replays(o), 32);
    run_four(g, 3);
    assert_int_equal(fake_async_ops_n_keys(o), 2 * n_keys);
    run_four(g, 2);
    assert_int_equal(fake_async_ops_n_keys(o), 2 * n_keys);
    generate_free(g);
    lm_free(m);
    checkpoint_free(c);
    ops_free(o);
}

/* -- memory -- */

static size_t free_bytes(struct ops *o)
{
    size_t n = 0, total;

    assert_int_equal(o->f->memory(o, &n, &total), 0);
    return n;
}

static void test_fake_async_cache_takes_what_is_free(void **state)
{
    const struct lm_limits wanted = {.n_sequences = 4, .n_kv_rows = 1000, .max_rows = 100, .least_kv_rows = 60};
    struct ops *o = fake_async_ops_new(plain_new());
    struct checkpoint *c = NULL;
    struct lm *m = NULL;
    struct err err = {""};
    size_t without, row_bytes, total = (size_t)1 << 30;

    (void)state;
    LM_RIG_OK(checkpoint_open(model_dir, &c, &err), err);
    fake_async_ops_set_memory(o, total);
    LM_RIG_OK(lm_open(o, c, &wanted, &m, &err), err);
    assert_int_equal(lm_get_limits(m)->n_kv_rows, 1000); /* plenty */
    row_bytes = lm_kv_bytes(m) / 1000;
    without = total - free_bytes(o) - lm_kv_bytes(m);
    lm_free(m);

    fake_async_ops_set_memory(o, without + 100 * row_bytes); /* 9/10 of it */
    LM_RIG_OK(lm_open(o, c, &wanted, &m, &err), err);
    assert_in_range(lm_get_limits(m)->n_kv_rows, 89, 90);
    assert_true(free_bytes(o) >= 10 * row_bytes);
    lm_free(m);

    fake_async_ops_set_memory(o, without + 60 * row_bytes); /* room for 54: not one sequence */
    assert_int_equal(lm_open(o, c, &wanted, &m, &err), -ENOMEM);
    assert_non_null(strstr(err.text, "up to 60 rows"));
    assert_non_null(strstr(err.text, "room for 5"));
    checkpoint_free(c);
    ops_free(o);
}

/* -- errors -- */

/* Whatever call fails, the error comes up, the device's words stay, and everything can be freed. */
static void test_fake_async_errors_come_up_from_every_call(void **state)
{
    struct checkpoint *c = NULL;
    struct err err = {""};
    uint8_t *rgb = NULL;
    int rc = -EIO, n = 0;

    (void)state;
    LM_RIG_OK(checkpoint_open(OPT_A, &c, &err), err);
    for (; rc < 0; n++) {
        struct ops *o = fake_async_ops_new(plain_new());
        struct vit *v = NULL;
        const void *features;

        LM_RIG_OK(vit_new(o, c, 1, &v, &err), err);
        if (!rgb)
            rgb = calloc(3, (size_t)vit_image_size(v) * (size_t)vit_image_size(v));
        assert_non_null(rgb);
        fake_async_ops_fail_in(o, n);
        rc = vit_forward(v, 1, rgb, &features);
        if (rc < 0) {
            assert_int_equal(rc, -EIO);
            assert_string_equal(o->why.text, "the card fell off the bus");
            assert_int_equal(o->f->sync(o), -EIO); /* no pass is open */
        }
        vit_free(v);
        ops_free(o);
    }
    assert_true(n > 20);
    free(rgb);
    checkpoint_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fake_async_encoder_overlaps_batches),
        cmocka_unit_test(test_fake_async_qformer_takes_what_is_filled_in),
        cmocka_unit_test(test_fake_async_qformer_scores_texts),
        cmocka_unit_test(test_fake_async_errors_come_up_from_every_call),
    };
    const struct CMUnitTest lm_tests[] = {
        cmocka_unit_test(test_fake_async_language_model_steps_are_passes),
        cmocka_unit_test(test_fake_async_language_model_keys_are_few),
        cmocka_unit_test(test_fake_async_cache_takes_what_is_free),
    };
    static const char *const models[] = {"tests/golden/opt_a", "tests/golden/opt_c", "tests/golden/t5_a"};
    int failed = cmocka_run_group_tests_name("fake_async", tests, NULL, NULL);

    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        model_dir = models[i];
        failed += cmocka_run_group_tests_name(model_dir, lm_tests, NULL, NULL);
    }
    return failed;
}
