/* The Q-Former by itself: what a result may depend on, and what it may not. Images are random features of itm_c's
 * shape. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <time.h>

#include "model/checkpoint.h"
#include "model/golden.h"
#include "qformer_worker/qformer.h"
#include "tensor/ops.h"
#include "tests/unit/fixture.h"
#include "tests/unit/qformer_probe.h"

#define RETRIEVAL_DIR "tests/golden/itm_c"
#define CAPTIONER_DIR "tests/golden/opt_a"

enum { N_IMAGES = 5, N_PAIRS = 90 /* more rows than are worked off at once */, MAX_LEN = 24 };

#define CHECK_OK(call, err)                        \
    do {                                           \
        if ((call) < 0)                            \
            fail_msg("%s: %s", #call, (err).text); \
    } while (0)

struct fixture {
    struct checkpoint *c;
    struct ops *o;
    struct qformer *q;
    unsigned seed;
    float *trunk; /* [N_IMAGES, P, C] */
    size_t trunk_len, itc_len, query_len;
    int d;
    int32_t ids[N_PAIRS * MAX_LEN], start[N_PAIRS + 1], image[N_PAIRS];
    float text[N_PAIRS * 64], logits[2 * N_PAIRS]; /* of all texts in one call */
};

static float uniform(unsigned *seed)
{
    return (float)rand_r(seed) / (float)RAND_MAX * 2 - 1;
}

static void *floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

static void draw(struct fixture *f)
{
    const int vocab = f->c->config.qformer.vocab_size;
    int at = 0;

    for (size_t i = 0; i < N_IMAGES * f->trunk_len; i++)
        f->trunk[i] = uniform(&f->seed);
    for (int i = 0; i < N_PAIRS; i++) {
        const int n = 1 + rand_r(&f->seed) % MAX_LEN;

        f->start[i] = at;
        f->image[i] = i * N_IMAGES / N_PAIRS;
        for (int k = 0; k < n; k++)
            f->ids[at++] = rand_r(&f->seed) % vocab;
    }
    f->start[N_PAIRS] = at;
}

static void set_up_with(struct fixture *f, struct ops *o, const char *dir)
{
    struct err err = {{0}};

    *f = (struct fixture){.o = o, .seed = (unsigned)time(NULL)};
    print_message("seed %u\n", f->seed);
    CHECK_OK(checkpoint_open(dir, &f->c, &err), err);
    CHECK_OK(qformer_new(o, f->c, N_IMAGES, &f->q, &err), err);
    f->d = qformer_embed_width(f->q);
    f->trunk_len = (size_t)qformer_n_tokens(f->q) * (size_t)qformer_image_width(f->q);
    f->itc_len = (size_t)qformer_n_queries(f->q) * (size_t)f->d;
    f->query_len = (size_t)qformer_n_queries(f->q) * (size_t)qformer_width(f->q);
    f->trunk = floats(N_IMAGES * f->trunk_len);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct qformer_texts all = {.n = N_PAIRS, .ids = f.ids, .start = f.start};
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    set_up_with(&f, o, RETRIEVAL_DIR);
    assert_true(f.d > 0 && f.d <= 64);
    draw(&f);
    assert_int_equal(qformer_text(f.q, &all, f.text), 0);
    assert_int_equal(qformer_load(f.q, N_IMAGES, f.trunk, false), 0);
    assert_int_equal(qformer_match(f.q, &all, f.image, f.logits), 0);
    *state = &f;
    return 0;
}

static void release(struct fixture *f)
{
    free(f->trunk);
    qformer_free(f->q);
    checkpoint_free(f->c);
    ops_free(f->o);
}

static int tear_down(void **state)
{
    release(*state);
    return 0;
}

static void test_qformer_text_does_not_depend_on_its_neighbours(void **state)
{
    struct fixture *f = *state;
    float alone[64];

    for (int i = N_PAIRS - 1; i >= 0; i--) {
        const struct qformer_texts one = {.n = 1, .ids = f->ids, .start = f->start + i};

        assert_int_equal(qformer_text(f->q, &one, alone), 0);
        assert_memory_equal(alone, f->text + (size_t)(i * f->d), (size_t)f->d * sizeof(float));
    }
}

static void test_qformer_match_does_not_depend_on_its_neighbours(void **state)
{
    struct fixture *f = *state;
    const int32_t first = 0;
    float alone[2];

    for (int i = N_PAIRS - 1; i >= 0; i--) {
        const struct qformer_texts one = {.n = 1, .ids = f->ids, .start = f->start + i};

        if (i == N_PAIRS - 1 || f->image[i] != f->image[i + 1])
            assert_int_equal(qformer_load(f->q, 1, f->trunk + (size_t)f->image[i] * f->trunk_len, false), 0);
        assert_int_equal(qformer_match(f->q, &one, &first, alone), 0);
        assert_memory_equal(alone, f->logits + (size_t)i * 2, sizeof(alone));
    }
}

/* The last image and its texts first, texts of an image backwards, and other cuts between calls. */
static void test_qformer_match_does_not_depend_on_the_order(void **state)
{
    struct fixture *f = *state;
    int32_t ids[N_PAIRS * MAX_LEN], start[N_PAIRS + 1] = {0}, image[N_PAIRS];
    float *trunk = floats(N_IMAGES * f->trunk_len), logits[2 * N_PAIRS];
    const int cut = 1 + rand_r(&f->seed) % (N_PAIRS - 1);

    for (int i = 0; i < N_IMAGES; i++)
        memcpy(trunk + (size_t)i * f->trunk_len, f->trunk + (size_t)(N_IMAGES - 1 - i) * f->trunk_len,
               f->trunk_len * sizeof(float));
    for (int i = 0; i < N_PAIRS; i++) {
        const int from = N_PAIRS - 1 - i, n = f->start[from + 1] - f->start[from];

        memcpy(ids + start[i], f->ids + f->start[from], (size_t)n * sizeof(*ids));
        start[i + 1] = start[i] + n;
        image[i] = N_IMAGES - 1 - f->image[from];
    }
    assert_int_equal(qformer_load(f->q, N_IMAGES, trunk, false), 0);
    assert_int_equal(qformer_match(f->q, &(struct qformer_texts){.n = cut, .ids = ids, .start = start}, image, logits),
                     0);
    assert_int_equal(qformer_match(f->q, &(struct qformer_texts){.n = N_PAIRS - cut, .ids = ids, .start = start + cut},
                                   image + cut, logits + (size_t)cut * 2),
                     0);
    for (int i = 0; i < N_PAIRS; i++)
        assert_memory_equal(logits + (size_t)i * 2, f->logits + (size_t)(N_PAIRS - 1 - i) * 2, 2 * sizeof(float));
    free(trunk);
}

/* Looking at them first changes nothing either. */
static void test_qformer_takes_images_that_are_on_the_device(void **state)
{
    struct fixture *f = *state;
    const struct qformer_texts all = {.n = N_PAIRS, .ids = f->ids, .start = f->start};
    const size_t n = N_IMAGES * f->trunk_len;
    float logits[2 * N_PAIRS];
    void *d_trunk;

    assert_int_equal(f->o->f->alloc(f->o, n * sizeof(float), &d_trunk), 0);
    for (int look = 0; look < 2; look++) { /* the trunks stay as they are */
        if (look == 0)
            assert_int_equal(f->o->f->upload(f->o, d_trunk, DTYPE_F32, f->trunk, DTYPE_F32, n), 0);
        assert_int_equal(qformer_load_device(f->q, N_IMAGES, d_trunk), 0);
        if (look)
            assert_int_equal(qformer_look(f->q, false), 0);
        assert_int_equal(qformer_match(f->q, &all, f->image, logits), 0);
        assert_memory_equal(logits, f->logits, sizeof(logits));
    }
    f->o->f->release(f->o, d_trunk);
}

static void test_qformer_images_do_not_depend_on_the_batch(void **state)
{
    struct fixture *f = *state;
    const size_t c = (size_t)qformer_image_width(f->q);
    struct qformer_out all = {
        .queries = floats(N_IMAGES * f->query_len), .itc = floats(N_IMAGES * f->itc_len), .cls = floats(N_IMAGES * c)};
    struct qformer_out one = {.queries = floats(f->query_len), .itc = floats(f->itc_len), .cls = floats(c)};

    assert_int_equal(qformer_forward(f->q, N_IMAGES, f->trunk, false, &all), 0);
    for (size_t i = N_IMAGES; i-- > 0;) {
        assert_int_equal(qformer_forward(f->q, 1, f->trunk + i * f->trunk_len, false, &one), 0);
        assert_memory_equal(one.queries, all.queries + i * f->query_len, f->query_len * sizeof(float));
        assert_memory_equal(one.itc, all.itc + i * f->itc_len, f->itc_len * sizeof(float));
        assert_memory_equal(one.cls, all.cls + i * c, c * sizeof(float));
    }
    free(all.queries);
    free(all.itc);
    free(all.cls);
    free(one.queries);
    free(one.itc);
    free(one.cls);
}

/* Keys and values left by a query pass are those that a match computes itself; a class token alone leaves none. */
static void test_qformer_match_after_a_query_pass_is_the_same(void **state)
{
    struct fixture *f = *state;
    const struct qformer_texts all = {.n = N_PAIRS, .ids = f->ids, .start = f->start};
    struct qformer_out out = {.itc = floats(N_IMAGES * f->itc_len)};
    struct qformer_out cls = {.cls = floats(N_IMAGES * (size_t)qformer_image_width(f->q))};
    float logits[2 * N_PAIRS];

    assert_int_equal(qformer_forward(f->q, N_IMAGES, f->trunk, false, &out), 0);
    assert_int_equal(qformer_match(f->q, &all, f->image, logits), 0);
    assert_memory_equal(logits, f->logits, sizeof(logits));
    for (size_t i = 0; i < f->trunk_len; i++) /* other images: nothing of those before may be left */
        f->trunk[i] = -f->trunk[i];
    assert_int_equal(qformer_forward(f->q, N_IMAGES, f->trunk, false, &cls), 0);
    assert_int_equal(qformer_match(f->q, &all, f->image, logits), 0);
    assert_memory_not_equal(logits, f->logits, 2 * sizeof(float));
    for (size_t i = 0; i < f->trunk_len; i++)
        f->trunk[i] = -f->trunk[i];
    free(out.itc);
    free(cls.cls);
}

static void test_qformer_embeddings_have_length_one(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < N_PAIRS; i++) {
        double sum = 0;

        for (int k = 0; k < f->d; k++)
            sum += (double)f->text[i * f->d + k] * (double)f->text[i * f->d + k];
        assert_true(fabs(sum - 1) < 1e-6);
    }
}

static void test_qformer_reads_the_longest_text(void **state)
{
    struct fixture *f = *state;
    const int n = qformer_max_text(f->q);
    int32_t *ids = calloc((size_t)n, sizeof(*ids)), start[2] = {0, n}, image = 0;
    const struct qformer_texts one = {.n = 1, .ids = ids, .start = start};
    float text[64], logits[2] = {NAN, NAN};

    assert_non_null(ids);
    assert_int_equal(n, f->c->config.qformer.max_positions);
    for (int i = 0; i < n; i++)
        ids[i] = i;
    assert_int_equal(qformer_text(f->q, &one, text), 0);
    assert_int_equal(qformer_load(f->q, 1, f->trunk, false), 0);
    assert_int_equal(qformer_match(f->q, &one, &image, logits), 0);
    assert_true(isfinite(logits[0]) && isfinite(logits[1]));
    free(ids);
}

static void test_qformer_refuses_ids_without_an_embedding(void **state)
{
    struct fixture *f = *state;
    const int32_t start[] = {0, 3}, image = 0, vocab = f->c->config.qformer.vocab_size;
    const int32_t bad[] = {-1, vocab, INT32_MAX, INT32_MIN};
    float text[64], logits[2];

    assert_int_equal(qformer_load(f->q, 1, f->trunk, false), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const int32_t ids[] = {2, bad[i], vocab - 1};
        const struct qformer_texts one = {.n = 1, .ids = ids, .start = start};

        assert_int_equal(qformer_text(f->q, &one, text), -EINVAL);
        assert_int_equal(qformer_match(f->q, &one, &image, logits), -EINVAL);
    }
}

/* The plain loops, which know nothing of blocks and batches, agree. */
static void test_qformer_agrees_with_the_definition(void **state)
{
    struct fixture *f = *state;
    const struct qformer_texts some = {.n = 12, .ids = f->ids, .start = f->start};
    float text[12 * 64], logits[2 * 12];
    struct qformer *q = NULL;
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_ref_new(&o, &err), err);
    CHECK_OK(qformer_new(o, f->c, 1, &q, &err), err);
    assert_int_equal(qformer_text(q, &some, text), 0);
    assert_true(golden_relative_error(f->text, text, 12 * (size_t)f->d) < 1e-5);
    assert_int_equal(f->image[11], 0);
    assert_int_equal(qformer_load(q, 1, f->trunk, false), 0);
    assert_int_equal(qformer_match(q, &some, f->image, logits), 0);
    assert_true(golden_relative_error(f->logits, logits, 2 * 12) < 1e-5);
    qformer_free(q);
    ops_free(o);
}

static void test_qformer_bf16_is_near_fp32(void **state)
{
    struct fixture *f = *state;
    const struct qformer_texts all = {.n = N_PAIRS, .ids = f->ids, .start = f->start};
    float *text = floats((size_t)(N_PAIRS * f->d)), logits[2 * N_PAIRS];
    struct qformer_out want = {.queries = floats(N_IMAGES * f->query_len), .itc = floats(N_IMAGES * f->itc_len)};
    struct qformer_out got = {.queries = floats(N_IMAGES * f->query_len), .itc = floats(N_IMAGES * f->itc_len)};
    struct qformer *q = NULL;
    struct ops *o = NULL;
    struct err err = {{0}};
    double e[4];

    assert_int_equal(qformer_forward(f->q, N_IMAGES, f->trunk, false, &want), 0);
    if (ops_cpu_new(2, DTYPE_BF16, fixture_cpu_isa(), &o, &err) == 0) {
        CHECK_OK(qformer_new(o, f->c, N_IMAGES, &q, &err), err);
        assert_int_equal(qformer_forward(q, N_IMAGES, f->trunk, false, &got), 0);
        assert_int_equal(qformer_text(q, &all, text), 0);
        assert_int_equal(qformer_match(q, &all, f->image, logits), 0);
        e[0] = golden_relative_error(got.queries, want.queries, N_IMAGES * f->query_len);
        e[1] = golden_relative_error(got.itc, want.itc, N_IMAGES * f->itc_len);
        e[2] = golden_relative_error(text, f->text, (size_t)(N_PAIRS * f->d));
        e[3] = golden_relative_error(logits, f->logits, (size_t)(2 * N_PAIRS));
        print_message("bf16: queries %.1e, ITC of images %.1e, of texts %.1e, ITM logits %.1e\n", e[0], e[1], e[2],
                      e[3]);
        for (int i = 0; i < 4; i++)
            assert_true(e[i] > 0 && e[i] < 3e-2);
        qformer_free(q);
        ops_free(o);
    }
    free(got.queries);
    free(got.itc);
    free(want.queries);
    free(want.itc);
    free(text);
    if (!q)
        skip();
}

static void test_qformer_of_a_captioner_reads_no_text(void **state)
{
    struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};
    float *features, *cls, *projected;
    size_t c, l;

    (void)state;
    CHECK_OK(ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    set_up_with(&f, o, CAPTIONER_DIR);
    for (size_t i = 0; i < N_IMAGES * f.trunk_len; i++)
        f.trunk[i] = uniform(&f.seed);
    assert_int_equal(qformer_embed_width(f.q), 0);
    assert_int_equal(qformer_max_text(f.q), 0);
    c = (size_t)qformer_image_width(f.q);
    l = (size_t)qformer_n_queries(f.q) * (size_t)qformer_language_width(f.q);
    features = floats(N_IMAGES * f.trunk_len);
    cls = floats(N_IMAGES * c);
    projected = floats(N_IMAGES * l);
    assert_int_equal(qformer_post_norm(f.q, N_IMAGES, f.trunk, features), 0);
    assert_int_equal(
        qformer_forward(f.q, N_IMAGES, f.trunk, false, &(struct qformer_out){.projected = projected, .cls = cls}), 0);
    for (size_t i = 0; i < N_IMAGES; i++)
        assert_memory_equal(cls + i * c, features + i * f.trunk_len, c * sizeof(float));
    assert_memory_not_equal(projected, projected + l, l * sizeof(float));
    free(features);
    free(cls);
    free(projected);
    release(&f);
}

static void test_qformer_similarity_is_that_of_the_best_query(void **state)
{
    const float itc[] = {1, 0, 0, -1, 0.6F, 0.8F}, text[] = {0, 1}, away[] = {-0.6F, -0.8F};

    (void)state;
    assert_true(fabsf(qformer_similarity(itc, text, 3, 2) - 0.8F) < 1e-7F);
    assert_true(fabsf(qformer_similarity(itc, text, 2, 2)) < 1e-7F);
    assert_true(fabsf(qformer_similarity(itc + 4, away, 1, 2) + 1) < 1e-6F);
    assert_true(isnan(qformer_similarity((const float[]){NAN, 1, 1, 0}, text, 2, 2)));
    assert_true(isnan(qformer_similarity((const float[]){1, 0, 0, NAN}, text, 2, 2)));
}

static void test_qformer_probability_is_the_softmax(void **state)
{
    (void)state;
    assert_true(qformer_probability((const float[]){3, 3}) == 0.5F);
    assert_true(fabs((double)qformer_probability((const float[]){0, 1}) - 0.7310585786) < 1e-7);
    assert_true(fabs((double)qformer_probability((const float[]){1, 0}) - 0.2689414214) < 1e-7);
    assert_true(qformer_probability((const float[]){-1e9F, 1e9F}) == 1);
    assert_true(qformer_probability((const float[]){1e9F, -1e9F}) == 0);
    assert_true(isnan(qformer_probability((const float[]){HUGE_VALF, 1})));
    assert_true(isnan(qformer_probability((const float[]){HUGE_VALF, HUGE_VALF})));
    assert_true(isnan(qformer_probability((const float[]){0, -HUGE_VALF})));
    assert_true(isnan(qformer_probability((const float[]){NAN, 0})));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qformer_text_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_qformer_match_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_qformer_match_does_not_depend_on_the_order),
        cmocka_unit_test(test_qformer_takes_images_that_are_on_the_device),
        cmocka_unit_test(test_qformer_images_do_not_depend_on_the_batch),
        cmocka_unit_test(test_qformer_match_after_a_query_pass_is_the_same),
        cmocka_unit_test(test_qformer_embeddings_have_length_one),
        cmocka_unit_test(test_qformer_reads_the_longest_text),
        cmocka_unit_test(test_qformer_refuses_ids_without_an_embedding),
        cmocka_unit_test(test_qformer_agrees_with_the_definition),
        cmocka_unit_test(test_qformer_bf16_is_near_fp32),
        cmocka_unit_test(test_qformer_of_a_captioner_reads_no_text),
        cmocka_unit_test(test_qformer_similarity_is_that_of_the_best_query),
        cmocka_unit_test(test_qformer_probability_is_the_softmax),
    };

    return cmocka_run_group_tests_name("qformer", tests, set_up, tear_down);
}
