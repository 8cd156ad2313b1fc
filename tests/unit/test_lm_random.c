/* Random language models of odd shapes against the logits that transformers gives for them (tests/golden/lm_random). */
#include "tests/unit/fixture.h"
#include "tests/unit/lm_rig.h"

#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "model/golden.h"
#include "model/weights.h"

#define EXPECTED "tests/golden/lm_random/expected.json"

enum { MAX_IDS = 64 };

static const char *ops_name;

/* -- the checkpoint -- */

/* The same numbers as make.py's. */
static void values(const char *name, float *ret, size_t n)
{
    uint64_t state = 0xcbf29ce484222325;

    for (const char *c = name; *c; c++)
        state = (state ^ (uint8_t)*c) * 0x100000001b3;
    for (size_t i = 0; i < n; i++)
        ret[i] = (float)(fixture_random(&state) >> 40) / (1 << 23) - 1;
}

static void weights_of(const char *name, float *ret, size_t n)
{
    values(name, ret, n);
    for (size_t i = 0; i < n; i++) {
        if (strstr(name, "relative_attention_bias"))
            ret[i] *= 2;
        else if (strstr(name, "norm.weight"))
            ret[i] = 1 + ret[i] / 2;
        else if (!strstr(name, "embed") && !strstr(name, "shared"))
            ret[i] /= 4;
    }
}

static bool is_stored(const struct weight_spec *s, const json_t *the_case)
{
    if (s->stage != STAGE_LLM)
        return false;
    return s->kind == WEIGHT_REQUIRED ||
           (s->kind == WEIGHT_OPTIONAL && json_is_true(json_object_get(the_case, "own_head")));
}

/* T5's embedding is stored under another of its names where the case asks for aliases. */
static const char *stored_name(const struct weight_spec *s, const json_t *the_case)
{
    if (json_is_true(json_object_get(the_case, "aliases")) && strcmp(s->name, "language_model.shared.weight") == 0)
        return "language_model.encoder.embed_tokens.weight";
    return s->name;
}

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[256];
    struct err err = {""};

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    LM_RIG_OK(file_write_atomic(path, data, n, &err), err);
}

static void write_tensors(const char *dir, const json_t *the_case, const struct config *config)
{
    json_t *header = json_object();
    struct buf data = {0}, file = {0};
    struct weights w;
    uint64_t length;
    char *text;

    buf_init(&data, 0);
    buf_init(&file, 0);
    assert_int_equal(weights_init(&w, config), 0);
    for (size_t i = 0; i < w.n_specs; i++) {
        const struct weight_spec *s = &w.specs[i];
        json_t *shape = json_array();
        size_t n = 1;
        float *v;

        for (int d = 0; d < s->n_dims; d++) {
            n *= (size_t)s->shape[d];
            json_array_append_new(shape, json_integer(s->shape[d]));
        }
        if (is_stored(s, the_case)) {
            v = malloc(n * sizeof(*v));
            assert_non_null(v);
            weights_of(s->name, v, n);
            json_object_set_new(header, stored_name(s, the_case),
                                json_pack("{s:s, s:O, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                                          (json_int_t)data.size_bytes, (json_int_t)(data.size_bytes + n * sizeof(*v))));
            assert_int_equal(buf_append(&data, v, n * sizeof(*v)), 0);
            free(v);
        }
        json_decref(shape);
    }
    text = json_dumps(header, JSON_COMPACT);
    length = strlen(text);
    assert_int_equal(buf_append(&file, &length, sizeof(length)), 0);
    assert_int_equal(buf_append(&file, text, length), 0);
    assert_int_equal(buf_append(&file, data.data, data.size_bytes), 0);
    write_file(dir, "model.safetensors", file.data, file.size_bytes);
    free(text);
    json_decref(header);
    weights_release(&w);
    buf_release(&data);
    buf_release(&file);
}

static void write_checkpoint(const char *dir, json_t *the_case)
{
    json_t *config = json_pack("{s:[s], s:s, s:O}", "architectures", "Blip2ForConditionalGeneration", "model_type",
                               "blip-2", "text_config", json_object_get(the_case, "text_config"));
    static const char pixels[] = "{\"size\": {\"height\": 224, \"width\": 224}}";
    char *text = json_dumps(config, 0);
    struct config parsed;
    struct err err = {""};

    write_file(dir, "config.json", text, strlen(text));
    write_file(dir, "preprocessor_config.json", pixels, strlen(pixels));
    LM_RIG_OK(config_load(dir, &parsed, &err), err);
    write_tensors(dir, the_case, &parsed);
    free(text);
    json_decref(config);
}

static void remove_checkpoint(const char *dir)
{
    static const char *const files[] = {"config.json", "preprocessor_config.json", "model.safetensors"};
    char path[256];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

/* -- the logits -- */

static int read_ids(const json_t *list, int32_t *ret)
{
    const size_t n = json_array_size(list);

    assert_in_range(n, 1, MAX_IDS);
    for (size_t i = 0; i < n; i++)
        ret[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int)n;
}

static void check_row(const char *name, int step, const float *got, const json_t *row, size_t vocab)
{
    float *want = malloc(vocab * sizeof(*want));
    double e;

    assert_non_null(want);
    assert_int_equal(json_array_size(row), vocab);
    for (size_t i = 0; i < vocab; i++)
        want[i] = (float)json_real_value(json_array_get(row, i));
    e = golden_relative_error(got, want, vocab);
    if (!(e <= 1e-5))
        fail_msg("%s on %s, step %d: relative error %g", name, ops_name, step, e);
    free(want);
}

/* All prompts of the case start in one pass, then say the same tokens together. */
static void check_case(const json_t *the_case, const json_t *top, struct lm_rig *r)
{
    const char *name = json_string_value(json_object_get(the_case, "name"));
    const json_t *prompts = json_object_get(the_case, "prompts"), *steps = json_object_get(top, "steps");
    const int n_rows = (int)json_integer_value(json_object_get(top, "image_rows")), n = (int)json_array_size(prompts);
    const size_t vocab = (size_t)lm_vocab_size(r->m), n_values = (size_t)n_rows * (size_t)lm_width(r->m);
    int32_t ids[4][MAX_IDS], said[MAX_IDS];
    struct lm_rig_sequence sequences[4];
    struct lm_token tokens[4];
    struct lm_start starts[4];
    float *rows = malloc(n_values * sizeof(*rows)), *logits = malloc(4 * vocab * sizeof(*logits));
    char image[80];
    const int n_said = read_ids(json_object_get(the_case, "said"), said);

    assert_in_range(n, 2, 4);
    assert_true(rows && logits);
    snprintf(image, sizeof(image), "%s.image", name);
    values(image, rows, n_values);
    for (int i = 0; i < n; i++) {
        const int n_ids = read_ids(json_object_get(json_array_get(prompts, (size_t)i), "ids"), ids[i]);

        starts[i] = lm_rig_start(r, rows, n_rows, ids[i], n_ids);
        sequences[i] = lm_rig_sequence(r, &starts[i]);
    }
    for (int t = 0, step = 0; t <= n_said; t++) {
        for (int i = 0; t > 0 && i < n; i++)
            tokens[i] = lm_rig_next(r, &sequences[i], said[t - 1]);
        lm_rig_forward(r, t ? 0 : n, starts, t ? n : 0, tokens, logits);
        if (json_integer_value(json_array_get(steps, (size_t)step)) != t)
            continue;
        for (int i = 0; i < n; i++)
            check_row(name, t, logits + (size_t)i * vocab,
                      json_array_get(json_object_get(json_array_get(prompts, (size_t)i), "logits"), (size_t)step),
                      vocab);
        step++;
        if (t == n_said)
            assert_int_equal(step, json_array_size(steps));
    }
    free(rows);
    free(logits);
}

static void test_lm_random_logits_match_the_reference(void **state)
{
    struct ops *o = lm_rig_ops(ops_name);
    json_t *top = fixture_json(EXPECTED), *cases = json_object_get(top, "cases");

    (void)state;
    assert_int_equal(json_array_size(cases), 6);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *the_case = json_array_get(cases, i);
        char dir[] = "/tmp/blipline-lm-XXXXXX";
        struct lm_rig r;

        assert_non_null(mkdtemp(dir));
        write_checkpoint(dir, the_case);
        lm_rig_open(&r, dir, o);
        check_case(the_case, top, &r);
        lm_rig_close(&r);
        remove_checkpoint(dir);
    }
    json_decref(top);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lm_random_logits_match_the_reference)};
    int failed;

    ops_name = "cpu";
    failed = cmocka_run_group_tests_name("lm_random cpu", tests, NULL, NULL);
    ops_name = "ref";
    return failed + cmocka_run_group_tests_name("lm_random ref", tests, NULL, NULL);
}
