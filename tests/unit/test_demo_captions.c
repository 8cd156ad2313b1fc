/* The demo model on examples/images, picture file to text, against the reference's captions and all of its decoding
 * options. */
#include "tests/unit/captioner.h"
#include "tests/unit/fixture.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "llm_worker/generate_json.h"

enum { N_PICTURES = 24, MAX_NEW = 24, N_SEQUENCES = 48, BATCH = 7, N_ROWS = 48 };

struct fixture {
    struct captioner k;
    json_t *answers;
    const char *names[N_PICTURES];
    float *projected;
};

static int set_up(void **state)
{
    static struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};
    const char *name;
    json_t *answer;
    uint8_t *rgb;
    float *trunk, *queries;
    int n = 0;

    CHECK_OK(ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    captioner_open(&f.k, "models/blip2-opt-demo", o, BATCH, N_SEQUENCES);
    f.answers = json_load_file("tests/golden/decode/demo_answers.json", 0, NULL);
    assert_int_equal(json_object_size(f.answers), N_PICTURES);
    rgb = malloc(N_PICTURES * f.k.image_bytes);
    assert_non_null(rgb);
    json_object_foreach(f.answers, name, answer)
    {
        char path[512];

        snprintf(path, sizeof(path), "examples/images/%s", name);
        captioner_pixels(&f.k, path, rgb + (size_t)n * f.k.image_bytes);
        f.names[n++] = name;
    }
    f.projected = captioner_floats(N_PICTURES * f.k.projected_len);
    trunk = captioner_floats(BATCH * f.k.trunk_len);
    queries = captioner_floats(BATCH * f.k.query_len);
    for (int i = 0; i < N_PICTURES; i += BATCH)
        captioner_look(&f.k, N_PICTURES - i < BATCH ? N_PICTURES - i : BATCH, rgb + (size_t)i * f.k.image_bytes, trunk,
                       queries, f.projected + (size_t)i * f.k.projected_len);
    free(rgb);
    free(trunk);
    free(queries);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    free(f->projected);
    json_decref(f->answers);
    captioner_close(&f->k);
    return 0;
}

/* The text of new ids, stripped at both ends. */
static void caption_text(const struct captioner *k, const struct generate_sequence *s, struct buf *ret)
{
    struct err err = {{0}};
    size_t begin = 0;
    int n = s->n_ids - (s->finish == GENERATE_FINISH_EOS);

    buf_clear(ret);
    CHECK_OK(tokenizer_decode(k->tokenizer, s->ids, (size_t)n, true, ret, &err), err);
    while (ret->size_bytes > 0 && strchr(" \n\t", ret->data[ret->size_bytes - 1]))
        ret->size_bytes--;
    while (begin < ret->size_bytes && strchr(" \n\t", ret->data[begin]))
        begin++;
    ret->size_bytes -= begin;
    memmove(ret->data, ret->data + begin, ret->size_bytes);
    CHECK_OK(buf_append(ret, "", 1), err);
}

static void check_captions(struct fixture *f, const char *prompt, int n_beams, const char *answer)
{
    struct token_ids ids = captioner_prompt(&f->k, prompt);
    struct generation_options options = generation_options_default();
    struct generate *g = NULL;
    struct generate_result r;
    struct buf text;
    struct err err = {{0}};
    int n = 0, rc;

    options.max_new_tokens = MAX_NEW;
    options.n_beams = n_beams;
    CHECK_OK(generate_new(f->k.lm, N_PICTURES, f->k.c->config.image_token, &g, &err), err);
    for (int i = 0; i < N_PICTURES; i++)
        captioner_submit(&f->k, g, (uint64_t)i, f->projected + (size_t)i * f->k.projected_len, &ids, &options);
    while ((rc = generate_step(g)) > 0)
        ;
    assert_int_equal(rc, 0);
    buf_init(&text, 0);
    for (; generate_take(g, &r) == 1; n++) {
        const json_t *want = json_object_get(json_object_get(f->answers, f->names[r.tag]), answer);

        assert_int_equal(r.n_sequences, 1);
        caption_text(&f->k, r.sequences, &text);
        if (!json_is_string(want) || strcmp((const char *)text.data, json_string_value(want)) != 0)
            fail_msg("%s: \"%s\", the reference says \"%s\"", f->names[r.tag], (const char *)text.data,
                     json_string_value(want));
        generate_result_release(&r);
    }
    assert_int_equal(n, N_PICTURES);
    buf_release(&text);
    token_ids_release(&ids);
    generate_free(g);
}

static void test_demo_captions_equal_the_reference(void **state)
{
    check_captions(*state, NULL, 1, "greedy");
}

static void test_demo_captions_with_a_prompt_equal_the_reference(void **state)
{
    check_captions(*state, "a photo of", 1, "photo");
}

static void test_demo_captions_of_five_beams_equal_the_reference(void **state)
{
    check_captions(*state, NULL, 5, "beam5");
}

static void submit_row(const struct fixture *f, struct generate *g, const json_t *row, int number)
{
    struct token_ids ids = captioner_prompt(&f->k, json_string_value(json_object_get(row, "prompt")));
    struct generation_options options = generation_options_default();
    struct err err = {{0}};

    CHECK_OK(generate_json_options(json_object_get(row, "options"), &options, &err), err);
    for (int i = 0; i < N_PICTURES; i++)
        captioner_submit(&f->k, g, (uint64_t)(number * N_PICTURES + i), f->projected + (size_t)i * f->k.projected_len,
                         &ids, &options);
    token_ids_release(&ids);
}

/* Sequence s of picture i. */
static void check_sequence(const struct fixture *f, const json_t *row, int i, int s, int n,
                           const struct generate_sequence *got, struct buf *text)
{
    const size_t at = (size_t)(i * n + s);
    const json_t *ids = json_array_get(json_object_get(row, "ids"), at);
    const json_t *score = json_array_get(json_object_get(row, "sequences_scores"), at);
    const char *want = json_string_value(json_array_get(json_object_get(row, "text"), at));
    bool same = (size_t)got->n_ids == json_array_size(ids);

    for (int k = 0; same && k < got->n_ids; k++)
        same = got->ids[k] == json_integer_value(json_array_get(ids, (size_t)k));
    caption_text(&f->k, got, text);
    if (!same || !want || strcmp((const char *)text->data, want) != 0)
        fail_msg("%s, sequence %d: \"%s\", the reference says \"%s\"", f->names[i], s, (const char *)text->data, want);
    if (score) {
        const double w = json_number_value(score);

        if (!(fabs(got->score - w) <= 1e-4 * fmax(1, fabs(w))))
            fail_msg("%s, sequence %d: score %.7g, the reference says %.7g", f->names[i], s, got->score, w);
    }
}

/* Three prompts, sixteen sets of options, every picture, all at once. */
static void test_demo_captions_of_every_option_equal_the_reference(void **state)
{
    struct fixture *f = *state;
    json_t *golden = json_load_file("tests/golden/decode/demo.json", 0, NULL);
    const json_t *rows = json_object_get(golden, "generate"), *images = json_object_get(golden, "images");
    struct generate *g = NULL;
    struct generate_result r;
    struct buf text;
    struct err err = {{0}};
    int n = 0, rc;

    assert_int_equal(json_array_size(rows), N_ROWS);
    for (int i = 0; i < N_PICTURES; i++)
        assert_string_equal(f->names[i], json_string_value(json_array_get(images, (size_t)i)));
    CHECK_OK(generate_new(f->k.lm, N_ROWS * N_PICTURES, f->k.c->config.image_token, &g, &err), err);
    for (int i = 0; i < N_ROWS; i++)
        submit_row(f, g, json_array_get(rows, (size_t)i), i);
    buf_init(&text, 0);
    while ((rc = generate_step(g)) > 0)
        for (; generate_take(g, &r) == 1; n++) {
            const json_t *row = json_array_get(rows, r.tag / N_PICTURES);

            assert_int_equal(json_array_size(json_object_get(row, "ids")), N_PICTURES * r.n_sequences);
            for (int s = 0; s < r.n_sequences; s++)
                check_sequence(f, row, (int)(r.tag % N_PICTURES), s, r.n_sequences, &r.sequences[s], &text);
            generate_result_release(&r);
        }
    assert_int_equal(rc, 0);
    assert_int_equal(n, N_ROWS * N_PICTURES);
    buf_release(&text);
    generate_free(g);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo_captions_equal_the_reference),
        cmocka_unit_test(test_demo_captions_with_a_prompt_equal_the_reference),
        cmocka_unit_test(test_demo_captions_of_five_beams_equal_the_reference),
        cmocka_unit_test(test_demo_captions_of_every_option_equal_the_reference),
    };

    return cmocka_run_group_tests_name("demo_captions", tests, set_up, tear_down);
}
