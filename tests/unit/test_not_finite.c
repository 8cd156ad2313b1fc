/* Every tensor of small checkpoints, one after the other, gets a NaN or an infinity: what a picture then gives is what
 * it gave before (nothing looks at that number), or it is not finite. There is nothing in between. */
#include "tests/unit/captioner.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/fixture.h"
#include "tests/unit/rewrite.h"

enum { MAX_OUTPUTS = 7, MAX_FLOATS = 1 << 14, N_NEW = 3, N_TEXTS = 2 };

/* What would be stored: each is an error as soon as one of its numbers is not finite. */
struct output {
    const char *name;
    size_t n;
    float x[MAX_FLOATS];
};
struct outputs {
    int n;
    struct output of[MAX_OUTPUTS];
};

/* A checkpoint whose numbers the test changes, in the file: the program has it mapped. */
struct patient {
    struct rewrite copy;
    int fd;
    size_t first_data; /* where the file's tensors begin */
    uint64_t random;
    uint8_t *rgb;
    struct captioner k; /* or: */
    struct viewer v;
    void (*run)(struct patient *p, struct outputs *out);
};

static float *output(struct outputs *out, const char *name, size_t n)
{
    struct output *o = &out->of[out->n++];

    assert_true(out->n <= MAX_OUTPUTS && n <= MAX_FLOATS);
    o->name = name;
    o->n = n;
    return o->x;
}

/* -- what a picture gives -- */

static void caption(struct captioner *k, const float *projected, int n_beams, bool sample, struct outputs *out)
{
    struct token_ids prompt = captioner_prompt(k, "a photo of");
    struct generation_options options = generation_options_default();
    float *x = output(out, sample ? "a sampled caption" : n_beams > 1 ? "a caption of beams" : "a caption", N_NEW + 2);
    struct generate *g = NULL;
    struct generate_result r;
    struct err err = {{0}};
    int rc;

    options.max_new_tokens = options.min_new_tokens = N_NEW;
    options.n_beams = n_beams;
    options.sample = sample;
    CHECK_OK(generate_new(k->lm, 1, k->c->config.image_token, &g, &err), err);
    captioner_submit(k, g, 0, projected, &prompt, &options);
    while ((rc = generate_step(g)) > 0)
        ;
    assert_int_equal(rc, 0);
    assert_int_equal(generate_take(g, &r), 1);
    for (int i = 0; i < N_NEW + 2; i++)
        x[i] = r.n_sequences == 0 ? NAN
               : i < N_NEW        ? (float)r.sequences[0].ids[i]
               : i == N_NEW       ? (float)r.sequences[0].logprob
                                  : (float)r.sequences[0].score;
    generate_result_release(&r);
    generate_free(g);
    token_ids_release(&prompt);
}

static void run_captioner(struct patient *p, struct outputs *out)
{
    struct captioner *k = &p->k;
    float *trunk, *projected;

    captioner_load(k, 4);
    trunk = captioner_floats(k->trunk_len);
    projected = captioner_floats(k->projected_len);
    captioner_look(k, 1, p->rgb, trunk, output(out, "the queries", k->query_len), projected);
    caption(k, projected, 1, false, out);
    caption(k, projected, 3, false, out);
    caption(k, projected, 1, true, out);
    free(trunk);
    free(projected);
    captioner_unload(k);
}

static void run_viewer(struct patient *p, struct outputs *out)
{
    static const char *const texts[N_TEXTS] = {"a red square", "two dogs"};
    struct viewer *v = &p->v;
    struct token_ids ids = {0};
    int32_t start[N_TEXTS + 1] = {0}, image[N_TEXTS] = {0};
    float *trunk, *itc, *text, *score, logits[2 * N_TEXTS];
    struct qformer_texts given;
    struct err err = {{0}};
    size_t d, n;

    viewer_load(v, 1);
    d = (size_t)qformer_embed_width(v->qformer);
    n = (size_t)qformer_n_queries(v->qformer);
    trunk = viewer_floats(v->trunk_len);
    for (int i = 0; i < N_TEXTS; i++) {
        CHECK_OK(tokenizer_encode(v->tokenizer, texts[i], strlen(texts[i]), true, &ids, &err), err);
        start[i + 1] = (int32_t)ids.n;
    }
    given = (struct qformer_texts){.n = N_TEXTS, .ids = ids.ids, .start = start};
    viewer_trunk(v, 1, p->rgb, trunk);
    itc = output(out, "itc", n * d);
    text = output(out, "itc_text", N_TEXTS * d);
    assert_int_equal(
        qformer_forward(v->qformer, 1, trunk, false,
                        &(struct qformer_out){.queries = output(out, "query", n * (size_t)qformer_width(v->qformer)),
                                              .cls = output(out, "cls", (size_t)qformer_image_width(v->qformer)),
                                              .itc = itc}),
        0);
    assert_int_equal(qformer_text(v->qformer, &given, text), 0);
    assert_int_equal(qformer_match(v->qformer, &given, image, logits), 0);
    for (int i = 0; i < N_TEXTS; i++) { /* each is a number of its own */
        score = output(out, "the scores", 2);
        score[0] = qformer_similarity(itc, text + (size_t)i * d, (int)n, (int)d);
        score[1] = qformer_probability(logits + (size_t)2 * (size_t)i);
    }
    token_ids_release(&ids);
    free(trunk);
    viewer_unload(v);
}

/* -- one tensor after the other -- */

static bool is_finite(const struct output *o)
{
    for (size_t i = 0; i < o->n; i++)
        if (!isfinite(o->x[i]))
            return false;
    return true;
}

static void compare(const char *what, const struct outputs *clean, const struct outputs *out)
{
    for (int i = 0; i < clean->n; i++)
        for (size_t k = 0; is_finite(&out->of[i]) && k < clean->of[i].n; k++) {
            const float was = clean->of[i].x[k], is = out->of[i].x[k];

            if (fabsf(is - was) > 1e-4f * (1 + fabsf(was)))
                fail_msg("%s: %s is finite, number %zu is %g instead of %g", what, clean->of[i].name, k, (double)is,
                         (double)was);
        }
}

static void put(const struct patient *p, const struct rewrite_tensor *t, size_t at, const void *bytes, size_t n)
{
    size_t offset = p->first_data;

    for (const struct rewrite_tensor *before = p->copy.tensors; before < t; before++)
        offset += before->size_bytes;
    assert_int_equal(pwrite(p->fd, bytes, n, (off_t)(offset + at)), n);
}

/* One number of the tensor, or all of them times it. */
static void spoil(const struct patient *p, const struct rewrite_tensor *t, float bad, int64_t one)
{
    const size_t element = dtype_size_bytes(t->tensor.dtype), n = t->size_bytes / element;
    float *x = captioner_floats(n);
    unsigned char *bytes = malloc(t->size_bytes);

    assert_non_null(bytes);
    tensor_to_f32(x, t->tensor.dtype, t->tensor.data, n);
    for (size_t i = 0; i < n; i++)
        x[i] = one < 0 ? x[i] * bad : (int64_t)i == one ? bad : x[i];
    tensor_from_f32(bytes, t->tensor.dtype, x, n);
    put(p, t, 0, bytes, t->size_bytes);
    free(bytes);
    free(x);
}

/* One number, or all of them; returns whether anything shows it. */
static bool check_tensor(struct patient *p, const struct rewrite_tensor *t, float bad, int64_t one,
                         const struct outputs *clean)
{
    static struct outputs out;
    char what[256];

    (void)snprintf(what, sizeof(what), "%s, %g as number %lld", t->name, (double)bad, (long long)one);
    spoil(p, t, bad, one);
    out.n = 0;
    p->run(p, &out);
    put(p, t, 0, t->tensor.data, t->size_bytes);
    compare(what, clean, &out);
    for (int i = 0; i < out.n; i++)
        if (!is_finite(&out.of[i]))
            return true;
    return false;
}

static void check_tensors(struct patient *p)
{
    static const float bad[] = {NAN, HUGE_VALF, -HUGE_VALF};
    static struct outputs clean;
    size_t n_seen = 0;

    clean.n = 0;
    p->run(p, &clean);
    for (int i = 0; i < clean.n; i++)
        assert_true(is_finite(&clean.of[i]));
    for (size_t i = 0; i < p->copy.n_tensors; i++) {
        const struct rewrite_tensor *t = &p->copy.tensors[i];
        const uint64_t n = t->size_bytes / dtype_size_bytes(t->tensor.dtype);

        n_seen +=
            check_tensor(p, t, bad[fixture_random(&p->random) % 3], (int64_t)(fixture_random(&p->random) % n), &clean);
        if (fixture_random(&p->random) % 4 == 0 && !check_tensor(p, t, HUGE_VALF, -1, &clean))
            print_message("%s: nothing looks at it\n", t->name);
    }
    assert_in_range(n_seen, p->copy.n_tensors * 3 / 4, p->copy.n_tensors);
}

static void open_copy(struct patient *p, const char *dir, void (*run)(struct patient *p, struct outputs *out))
{
    uint64_t header;
    char path[128];

    *p = (struct patient){.random = fixture_seed("not_finite"), .run = run};
    rewrite_open(&p->copy, dir);
    rewrite_save(&p->copy, 1);
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", p->copy.dir);
    p->fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(p->fd >= 0);
    assert_int_equal(pread(p->fd, &header, sizeof(header), 0), sizeof(header));
    p->first_data = sizeof(header) + (size_t)header;
}

static void close_copy(struct patient *p)
{
    free(p->rgb);
    (void)close(p->fd);
    rewrite_close(&p->copy);
}

static void check_captioner(const char *dir)
{
    static struct patient p;
    struct ops *o = NULL;
    struct err err = {{0}};

    open_copy(&p, dir, run_captioner);
    CHECK_OK(ops_cpu_new(1, DTYPE_F32, CPU_ISA_AUTO, &o, &err), err);
    captioner_open(&p.k, p.copy.dir, o, 1, 4);
    p.rgb = malloc(p.k.image_bytes);
    assert_non_null(p.rgb);
    captioner_pixels(&p.k, "tests/golden/images_odd/scene_0001.jpg", p.rgb);
    captioner_unload(&p.k);
    check_tensors(&p);
    p.k.lm = NULL;
    p.k.qformer = NULL;
    p.k.vit = NULL;
    captioner_close(&p.k);
    close_copy(&p);
}

static void test_not_finite_opt(void **state)
{
    (void)state;
    check_captioner("tests/golden/opt_c");
}

static void test_not_finite_t5(void **state)
{
    (void)state;
    check_captioner("tests/golden/t5_c");
}

static void test_not_finite_itm(void **state)
{
    static struct patient p;
    struct ops *o = NULL;
    struct err err = {{0}};

    (void)state;
    open_copy(&p, "tests/golden/itm_c", run_viewer);
    CHECK_OK(ops_cpu_new(1, DTYPE_F32, CPU_ISA_AUTO, &o, &err), err);
    viewer_open(&p.v, p.copy.dir, o, 1);
    p.rgb = malloc(p.v.image_bytes);
    assert_non_null(p.rgb);
    viewer_pixels(p.v.vit, "tests/golden/images_odd/scene_0001.jpg", p.rgb);
    viewer_unload(&p.v);
    check_tensors(&p);
    p.v.qformer = NULL;
    p.v.vit = NULL;
    viewer_close(&p.v);
    close_copy(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_finite_opt),
        cmocka_unit_test(test_not_finite_t5),
        cmocka_unit_test(test_not_finite_itm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
