/* The demo model on examples/images, picture file to text, against the reference's captions. */
#include "tests/unit/captioner.h"

#include <jansson.h>
#include <stdio.h>

enum { N_PICTURES = 24, MAX_NEW = 24, N_SEQUENCES = 10, BATCH = 7 };

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

    CHECK_OK(ops_cpu_new(2, DTYPE_F32, &o, &err), err);
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
    struct generate_options options = generate_options_default();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo_captions_equal_the_reference),
        cmocka_unit_test(test_demo_captions_with_a_prompt_equal_the_reference),
        cmocka_unit_test(test_demo_captions_of_five_beams_equal_the_reference),
    };

    return cmocka_run_group_tests_name("demo_captions", tests, set_up, tear_down);
}
