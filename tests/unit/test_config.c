#include "model/config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *config, const char *generation, const char *preprocessor, struct config *ret,
                 struct err *err)
{
    const bool nested = preprocessor && strstr(preprocessor, "image_processor\"");
    struct config_text texts[CONFIG_N_FILES] = {
        [CONFIG_FILE_MODEL] = {"config.json", config, strlen(config)},
    };

    if (generation)
        texts[CONFIG_FILE_GENERATION] = (struct config_text){"generation_config.json", generation, strlen(generation)};
    if (nested)
        texts[CONFIG_FILE_PROCESSOR] =
            (struct config_text){"processor_config.json", preprocessor, strlen(preprocessor)};
    else if (preprocessor)
        texts[CONFIG_FILE_PREPROCESSOR] =
            (struct config_text){"preprocessor_config.json", preprocessor, strlen(preprocessor)};
    return config_parse(texts, ret, err);
}

static struct config must(const char *config, const char *generation, const char *preprocessor)
{
    struct config c;
    struct err err = {""};

    memset(&c, 0x55, sizeof(c));
    if (parse(config, generation, preprocessor, &c, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

static void test_config_empty_takes_the_published_defaults(void **state)
{
    struct config c = must("{}", NULL, NULL);

    (void)state;
    assert_int_equal(c.task, CONFIG_TASK_GENERATE);
    assert_int_equal(c.lm, CONFIG_LM_OPT);
    assert_int_equal(c.vision.width, 1408);
    assert_int_equal(c.vision.n_layers, 39);
    assert_int_equal(c.vision.n_heads, 16);
    assert_int_equal(c.vision.head_dim, 88);
    assert_int_equal(c.vision.ffn_width, 6144);
    assert_int_equal(c.vision.image_size, 224);
    assert_int_equal(c.vision.patch_size, 14);
    assert_int_equal(c.vision.n_tokens, 257);
    assert_true(c.vision.eps == 1e-6f && c.vision.qkv_bias);
    assert_int_equal(c.qformer.width, 768);
    assert_int_equal(c.qformer.n_layers, 12);
    assert_int_equal(c.qformer.n_heads, 12);
    assert_int_equal(c.qformer.head_dim, 64);
    assert_int_equal(c.qformer.ffn_width, 3072);
    assert_int_equal(c.qformer.vision_width, 1408);
    assert_int_equal(c.qformer.cross_attention_freq, 2);
    assert_int_equal(c.qformer.vocab_size, 30522);
    assert_int_equal(c.qformer.max_positions, 512);
    assert_true(c.qformer.eps == 1e-12f && !c.qformer.has_text);
    assert_int_equal(c.opt.width, 768);
    assert_int_equal(c.opt.n_layers, 12);
    assert_int_equal(c.opt.n_heads, 12);
    assert_int_equal(c.opt.ffn_width, 3072);
    assert_int_equal(c.opt.vocab_size, 50272);
    assert_int_equal(c.opt.max_positions, 2048);
    assert_true(c.opt.eps == 1e-5f && c.opt.norm_before && c.opt.final_norm);
    assert_int_equal(c.lm_width, 768);
    assert_int_equal(c.n_queries, 32);
    assert_int_equal(c.embed_width, 256);
    assert_int_equal(c.image_token, -1);
    assert_int_equal(c.bos, 2);
    assert_int_equal(c.pad, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 2);
    assert_int_equal(c.pixels.size, 224);
    assert_true(c.pixels.rescale == 1.0 / 255);
    assert_true(c.pixels.mean[0] == 0.48145466 && c.pixels.mean[1] == 0.4578275 && c.pixels.mean[2] == 0.40821073);
    assert_true(c.pixels.std[0] == 0.26862954 && c.pixels.std[1] == 0.26130258 && c.pixels.std[2] == 0.27577711);
}

static void test_config_t5_defaults_and_head_rule(void **state)
{
#define T5(extra) "{\"text_config\":{\"model_type\":\"t5\",\"feed_forward_proj\":\"gated-gelu\"" extra "}}"
    struct config c = must(T5(""), NULL, NULL);

    (void)state;
    assert_int_equal(c.lm, CONFIG_LM_T5);
    assert_int_equal(c.t5.width, 512);
    assert_int_equal(c.t5.n_heads, 8);
    assert_int_equal(c.t5.head_dim, 64);
    assert_int_equal(c.t5.ffn_width, 2048);
    assert_int_equal(c.t5.n_encoder_layers, 6);
    assert_int_equal(c.t5.n_decoder_layers, 6);
    assert_int_equal(c.t5.vocab_size, 32128);
    assert_int_equal(c.t5.n_buckets, 32);
    assert_int_equal(c.t5.max_distance, 128);
    assert_true(c.t5.eps == 1e-6f);
    assert_true(c.t5.scale_output); /* tie_word_embeddings missing: not false */
    assert_int_equal(c.lm_width, 512);
    assert_int_equal(c.eos[0], 1);
    assert_int_equal(c.pad, 0);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.decoder_start, 0);
    assert_int_equal(must(T5(",\"num_layers\":3"), NULL, NULL).t5.n_decoder_layers, 3);
    assert_int_equal(must(T5(",\"num_layers\":3,\"num_decoder_layers\":2"), NULL, NULL).t5.n_decoder_layers, 2);
    assert_false(must(T5(",\"tie_word_embeddings\":false"), NULL, NULL).t5.scale_output);
    assert_false(must(T5(",\"scale_decoder_outputs\":false"), NULL, NULL).t5.scale_output);
    assert_true(must(T5(",\"tie_word_embeddings\":false,\"scale_decoder_outputs\":true"), NULL, NULL).t5.scale_output);
    /* d_kv need not be d_model / heads */
    assert_int_equal(must(T5(",\"d_model\":128,\"d_kv\":24,\"num_heads\":4"), NULL, NULL).t5.head_dim, 24);
}

static void test_config_special_ids_are_those_of_the_language_model(void **state)
{
    static const char text[] = "{\"text_config\":{\"eos_token_id\":50,\"bos_token_id\":51,\"pad_token_id\":52}}";
    static const char other[] = "{\"eos_token_id\":[60,61,62],\"bos_token_id\":63,\"pad_token_id\":64}";
    struct config c = must(text, NULL, NULL);

    (void)state;
    assert_int_equal(c.eos[0], 50);
    assert_int_equal(c.bos, 51);
    assert_int_equal(c.pad, 52);
    assert_string_equal(c.note, "");
    c = must(text, other, NULL);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 50);
    assert_int_equal(c.bos, 51);
    assert_string_equal(c.note, "generation_config.json: eos_token_id [60,61,62] is not used; text_config of "
                                "config.json decides, as in transformers: 50");
    assert_string_equal(must(text, "{\"eos_token_id\":[50],\"bos_token_id\":51}", NULL).note, "");
    assert_non_null(strstr(must(text, "{\"bos_token_id\":true}", NULL).note, "bos_token_id true is not used"));
    /* a key that is missing has the class's default, which is not generation_config.json's either */
    c = must("{}", other, NULL);
    assert_true(c.n_eos == 1 && c.eos[0] == 2 && c.bos == 2 && c.pad == 1);
    c = must("{\"text_config\":{\"eos_token_id\":[7,8]}}", "{\"eos_token_id\":null}", NULL);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 8);
    /* null is none */
    c = must("{\"text_config\":{\"eos_token_id\":null,\"bos_token_id\":null}}", other, NULL);
    assert_int_equal(c.n_eos, 0);
    assert_int_equal(c.bos, -1);
    assert_non_null(strstr(c.note, ": none"));
}

static void test_config_t5_starts_as_the_language_model_does(void **state)
{
    static const char gen[] = "{\"decoder_start_token_id\":5,\"bos_token_id\":6}";
    struct config c = must(T5(",\"decoder_start_token_id\":4"), gen, NULL);

    (void)state;
    assert_int_equal(c.decoder_start, 4);
    assert_int_equal(c.bos, 6); /* the class has no default of its own */
    assert_non_null(strstr(c.note, "decoder_start_token_id 5 is not used"));
    c = must(T5(",\"bos_token_id\":3"), gen, NULL);
    assert_int_equal(c.decoder_start, 3);
    assert_int_equal(c.bos, 3);
    c = must(T5(""), gen, NULL);
    assert_int_equal(c.decoder_start, 5);
    assert_string_equal(c.note, "");
    c = must(T5(""), NULL, NULL);
    assert_int_equal(c.decoder_start, 0);
    assert_int_equal(c.bos, -1);
    c = must("{\"image_token_index\":9,\"text_config\":{\"vocab_size\":20}}", NULL, NULL);
    assert_int_equal(c.image_token, 9);
    c = must("{\"image_token_index\":9,\"image_token_id\":8,\"text_config\":{\"vocab_size\":20}}", NULL, NULL);
    assert_int_equal(c.image_token, 8);
}

/* Which gelu gates a T5, in all spellings; NULL: refused. */
static void test_config_t5_gates(void **state)
{
    static const struct {
        const char *keys, *wanted;
    } cases[] = {
        {"\"feed_forward_proj\":\"gated-gelu\"", "tanh"},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"gelu\"", "erf"}, /* as published */
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"gelu_new\",\"is_gated_act\":true", "tanh"},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"gelu_python\"", "erf"},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"gelu_pytorch_tanh\"", "tanh"},
        {"\"feed_forward_proj\":\"gated-gelu_new\"", "tanh"},
        {"\"feed_forward_proj\":\"gated-gelu_python\"", "erf"},
        {"\"feed_forward_proj\":\"gelu\",\"is_gated_act\":true", "erf"},
        {"\"is_gated_act\":true,\"dense_act_fn\":\"gelu\"", "erf"},
        {"\"feed_forward_proj\":\"gated-relu\",\"dense_act_fn\":\"gelu_new\"", "tanh"},
        {"\"is_gated_act\":true", NULL},         /* relu */
        {"\"dense_act_fn\":\"gelu_new\"", NULL}, /* without gates */
        {"\"feed_forward_proj\":\"gelu\"", NULL},
        {"\"feed_forward_proj\":\"gated-gelu\",\"is_gated_act\":false", NULL},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"quick_gelu\"", NULL},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"relu\"", NULL},
        {"\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":null", NULL},
        {"\"feed_forward_proj\":\"gated-silu\"", NULL},
        {"\"feed_forward_proj\":\"gated\",\"dense_act_fn\":\"gelu\"", "erf"},
        {"\"feed_forward_proj\":\"gate-gelu\",\"dense_act_fn\":\"gelu\",\"is_gated_act\":true", NULL},
        {"\"feed_forward_proj\":\"gated-gelu-new\",\"dense_act_fn\":\"gelu\"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config c;
        struct err err = {""};
        char text[256];
        int rc;

        snprintf(text, sizeof(text), "{\"text_config\":{\"model_type\":\"t5\",%s}}", cases[i].keys);
        rc = parse(text, NULL, NULL, &c, &err);
        if ((rc < 0) != !cases[i].wanted || (rc == 0 && c.t5.gelu_erf != (strcmp(cases[i].wanted, "erf") == 0)))
            fail_msg("%s: %s", cases[i].keys, rc < 0 ? err.text : c.t5.gelu_erf ? "erf" : "tanh");
    }
}

static void test_config_t5_takes_the_general_names_of_sizes(void **state)
{
    struct config c = must(T5(",\"hidden_size\":96,\"d_model\":64,\"num_attention_heads\":3,\"head_dim\":8,"
                              "\"num_hidden_layers\":2,\"num_layers\":4"),
                           NULL, NULL);

    (void)state;
    assert_int_equal(c.t5.width, 96);
    assert_int_equal(c.t5.n_heads, 3);
    assert_int_equal(c.t5.head_dim, 8);
    assert_int_equal(c.t5.n_encoder_layers, 2);
    assert_int_equal(c.t5.n_decoder_layers, 4); /* the library settles it before it reads the general name */
}

static void test_config_retrieval_has_text_and_no_language_model(void **state)
{
    struct config c = must("{\"architectures\":[\"Blip2ForImageTextRetrieval\"],\"image_token_index\":null,"
                           "\"qformer_config\":{\"use_qformer_text_input\":true,\"vocab_size\":30523},"
                           "\"text_config\":{\"model_type\":\"anything\"}}",
                           NULL, "{\"size\":224}");

    (void)state;
    assert_int_equal(c.task, CONFIG_TASK_RETRIEVE);
    assert_int_equal(c.lm, CONFIG_LM_NONE);
    assert_int_equal(c.lm_width, 0);
    assert_int_equal(c.qformer.vocab_size, 30523);
    assert_true(c.qformer.has_text);
    c = must("{\"qformer_config\":{\"use_qformer_text_input\":true}}", NULL, NULL);
    assert_int_equal(c.task, CONFIG_TASK_RETRIEVE);
}

static void test_config_pixels_follow_the_preprocessor(void **state)
{
    struct config c = must("{\"vision_config\":{\"image_size\":364}}", NULL,
                           "{\"size\":{\"height\":364,\"width\":364},\"image_mean\":[0,0.5,1],\"image_std\":[1,2,3],"
                           "\"rescale_factor\":0.5,\"resample\":3}");

    (void)state;
    assert_int_equal(c.pixels.size, 364);
    assert_int_equal(c.vision.n_tokens, 677);
    assert_true(c.pixels.rescale == 0.5 && c.pixels.mean[1] == 0.5 && c.pixels.std[2] == 3);
    c = must("{}", NULL, "{\"size\":224,\"do_rescale\":false,\"do_normalize\":false}");
    assert_true(c.pixels.rescale == 1 && c.pixels.mean[0] == 0 && c.pixels.std[0] == 1);
    c = must("{\"num_query_tokens\":16}", NULL,
             "{\"num_query_tokens\":16,\"image_processor\":{\"size\":{\"height\":224,\"width\":224},"
             "\"image_processor_type\":\"BlipImageProcessor\",\"image_mean\":[0.5,0.25,1],\"crop_size\":null}}");
    assert_true(c.pixels.mean[1] == 0.25 && c.pixels.std[0] == 0.26862954);
    c = must("{\"vision_config\":{\"image_size\":384,\"patch_size\":16}}", NULL, "{}"); /* the library's own */
    assert_int_equal(c.pixels.size, 384);
}

static void test_config_post_norm_opt_has_no_final_norm(void **state)
{
    struct config c = must("{\"text_config\":{\"do_layer_norm_before\":false}}", NULL, NULL);

    (void)state;
    assert_false(c.opt.norm_before || c.opt.final_norm);
    c = must("{\"text_config\":{\"_remove_final_layer_norm\":true}}", NULL, NULL);
    assert_true(c.opt.norm_before && !c.opt.final_norm);
}

static void test_config_refuses_by_file_and_key(void **state)
{
    static const struct {
        const char *config, *generation, *preprocessor, *file, *key;
    } cases[] = {
        {"", NULL, NULL, "config.json", "JSON"},
        {"[]", NULL, NULL, "config.json", "array"},
        {"{\"a\":1,\"a\":2}", NULL, NULL, "config.json", "duplicate"},
        {"{\"model_type\":\"llava\"}", NULL, NULL, "config.json", "llava"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", NULL, NULL, "config.json", "LlamaForCausalLM"},
        {"{\"architectures\":\"x\"}", NULL, NULL, "config.json", "architectures"},
        {"{\"vision_config\":7}", NULL, NULL, "config.json", "vision_config"},
        {"{\"vision_config\":{\"hidden_size\":\"1408\"}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"vision_config\":{\"hidden_size\":-1}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"vision_config\":{\"hidden_size\":0}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"vision_config\":{\"hidden_size\":1408.0}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"vision_config\":{\"hidden_size\":4000000000}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"vision_config\":{\"num_attention_heads\":0}}", NULL, NULL, "config.json", "num_attention_heads"},
        {"{\"vision_config\":{\"num_attention_heads\":15}}", NULL, NULL, "config.json", "num_attention_heads"},
        {"{\"vision_config\":{\"num_hidden_layers\":1000000}}", NULL, NULL, "config.json", "num_hidden_layers"},
        {"{\"vision_config\":{\"hidden_act\":\"swish\"}}", NULL, NULL, "config.json", "swish"},
        {"{\"vision_config\":{\"patch_size\":15}}", NULL, NULL, "config.json", "vision_config.patch_size"},
        {"{\"vision_config\":{\"patch_size\":1,\"image_size\":4096}}", NULL, NULL, "config.json", "patch_size"},
        {"{\"vision_config\":{\"layer_norm_eps\":0}}", NULL, NULL, "config.json", "layer_norm_eps"},
        {"{\"vision_config\":{\"layer_norm_eps\":\"1e-6\"}}", NULL, NULL, "config.json", "layer_norm_eps"},
        {"{\"vision_config\":{\"qkv_bias\":1}}", NULL, NULL, "config.json", "qkv_bias"},
        {"{\"qformer_config\":{\"num_attention_heads\":7}}", NULL, NULL, "config.json",
         "qformer_config.num_attention_heads"},
        {"{\"qformer_config\":{\"hidden_act\":\"relu\"}}", NULL, NULL, "config.json", "qformer_config.hidden_act"},
        {"{\"qformer_config\":{\"cross_attention_frequency\":0}}", NULL, NULL, "config.json",
         "cross_attention_frequency"},
        {"{\"architectures\":[\"Blip2ForConditionalGeneration\"],\"qformer_config\":{\"use_qformer_text_input\":true}}",
         NULL, NULL, "config.json", "use_qformer_text_input"},
        {"{\"num_query_tokens\":0}", NULL, NULL, "config.json", "num_query_tokens"},
        {"{\"text_config\":{\"model_type\":\"llama\"}}", NULL, NULL, "config.json", "llama"},
        {"{\"text_config\":{\"word_embed_proj_dim\":512}}", NULL, NULL, "config.json",
         "text_config.word_embed_proj_dim"},
        {"{\"text_config\":{\"activation_function\":\"gelu\"}}", NULL, NULL, "config.json", "activation_function"},
        {"{\"text_config\":{\"enable_bias\":false}}", NULL, NULL, "config.json", "enable_bias"},
        {"{\"text_config\":{\"layer_norm_elementwise_affine\":false}}", NULL, NULL, "config.json",
         "layer_norm_elementwise_affine"},
        {"{\"text_config\":{\"num_attention_heads\":5}}", NULL, NULL, "config.json", "text_config.num_attention_heads"},
        {"{\"text_config\":{\"eos_token_id\":50272}}", NULL, NULL, "config.json", "text_config.eos_token_id"},
        {"{\"text_config\":{\"eos_token_id\":[]}}", NULL, NULL, "config.json", "text_config.eos_token_id"},
        {"{\"text_config\":{\"pad_token_id\":-1}}", NULL, NULL, "config.json", "text_config.pad_token_id"},
        {"{\"image_token_index\":50272}", NULL, NULL, "config.json", "image_token_index"},
        {"{\"text_config\":{\"model_type\":\"t5\"}}", NULL, NULL, "config.json", "text_config.feed_forward_proj"},
        {"{\"text_config\":{\"model_type\":\"t5\",\"feed_forward_proj\":\"gated-silu\"}}", NULL, NULL, "config.json",
         "gated-silu"},
        {T5(",\"relative_attention_num_buckets\":3"), NULL, NULL, "config.json", "relative_attention_num_buckets"},
        {T5(",\"relative_attention_max_distance\":16"), NULL, NULL, "config.json", "relative_attention_max_distance"},
        {"{\"text_config\":{\"eos_token_id\":\"2\"}}", NULL, NULL, "config.json", "eos_token_id"},
        {"{\"text_config\":{\"eos_token_id\":[1,-2]}}", NULL, NULL, "config.json", "eos_token_id"},
        {"{\"text_config\":{\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}}", NULL, NULL, "config.json",
         "eos_token_id"},
        {T5(""), "{\"bos_token_id\":true}", NULL, "generation_config.json", "bos_token_id"},
        {"{\"vision_config\":{\"hidden_size\":null}}", NULL, NULL, "config.json", "vision_config.hidden_size"},
        {"{\"text_config\":{\"_remove_final_layer_norm\":null}}", NULL, NULL, "config.json", "null"},
        {T5(",\"scale_decoder_outputs\":null"), NULL, NULL, "config.json", "scale_decoder_outputs"},
        {T5(",\"is_encoder_decoder\":false"), NULL, NULL, "config.json", "is_encoder_decoder"},
        {"{\"text_config\":{\"per_layer_config\":{\"0\":{\"ffn_dim\":8}}}}", NULL, NULL, "config.json",
         "text_config.per_layer_config"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\"}}", NULL, NULL, "config.json", "quantization_config"},
        {"{\"architectures\":[\"Blip2ForImageTextRetrieval\"]}", NULL, NULL, "config.json", "use_qformer_text_input"},
        {"{}", NULL, "{}", "preprocessor_config.json", "size: 384 (the default)"},
        {"{}", NULL, "{\"size\":{\"height\":224}}", "preprocessor_config.json", "size.height"},
        {"{}", NULL, "{\"size\":224,\"do_pad\":true}", "preprocessor_config.json", "do_pad"},
        {"{}", NULL, "{\"size\":224,\"do_normalize\":null}", "preprocessor_config.json", "do_normalize"},
        {"{}", NULL, "{\"size\":224,\"image_std\":null}", "preprocessor_config.json", "image_std"},
        {"{}", NULL, "{\"size\":224,\"image_processor_type\":\"CLIPImageProcessor\"}", "preprocessor_config.json",
         "CLIPImageProcessor"},
        {"{}", NULL, "{\"image_processor\":{\"size\":225}}", "processor_config.json", "image_processor.size"},
        {"{}", NULL, "{\"image_processor\":[]}", "processor_config.json", "image_processor"},
        {"{}", NULL, "{\"num_query_tokens\":16,\"image_processor\":{\"size\":224}}", "processor_config.json",
         "num_query_tokens"},
        {"{}", "nonsense", NULL, "generation_config.json", "JSON"},
        {"{}", NULL, "{\"size\":224,\"resample\":2}", "preprocessor_config.json", "resample"},
        {"{}", NULL, "{\"size\":{\"height\":224,\"width\":225}}", "preprocessor_config.json", "size.width"},
        {"{}", NULL, "{\"size\":{\"height\":364,\"width\":364}}", "preprocessor_config.json", "size"},
        {"{}", NULL, "{\"size\":{\"shortest_edge\":224}}", "preprocessor_config.json", "shortest_edge"},
        {"{}", NULL, "{\"size\":224,\"do_resize\":false}", "preprocessor_config.json", "do_resize"},
        {"{}", NULL, "{\"size\":224,\"do_center_crop\":true}", "preprocessor_config.json", "do_center_crop"},
        {"{}", NULL, "{\"size\":224,\"image_mean\":[0,0]}", "preprocessor_config.json", "image_mean"},
        {"{}", NULL, "{\"size\":224,\"image_mean\":[0,0,\"0\"]}", "preprocessor_config.json", "image_mean"},
        {"{}", NULL, "{\"size\":224,\"image_std\":[1,1,0]}", "preprocessor_config.json", "image_std"},
        {"{}", NULL, "{\"size\":224,\"rescale_factor\":0}", "preprocessor_config.json", "rescale_factor"},
        {"{}", NULL, "{\"rescale_factor\":1e999}", "preprocessor_config.json", "JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config c = {.n_queries = 4711};
        struct err err = {""};

        if (parse(cases[i].config, cases[i].generation, cases[i].preprocessor, &c, &err) != -EINVAL)
            fail_msg("case %zu is accepted: %s", i, cases[i].config);
        if (strncmp(err.text, cases[i].file, strlen(cases[i].file)) != 0 || !strstr(err.text, cases[i].key))
            fail_msg("case %zu: \"%s\" does not name %s and %s", i, err.text, cases[i].file, cases[i].key);
        assert_int_equal(c.n_queries, 4711); /* untouched on failure */
    }
}

static void test_config_limits_size_and_depth(void **state)
{
    size_t n = (1 << 20) + 1;
    char *text = malloc(n + 1);
    struct config c;
    struct err err = {""};

    (void)state;
    assert_non_null(text);
    memset(text, ' ', n);
    memcpy(text, "{}", 2);
    text[n] = '\0';
    assert_int_equal(parse(text, NULL, NULL, &c, &err), -EFBIG);
    assert_non_null(strstr(err.text, "config.json"));
    memset(text, '[', n - 1);
    text[n - 1] = '\0';
    assert_int_equal(parse(text, NULL, NULL, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "deeper"));
    free(text);
}

static void test_config_golden_directories(void **state)
{
    struct config c;
    struct err err = {""};

    (void)state;
    if (config_load("tests/golden/opt_a", &c, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(c.vision.width, 176);
    assert_int_equal(c.qformer.n_heads, 4);
    assert_int_equal(c.opt.vocab_size, 704);
    assert_int_equal(c.image_token, 700);
    assert_int_equal(c.eos[0], 103);
    assert_true(c.pixels.mean[0] == 0.48145467);
    if (config_load("models/blip2-opt-demo", &c, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(c.n_queries, 16);
    assert_int_equal(c.eos[0], 202);
    assert_int_equal(config_load("tests/golden/pixels", &c, &err), -ENOENT);
    assert_non_null(strstr(err.text, "tests/golden/pixels/config.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_empty_takes_the_published_defaults),
        cmocka_unit_test(test_config_t5_defaults_and_head_rule),
        cmocka_unit_test(test_config_special_ids_are_those_of_the_language_model),
        cmocka_unit_test(test_config_t5_starts_as_the_language_model_does),
        cmocka_unit_test(test_config_t5_gates),
        cmocka_unit_test(test_config_t5_takes_the_general_names_of_sizes),
        cmocka_unit_test(test_config_retrieval_has_text_and_no_language_model),
        cmocka_unit_test(test_config_pixels_follow_the_preprocessor),
        cmocka_unit_test(test_config_post_norm_opt_has_no_final_norm),
        cmocka_unit_test(test_config_refuses_by_file_and_key),
        cmocka_unit_test(test_config_limits_size_and_depth),
        cmocka_unit_test(test_config_golden_directories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
