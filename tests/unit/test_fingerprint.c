#include "model/fingerprint.h"

#include "tests/unit/rewrite.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPT_A "tests/golden/opt_a"
#define EMBED "language_model.model.decoder.embed_tokens.weight"
#define HEAD "language_model.lm_head.weight"

/* What differs between two sets: bits. */
enum { TRUNK = 1, PIXELS = 2, QFORMER = 4, LM = 8, ENCODER_STAGE = 16, QFORMER_STAGE = 32, LLM_STAGE = 64 };
enum { N_PRINTS = 7 };

struct prints {
    struct fingerprint f[N_PRINTS];
};

static struct prints prints_of(const char *dir)
{
    struct checkpoint *c = NULL;
    struct prints p = {0};
    struct err err = {""};

    if (checkpoint_open(dir, &c, &err) < 0 || fingerprint_trunk(c, &p.f[0], &err) < 0 ||
        fingerprint_pixels(c, &p.f[1], &err) < 0 || fingerprint_qformer(c, &p.f[2], &err) < 0 ||
        fingerprint_lm(c, &p.f[3], &err) < 0 || stage_fingerprint(c, STAGE_ENCODE, DTYPE_F32, &p.f[4], &err) < 0 ||
        stage_fingerprint(c, STAGE_QFORMER, DTYPE_F32, &p.f[5], &err) < 0 ||
        stage_fingerprint(c, STAGE_LLM, DTYPE_F32, &p.f[6], &err) < 0)
        fail_msg("%s", err.text);
    checkpoint_free(c);
    return p;
}

static int differing(const struct prints *a, const struct prints *b)
{
    int bits = 0;

    for (int i = 0; i < N_PRINTS; i++)
        if (!fingerprint_equal(&a->f[i], &b->f[i]))
            bits |= 1 << i;
    return bits;
}

static int after_save(struct rewrite *r, const struct prints *before)
{
    struct prints now;

    rewrite_save(r, 1);
    now = prints_of(r->dir);
    return differing(before, &now);
}

static void test_fingerprint_does_not_depend_on_sharding(void **state)
{
    struct prints a = prints_of(OPT_A), b;

    (void)state;
    for (int shards = 1; shards <= 5; shards += 2) {
        struct rewrite r;

        rewrite_open(&r, OPT_A);
        rewrite_save(&r, shards);
        b = prints_of(r.dir);
        assert_int_equal(differing(&a, &b), 0);
        rewrite_close(&r);
    }
}

static void test_fingerprint_sees_one_bit_where_it_matters(void **state)
{
    static const struct {
        const char *tensor;
        int wanted;
    } cases[] = {
        {"vision_model.encoder.layers.1.mlp.fc1.weight", TRUNK | ENCODER_STAGE},
        {"vision_model.post_layernorm.weight", QFORMER | QFORMER_STAGE}, /* trained per checkpoint: not the trunk */
        {"query_tokens", QFORMER | QFORMER_STAGE},
        {"language_projection.bias", QFORMER | QFORMER_STAGE},
        {EMBED, LM | LLM_STAGE},
    };
    struct prints before = prints_of(OPT_A);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rewrite r;

        rewrite_open(&r, OPT_A);
        rewrite_touch(&r, cases[i].tensor);
        if (after_save(&r, &before) != cases[i].wanted)
            fail_msg("%s changes %d, not %d", cases[i].tensor, after_save(&r, &before), cases[i].wanted);
        rewrite_close(&r);
    }
}

static void test_fingerprint_sees_numbers_and_tokenizer(void **state)
{
    static const struct {
        const char *file, *from, *to;
        int wanted;
    } cases[] = {
        {"config.json", "\"layer_norm_eps\": 1e-06", "\"layer_norm_eps\": 2e-06",
         TRUNK | ENCODER_STAGE | QFORMER | QFORMER_STAGE},
        {"config.json", "\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 2e-12", QFORMER | QFORMER_STAGE},
        {"config.json", "\"image_token_index\": 700", "\"image_token_index\": 701", LM | LLM_STAGE},
        {"config.json", "\"transformers_version\": \"5", "\"transformers_version\": \"6", 0},
        {"config.json", "\"dropout\": 0.1", "\"dropout\": 0.2", 0},
        {"config.json", "\"eos_token_id\": 103", "\"eos_token_id\": 104", LM | LLM_STAGE},
        {"generation_config.json", "103", "104", 0}, /* text_config decides */
        {"preprocessor_config.json", "0.48145467", "0.48145466", PIXELS | ENCODER_STAGE},
        {"tokenizer.json", "\"1.0\"", "\"1.1\"", LM | LLM_STAGE},
    };
    struct prints before = prints_of(OPT_A);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rewrite r;
        int bits;

        rewrite_open(&r, OPT_A);
        rewrite_text(&r, cases[i].file, cases[i].from, cases[i].to);
        bits = after_save(&r, &before);
        if (bits != cases[i].wanted)
            fail_msg("%s %s changes %d, not %d", cases[i].file, cases[i].from, bits, cases[i].wanted);
        rewrite_close(&r);
    }
}

static void test_fingerprint_ignores_repeats_but_not_a_head_of_its_own(void **state)
{
    struct prints before = prints_of(OPT_A);
    struct rewrite r;

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_copy(&r, EMBED, HEAD);
    rewrite_copy(&r, EMBED, "some.unknown.tensor");
    assert_int_equal(after_save(&r, &before), 0);
    rewrite_touch(&r, HEAD);
    assert_int_equal(after_save(&r, &before), LM | LLM_STAGE);
    rewrite_remove(&r, HEAD);
    rewrite_copy(&r, EMBED, HEAD);
    rewrite_remove(&r, EMBED); /* the tied head stands in */
    assert_int_equal(after_save(&r, &before), 0);
    rewrite_close(&r);
}

static void test_fingerprint_stored_type_counts(void **state)
{
    struct prints before = prints_of(OPT_A);
    struct rewrite r;
    struct rewrite_tensor *t;
    uint16_t *half;

    (void)state;
    rewrite_open(&r, OPT_A);
    t = rewrite_find(&r, "query_tokens");
    half = malloc(t->size_bytes / 2);
    assert_non_null(half);
    tensor_from_f32(half, DTYPE_F16, t->tensor.data, t->size_bytes / 4);
    t->tensor.data = t->own = half;
    t->tensor.dtype = DTYPE_F16;
    t->size_bytes /= 2;
    assert_int_equal(after_save(&r, &before), QFORMER | QFORMER_STAGE);
    rewrite_close(&r);
}

/* A worker that rounds to bf16 computes something else. */
static void test_fingerprint_of_a_stage_says_its_arithmetic(void **state)
{
    static const enum stage stages[] = {STAGE_ENCODE, STAGE_QFORMER, STAGE_LLM};
    struct fingerprint fp32, bf16, fp8;
    struct checkpoint *c = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(checkpoint_open(OPT_A, &c, &err), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(stage_fingerprint(c, stages[i], DTYPE_F32, &fp32, &err), 0);
        assert_int_equal(stage_fingerprint(c, stages[i], DTYPE_BF16, &bf16, &err), 0);
        assert_false(fingerprint_equal(&fp32, &bf16));
        assert_int_equal(stage_fingerprint(c, stages[i], DTYPE_F8_E4M3, &fp8, &err), 0);
        assert_false(fingerprint_equal(&fp32, &fp8) || fingerprint_equal(&bf16, &fp8));
        assert_int_equal(stage_fingerprint(c, stages[i], DTYPE_I32, &bf16, &err), -EINVAL);
    }
    bf16 = fp8 = fp32;
    assert_int_equal(fingerprint_with_settings(&bf16, 0), 0);
    assert_true(fingerprint_equal(&bf16, &fp32));
    assert_int_equal(fingerprint_with_settings(&bf16, MODEL_EXIF_ORIENTATION), 0);
    assert_int_equal(fingerprint_with_settings(&fp8, MODEL_GREY16_HIGH_BYTE), 0);
    assert_false(fingerprint_equal(&bf16, &fp32) || fingerprint_equal(&bf16, &fp8));
    checkpoint_free(c);
}

/* Texts go through the tokenizer in the Q-Former of a retrieval checkpoint. */
static void test_fingerprint_of_a_scorer_sees_its_tokenizer(void **state)
{
    struct checkpoint *c = NULL;
    struct fingerprint before, after;
    struct rewrite r;
    struct err err = {""};

    (void)state;
    rewrite_open(&r, "tests/golden/itm_c");
    for (int i = 0; i < 2; i++) {
        if (i == 1)
            rewrite_text(&r, "tokenizer.json", "\"version\": \"1.0\"", "\"version\": \"1.1\"");
        rewrite_save(&r, 1);
        if (checkpoint_open(r.dir, &c, &err) < 0 || fingerprint_qformer(c, i ? &after : &before, &err) < 0)
            fail_msg("%s", err.text);
        checkpoint_free(c);
    }
    assert_false(fingerprint_equal(&before, &after));
    rewrite_close(&r);
}

static void test_fingerprint_of_an_incomplete_stage_is_refused(void **state)
{
    struct rewrite r;
    struct checkpoint *c = NULL;
    struct fingerprint f;
    struct err err = {""};

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_remove(&r, "query_tokens");
    rewrite_save(&r, 1);
    assert_int_equal(checkpoint_open(r.dir, &c, &err), 0);
    assert_int_equal(stage_fingerprint(c, STAGE_QFORMER, DTYPE_F32, &f, &err), -ENOENT);
    assert_non_null(strstr(err.text, "query_tokens"));
    assert_int_equal(stage_fingerprint(c, STAGE_ENCODE, DTYPE_F32, &f, &err), 0);
    assert_int_equal(stage_fingerprint(c, (enum stage)0, DTYPE_F32, &f, &err), -EINVAL);
    checkpoint_free(c);
    rewrite_close(&r);
}

static void test_fingerprint_hex(void **state)
{
    struct fingerprint f;
    char hex[FINGERPRINT_HEX_SIZE];

    (void)state;
    for (int i = 0; i < FINGERPRINT_BYTES; i++)
        f.bytes[i] = (uint8_t)(i * 17 + 3);
    assert_false(fingerprint_is_none(&f));
    assert_string_equal(fingerprint_to_hex(&f, hex), "031425364758697a8b9cadbecfe0f102");
    memset(&f, 0, sizeof(f));
    assert_true(fingerprint_is_none(&f));
    assert_string_equal(fingerprint_to_hex(&f, hex), "");
}

/* The value is stored in job stores and sent by workers: it must not change from one build to the next. */
static void test_fingerprint_values_are_stable(void **state)
{
    struct prints p = prints_of(OPT_A);
    char hex[FINGERPRINT_HEX_SIZE];

    (void)state;
    assert_string_equal(fingerprint_to_hex(&p.f[0], hex), "a73a25fb631f5191a71391885cb9fa9d");
    assert_string_equal(fingerprint_to_hex(&p.f[4], hex), "941dbae56b4287d8b2796b16d9d3a13e");
    assert_string_equal(fingerprint_to_hex(&p.f[5], hex), "215031ecd4091e0f84c8fa349ad083fb");
    assert_string_equal(fingerprint_to_hex(&p.f[6], hex), "2d5b52c6812e9cedde01e18316459a8a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fingerprint_does_not_depend_on_sharding),
        cmocka_unit_test(test_fingerprint_sees_one_bit_where_it_matters),
        cmocka_unit_test(test_fingerprint_sees_numbers_and_tokenizer),
        cmocka_unit_test(test_fingerprint_ignores_repeats_but_not_a_head_of_its_own),
        cmocka_unit_test(test_fingerprint_stored_type_counts),
        cmocka_unit_test(test_fingerprint_of_a_stage_says_its_arithmetic),
        cmocka_unit_test(test_fingerprint_of_a_scorer_sees_its_tokenizer),
        cmocka_unit_test(test_fingerprint_of_an_incomplete_stage_is_refused),
        cmocka_unit_test(test_fingerprint_hex),
        cmocka_unit_test(test_fingerprint_values_are_stable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
