#include "model/checkpoint.h"

#include "tests/unit/rewrite.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OPT_A "tests/golden/opt_a"
#define EMBED "language_model.model.decoder.embed_tokens.weight"
#define HEAD "language_model.lm_head.weight"

static struct checkpoint *must_open(const char *dir)
{
    struct checkpoint *c = NULL;
    struct err err = {""};

    if (checkpoint_open(dir, &c, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

/* Save, open, check; what the check says, or "" where it passes. */
static const char *verdict(struct rewrite *r, unsigned stages)
{
    static struct err err;
    struct checkpoint *c;
    int rc;

    rewrite_save(r, 1);
    c = must_open(r->dir);
    err.text[0] = '\0';
    rc = checkpoint_check(c, stages, &err);
    assert_true((rc == 0) == (err.text[0] == '\0'));
    checkpoint_free(c);
    return err.text;
}

static void assert_says(const char *text, const char *wanted)
{
    if (!strstr(text, wanted))
        fail_msg("\"%s\" does not say \"%s\"", text, wanted);
}

static void test_checkpoint_golden_and_demo_are_whole(void **state)
{
    static const char *const dirs[] = {OPT_A, "models/blip2-opt-demo"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct checkpoint *c = must_open(dirs[i]);
        struct err err = {""};

        if (checkpoint_check(c, STAGES_ALL, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(access(c->tokenizer_path, R_OK), 0);
        checkpoint_free(c);
    }
}

static void test_checkpoint_get_checks_name_shape_and_type(void **state)
{
    struct rewrite r;
    struct checkpoint *c;
    struct tensor t = {.n_dims = 77};
    struct err err = {""};

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_find(&r, "vision_model.post_layernorm.bias")->tensor.dtype = DTYPE_I32; /* of the same size */
    rewrite_save(&r, 1);
    c = must_open(r.dir);
    assert_int_equal(checkpoint_get_1d(c, "vision_model.post_layernorm.weight", 175, &t, &err), -EINVAL);
    assert_says(err.text, "vision_model.post_layernorm.weight");
    assert_says(err.text, "[176]");
    assert_says(err.text, "[175]");
    assert_int_equal(checkpoint_get_2d(c, "vision_model.post_layernorm.weight", 1, 176, &t, &err), -EINVAL);
    assert_int_equal(checkpoint_get_1d(c, "vision_model.no_such", 176, &t, &err), -ENOENT);
    assert_says(err.text, "vision_model.no_such");
    assert_int_equal(checkpoint_get_1d(c, "vision_model.post_layernorm.bias", 176, &t, &err), -EINVAL);
    assert_says(err.text, "I32");
    assert_int_equal(t.n_dims, 77);
    assert_int_equal(checkpoint_get_1d(c, "vision_model.post_layernorm.weight", 176, &t, &err), 0);
    assert_true(t.n_dims == 1 && t.dtype == DTYPE_F32 && t.data);
    assert_int_equal(checkpoint_get_head(c, &t, &err), 0);
    assert_true(tensor_shape_is(&t, 2, (int64_t[]){704, 160}));
    checkpoint_drop(c, EMBED);
    checkpoint_drop(c, "no such tensor");
    checkpoint_free(c);
    rewrite_close(&r);
}

static void test_checkpoint_missing_and_unknown_tensors_are_named(void **state)
{
    struct rewrite r;

    (void)state;
    rewrite_open(&r, OPT_A);
    assert_string_equal(verdict(&r, STAGES_ALL), "");
    rewrite_copy(&r, "query_tokens", "qformer.surprise");
    assert_says(verdict(&r, STAGES_ALL), "qformer.surprise");
    assert_string_equal(verdict(&r, STAGE_BIT(STAGE_QFORMER)), ""); /* a worker looks at its own stage only */
    rewrite_remove(&r, "qformer.surprise");
    rewrite_remove(&r, "qformer.encoder.layer.3.output_query.dense.bias");
    assert_says(verdict(&r, STAGES_ALL), "qformer.encoder.layer.3.output_query.dense.bias [96] is missing");
    assert_says(verdict(&r, STAGE_BIT(STAGE_QFORMER)), "qformer.encoder.layer.3.output_query.dense.bias");
    assert_string_equal(verdict(&r, STAGE_BIT(STAGE_ENCODE)), "");
    assert_string_equal(verdict(&r, STAGE_BIT(STAGE_LLM)), "");
    rewrite_remove(&r, "vision_model.embeddings.class_embedding");
    rewrite_remove(&r, "vision_model.post_layernorm.weight");
    assert_says(verdict(&r, STAGE_BIT(STAGE_ENCODE)), "class_embedding");
    assert_null(strstr(verdict(&r, STAGE_BIT(STAGE_ENCODE)), "post_layernorm"));
    assert_says(verdict(&r, STAGE_BIT(STAGE_QFORMER)), "post_layernorm");
    rewrite_remove(&r, "query_tokens");
    assert_says(verdict(&r, STAGES_ALL), "and 1 more");
    rewrite_close(&r);
}

static void test_checkpoint_wrong_shapes_are_named_with_both(void **state)
{
    struct rewrite r;
    struct rewrite_tensor *t;
    const char *text;

    (void)state;
    rewrite_open(&r, OPT_A);
    t = rewrite_find(&r, "vision_model.embeddings.position_embedding");
    t->tensor.n_dims = 2;
    t->tensor.shape[0] = 257;
    t->tensor.shape[1] = 176;
    text = verdict(&r, STAGE_BIT(STAGE_ENCODE));
    assert_says(text, "vision_model.embeddings.position_embedding");
    assert_says(text, "[257, 176]");
    assert_says(text, "[1, 257, 176]");
    rewrite_close(&r);
}

static void test_checkpoint_config_that_disagrees_is_caught(void **state)
{
    struct rewrite r;

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_text(&r, "config.json", "\"num_hidden_layers\": 3,\n    \"pad_token_id\": 1",
                 "\"num_hidden_layers\": 2,\n    \"pad_token_id\": 1");
    assert_says(verdict(&r, STAGES_ALL), "language_model.model.decoder.layers.2.");
    assert_string_equal(verdict(&r, STAGE_BIT(STAGE_ENCODE)), "");
    rewrite_close(&r);
}

static void test_checkpoint_head_of_its_own_is_used(void **state)
{
    struct rewrite r;
    struct checkpoint *c;
    struct tensor head, embed;

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_copy(&r, EMBED, HEAD);
    rewrite_touch(&r, HEAD);
    assert_string_equal(verdict(&r, STAGES_ALL), "");
    c = must_open(r.dir);
    assert_int_equal(checkpoint_get_head(c, &head, NULL), 0);
    assert_int_equal(checkpoint_get_2d(c, EMBED, 704, 160, &embed, NULL), 0);
    assert_int_not_equal(((unsigned char *)head.data)[0], ((unsigned char *)embed.data)[0]);
    checkpoint_free(c);
    rewrite_find(&r, HEAD)->tensor.shape[0] = 352;
    rewrite_find(&r, HEAD)->size_bytes /= 2;
    assert_says(verdict(&r, STAGE_BIT(STAGE_LLM)), HEAD);
    rewrite_close(&r);
}

static void test_checkpoint_tied_head_stands_in_for_the_embedding(void **state)
{
    struct rewrite r;
    struct checkpoint *c;
    struct tensor t;

    (void)state;
    rewrite_open(&r, OPT_A);
    rewrite_copy(&r, EMBED, HEAD);
    rewrite_remove(&r, EMBED);
    assert_string_equal(verdict(&r, STAGES_ALL), "");
    c = must_open(r.dir);
    assert_int_equal(checkpoint_get_2d(c, EMBED, 704, 160, &t, NULL), 0);
    checkpoint_drop(c, EMBED);
    checkpoint_free(c);
    rewrite_remove(&r, HEAD);
    assert_says(verdict(&r, STAGE_BIT(STAGE_LLM)), EMBED);
    rewrite_close(&r);
}

static void test_checkpoint_position_ids_are_known(void **state)
{
    struct config c = {0};
    struct weights w;
    const struct weight_spec *s;

    (void)state;
    c.task = CONFIG_TASK_RETRIEVE;
    c.vision = (struct config_vision){
        .width = 8, .n_layers = 1, .n_heads = 1, .ffn_width = 8, .patch_size = 2, .n_tokens = 5, .qkv_bias = true};
    c.qformer = (struct config_qformer){.width = 4,
                                        .n_layers = 2,
                                        .ffn_width = 4,
                                        .vision_width = 8,
                                        .cross_attention_freq = 2,
                                        .vocab_size = 10,
                                        .max_positions = 6,
                                        .has_text = true};
    c.n_queries = 2;
    c.embed_width = 3;
    assert_int_equal(weights_init(&w, &c), 0);
    assert_int_equal(weights_find(&w, "embeddings.position_ids")->kind, WEIGHT_UNUSED);
    assert_non_null(weights_find(&w, "qformer.encoder.layer.0.crossattention.attention.query.weight"));
    assert_null(weights_find(&w, "qformer.encoder.layer.1.crossattention.attention.query.weight"));
    assert_non_null(weights_find(&w, "qformer.encoder.layer.1.intermediate.dense.weight"));
    assert_null(weights_find(&w, "language_projection.weight"));
    s = weights_find(&w, "qformer.encoder.layer.0.crossattention.attention.key.weight");
    assert_true(s->shape[0] == 4 && s->shape[1] == 8 && s->stage == STAGE_QFORMER);
    weights_release(&w);
    weights_release(&w); /* twice is fine */
}

static void test_checkpoint_t5_names_and_aliases(void **state)
{
    struct config c = {.task = CONFIG_TASK_GENERATE, .lm = CONFIG_LM_T5, .lm_width = 6, .lm_vocab_size = 9};
    struct weights w;
    const struct weight_spec *s;

    (void)state;
    c.vision = (struct config_vision){.width = 8, .n_layers = 1, .patch_size = 2, .n_tokens = 5, .ffn_width = 8};
    c.qformer = (struct config_qformer){.width = 4, .n_layers = 1, .ffn_width = 4, .cross_attention_freq = 2};
    c.t5 = (struct config_t5){.width = 6,
                              .n_heads = 2,
                              .head_dim = 5,
                              .ffn_width = 7,
                              .n_encoder_layers = 2,
                              .n_decoder_layers = 1,
                              .vocab_size = 9,
                              .n_buckets = 32};
    assert_int_equal(weights_init(&w, &c), 0);
    s = weights_find(&w, "language_model.encoder.block.1.layer.0.SelfAttention.q.weight");
    assert_true(s && s->shape[0] == 10 && s->shape[1] == 6);
    s = weights_find(&w, "language_model.decoder.block.0.layer.2.DenseReluDense.wo.weight");
    assert_true(s && s->shape[0] == 6 && s->shape[1] == 7);
    assert_non_null(weights_find(&w, "language_model.decoder.block.0.layer.1.EncDecAttention.o.weight"));
    assert_non_null(weights_find(&w, "language_model.encoder.block.0.layer.0.SelfAttention."
                                     "relative_attention_bias.weight"));
    assert_null(weights_find(&w, "language_model.encoder.block.1.layer.0.SelfAttention."
                                 "relative_attention_bias.weight"));
    assert_null(weights_find(&w, "language_model.decoder.block.1.layer.0.SelfAttention.q.weight"));
    s = weights_find(&w, "language_model.encoder.embed_tokens.weight");
    assert_true(s && s->kind == WEIGHT_ALIAS);
    assert_string_equal(s->same_as, "language_model.shared.weight");
    assert_int_equal(weights_find(&w, "language_model.lm_head.weight")->kind, WEIGHT_OPTIONAL);
    assert_null(weights_find(&w, "vision_model.encoder.layers.0.self_attn.qkv.bias")); /* qkv_bias false */
    weights_release(&w);
}

static void test_checkpoint_missing_files_are_named_with_the_cure(void **state)
{
    static const char *const files[] = {"config.json", "preprocessor_config.json", "model.safetensors"};
    struct checkpoint *c = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(checkpoint_open("/nonexistent", &c, &err), -ENOENT);
    assert_says(err.text, "/nonexistent/config.json");
    for (size_t i = 0; i < 3; i++) {
        struct rewrite r;
        char path[128];

        rewrite_open(&r, OPT_A);
        rewrite_save(&r, 1);
        (void)snprintf(path, sizeof(path), "%s/%s", r.dir, files[i]);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(checkpoint_open(r.dir, &c, &err), -ENOENT);
        assert_null(c);
        assert_says(err.text, files[i]);
        assert_says(err.text, r.dir);
        rewrite_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_golden_and_demo_are_whole),
        cmocka_unit_test(test_checkpoint_get_checks_name_shape_and_type),
        cmocka_unit_test(test_checkpoint_missing_and_unknown_tensors_are_named),
        cmocka_unit_test(test_checkpoint_wrong_shapes_are_named_with_both),
        cmocka_unit_test(test_checkpoint_config_that_disagrees_is_caught),
        cmocka_unit_test(test_checkpoint_head_of_its_own_is_used),
        cmocka_unit_test(test_checkpoint_tied_head_stands_in_for_the_embedding),
        cmocka_unit_test(test_checkpoint_position_ids_are_known),
        cmocka_unit_test(test_checkpoint_t5_names_and_aliases),
        cmocka_unit_test(test_checkpoint_missing_files_are_named_with_the_cure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
