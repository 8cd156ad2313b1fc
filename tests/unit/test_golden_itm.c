/* Retrieval against the reference: every tensor of tests/golden/itm_c from picture files and texts, and the scores of
 * the demo model on examples/images. */
#include "tests/unit/fixture.h"
#include "tests/unit/viewer.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "model/golden.h"
#include "tests/unit/qformer_probe.h"

#define GOLDEN_DIR "tests/golden/itm_c"
#define DEMO_DIR "models/blip2-itm-demo"

enum { N_IMAGES = 4, MAX_TEXTS = 16, DEMO_BATCH = 5, DEMO_PICTURES = 24 };

/* Texts as the Q-Former takes them. */
struct texts {
    struct token_ids ids;
    int32_t start[MAX_TEXTS + 1], image[MAX_TEXTS];
    int n;
};

struct fixture {
    struct viewer v;
    struct golden *g;
    float *trunk;
};

static void add_text(struct viewer *v, struct texts *t, const char *text, int image)
{
    struct err err = {{0}};

    assert_true(t->n < MAX_TEXTS && text);
    CHECK_OK(tokenizer_encode(v->tokenizer, text, strlen(text), true, &t->ids, &err), err);
    t->image[t->n++] = image;
    t->start[t->n] = (int32_t)t->ids.n;
}

static struct qformer_texts as_given(const struct texts *t)
{
    return (struct qformer_texts){.n = t->n, .ids = t->ids.ids, .start = t->start};
}

static void set_up(struct fixture *f, struct ops *o)
{
    struct err err = {{0}};
    char path[4096];
    uint8_t *rgb;

    viewer_open(&f->v, GOLDEN_DIR, o, N_IMAGES);
    CHECK_OK(golden_open(GOLDEN_DIR, &f->g, &err), err);
    assert_int_equal(f->g->n_images, N_IMAGES);
    rgb = malloc(N_IMAGES * f->v.image_bytes);
    assert_non_null(rgb);
    for (int i = 0; i < N_IMAGES; i++) {
        CHECK_OK(golden_image_path(f->g, i, path, sizeof(path), &err), err);
        viewer_pixels(f->v.vit, path, rgb + (size_t)i * f->v.image_bytes);
    }
    f->trunk = viewer_floats(N_IMAGES * f->v.trunk_len);
    viewer_trunk(&f->v, N_IMAGES, rgb, f->trunk);
    free(rgb);
}

static int set_up_cpu(void **state)
{
    static struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    set_up(&f, o);
    *state = &f;
    return 0;
}

static int set_up_ref(void **state)
{
    static struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_ref_new(&o, &err), err);
    set_up(&f, o);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    free(f->trunk);
    golden_free(f->g);
    viewer_close(&f->v);
    return 0;
}

static void check_stage(const struct fixture *f, const char *name, int n_dims, const int64_t *shape, const float *got)
{
    struct err err = {{0}};
    float *want = NULL;
    size_t n = 1;
    double e;

    CHECK_OK(golden_floats(f->g, name, n_dims, shape, &want, &err), err);
    for (int i = 0; i < n_dims; i++)
        n *= (size_t)shape[i];
    e = golden_relative_error(got, want, n);
    print_message("%s %-26s %.2e\n", f->v.o->f->name, name, e);
    if (!(e <= GOLDEN_LIMIT))
        fail_msg("%s on %s: relative error %g, limit %g", name, f->v.o->f->name, e, GOLDEN_LIMIT);
    free(want);
}

static void golden_texts(struct fixture *f, int n_images, struct texts *ret)
{
    const json_t *texts = json_object_get(f->g->expected, "texts");

    *ret = (struct texts){.n = 0};
    assert_int_equal(json_array_size(texts), 4);
    for (int i = 0; i < n_images; i++)
        for (size_t k = 0; k < json_array_size(texts); k++)
            add_text(&f->v, ret, json_string_value(json_array_get(texts, k)), i);
}

static void test_golden_itm_features_match_the_reference(void **state)
{
    struct fixture *f = *state;
    struct qformer *q = f->v.qformer;
    const int64_t p = qformer_n_tokens(q), c = qformer_image_width(q), n_queries = qformer_n_queries(q);
    const int64_t e = qformer_width(q);
    float *features = viewer_floats(N_IMAGES * f->v.trunk_len), *cls = viewer_floats((size_t)(N_IMAGES * c));
    float *queries = viewer_floats((size_t)(N_IMAGES * n_queries * e));

    assert_int_equal(qformer_post_norm(q, N_IMAGES, f->trunk, features), 0);
    check_stage(f, "vision_last_hidden_state", 3, (const int64_t[]){N_IMAGES, p, c}, features);
    assert_int_equal(
        qformer_forward(q, N_IMAGES, f->trunk, false, &(struct qformer_out){.queries = queries, .cls = cls}), 0);
    check_stage(f, "qformer_last_hidden_state", 3, (const int64_t[]){N_IMAGES, n_queries, e}, queries);
    for (int i = 0; i < N_IMAGES; i++)
        assert_memory_equal(cls + i * c, features + (size_t)i * f->v.trunk_len, (size_t)c * sizeof(float));
    free(queries);
    free(cls);
    free(features);
}

static void test_golden_itm_contrastive_scores_match_the_reference(void **state)
{
    struct fixture *f = *state;
    struct qformer *q = f->v.qformer;
    const int n_queries = qformer_n_queries(q), d = qformer_embed_width(q);
    float *itc = viewer_floats((size_t)(N_IMAGES * n_queries * d)), *text = viewer_floats((size_t)(MAX_TEXTS * d));
    float similarity[N_IMAGES * MAX_TEXTS];
    struct texts texts;
    struct qformer_texts given;

    golden_texts(f, 1, &texts);
    given = as_given(&texts);
    assert_int_equal(qformer_forward(q, N_IMAGES, f->trunk, false, &(struct qformer_out){.itc = itc}), 0);
    assert_int_equal(qformer_text(q, &given, text), 0);
    for (int i = 0; i < N_IMAGES; i++)
        for (int k = 0; k < texts.n; k++)
            similarity[i * texts.n + k] =
                qformer_similarity(itc + (size_t)(i * n_queries * d), text + (size_t)(k * d), n_queries, d);
    check_stage(f, "itc_image_embeds", 3, (const int64_t[]){N_IMAGES, n_queries, d}, itc);
    check_stage(f, "itc_text_embeds", 2, (const int64_t[]){texts.n, d}, text);
    check_stage(f, "itc_similarity", 2, (const int64_t[]){N_IMAGES, texts.n}, similarity);
    token_ids_release(&texts.ids);
    free(text);
    free(itc);
}

static void test_golden_itm_matching_logits_match_the_reference(void **state)
{
    struct fixture *f = *state;
    struct texts texts;
    struct qformer_texts given;
    float logits[2 * MAX_TEXTS];

    golden_texts(f, N_IMAGES, &texts);
    given = as_given(&texts);
    assert_int_equal(qformer_load(f->v.qformer, N_IMAGES, f->trunk, false), 0);
    assert_int_equal(qformer_match(f->v.qformer, &given, texts.image, logits), 0);
    check_stage(f, "itm_logits", 3, (const int64_t[]){N_IMAGES, texts.n / N_IMAGES, 2}, logits);
    token_ids_release(&texts.ids);
}

/* -- the demo model -- */

static void check_near(const char *name, const char *what, double got, const json_t *want)
{
    if (!(fabs(got - json_number_value(want)) <= 1e-3))
        fail_msg("%s: %s is %.6f, the reference says %.6f", name, what, got, json_number_value(want));
}

/* n pictures in one batch with all their texts. */
static void check_demo_batch(struct viewer *v, int n, const char **names, json_t **answers)
{
    const int n_queries = qformer_n_queries(v->qformer), d = qformer_embed_width(v->qformer);
    uint8_t *rgb = malloc((size_t)n * v->image_bytes);
    float *trunk = viewer_floats((size_t)n * v->trunk_len), *itc = viewer_floats((size_t)(n * n_queries * d));
    float *text = viewer_floats((size_t)(MAX_TEXTS * d)), logits[2 * MAX_TEXTS];
    struct texts texts = {.n = 0};
    struct qformer_texts given;
    char path[512];
    int at = 0;

    assert_non_null(rgb);
    for (int i = 0; i < n; i++) {
        const json_t *list = json_object_get(answers[i], "score_texts");

        snprintf(path, sizeof(path), "examples/images/%s", names[i]);
        viewer_pixels(v->vit, path, rgb + (size_t)i * v->image_bytes);
        assert_int_equal(json_array_size(list), 3);
        for (size_t k = 0; k < 3; k++)
            add_text(v, &texts, json_string_value(json_array_get(list, k)), i);
    }
    viewer_trunk(v, n, rgb, trunk);
    given = as_given(&texts);
    assert_int_equal(qformer_forward(v->qformer, n, trunk, false, &(struct qformer_out){.itc = itc}), 0);
    assert_int_equal(qformer_text(v->qformer, &given, text), 0);
    assert_int_equal(qformer_match(v->qformer, &given, texts.image, logits), 0);
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < 3; k++, at++) {
            const float *image = itc + (size_t)(i * n_queries * d), *words = text + (size_t)(at * d);

            check_near(names[i], "ITC", (double)qformer_similarity(image, words, n_queries, d),
                       json_array_get(json_object_get(answers[i], "itc"), k));
            check_near(names[i], "ITM", (double)qformer_probability(logits + (size_t)2 * (size_t)at),
                       json_array_get(json_object_get(answers[i], "itm"), k));
        }
    token_ids_release(&texts.ids);
    free(text);
    free(itc);
    free(trunk);
    free(rgb);
}

static void test_golden_itm_demo_scores_match_the_reference(void **state)
{
    json_t *answers = json_load_file("tests/golden/decode/demo_answers.json", 0, NULL), *answer, *batch[DEMO_BATCH];
    const char *name, *names[DEMO_BATCH];
    struct viewer v;
    struct ops *o = NULL;
    struct err err = {{0}};
    int n = 0, n_seen = 0;

    (void)state;
    assert_int_equal(json_object_size(answers), DEMO_PICTURES);
    CHECK_OK(ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    viewer_open(&v, DEMO_DIR, o, DEMO_BATCH);
    json_object_foreach(answers, name, answer)
    {
        names[n] = name;
        batch[n++] = answer;
        if (++n_seen < DEMO_PICTURES && n < DEMO_BATCH)
            continue;
        check_demo_batch(&v, n, names, batch);
        n = 0;
    }
    assert_int_equal(n_seen, DEMO_PICTURES);
    viewer_close(&v);
    json_decref(answers);
}

int main(void)
{
    const struct CMUnitTest on_cpu[] = {
        cmocka_unit_test(test_golden_itm_features_match_the_reference),
        cmocka_unit_test(test_golden_itm_contrastive_scores_match_the_reference),
        cmocka_unit_test(test_golden_itm_matching_logits_match_the_reference),
        cmocka_unit_test(test_golden_itm_demo_scores_match_the_reference),
    };
    const struct CMUnitTest on_ref[] = {
        cmocka_unit_test(test_golden_itm_features_match_the_reference),
        cmocka_unit_test(test_golden_itm_contrastive_scores_match_the_reference),
        cmocka_unit_test(test_golden_itm_matching_logits_match_the_reference),
    };
    int failed = cmocka_run_group_tests_name("golden_itm cpu", on_cpu, set_up_cpu, tear_down);

    return failed + cmocka_run_group_tests_name("golden_itm ref", on_ref, set_up_ref, tear_down);
}
