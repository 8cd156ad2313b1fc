#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recipe/plan.h"
#include "recipe/plan_private.h"
#include "client/plan_show.h"

#define OPT_DEMO "models/blip2-opt-demo"
#define ITM_DEMO "models/blip2-itm-demo"
#define OPT_A "tests/golden/opt_a"
#define OPT_C "tests/golden/opt_c"
#define ITM_C "tests/golden/itm_c"
#define T5_A "tests/golden/t5_a"

static struct plan plan; /* large for a stack */
static struct placement placement;
static const struct device_choice cpu = {.kind = DEVICE_CPU, .n = 1, .names = {"cpu"}};
static const struct device_choice cards = {.kind = DEVICE_CUDA, .n = 2, .names = {"cuda:0", "cuda:1"}};
static enum device_kind device; /* with checkpoints */

/* Of the recipe `text`; NULL for both models: null workers. */
static int make(const char *text, const char *model, const char *score_model, struct err *err)
{
    static struct recipe r;
    struct plan_options o = {.recipe = &r,
                             .model_dir = model,
                             .score_model_dir = score_model,
                             .device = !model && !score_model ? DEVICE_NULL : device};

    err->text[0] = '\0';
    if (recipe_parse(text, strlen(text), "test", "test", &r, err) < 0)
        fail_msg("%s", err->text);
    return plan_make(&o, &plan, err);
}

static void made(const char *text, const char *model, const char *score_model)
{
    struct err err;

    if (make(text, model, score_model, &err) < 0)
        fail_msg("%s", err.text);
}

static void refused(const char *text, const char *model, const char *score_model, const char *says)
{
    struct err err;

    if (make(text, model, score_model, &err) >= 0)
        fail_msg("not refused: %s", text);
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void check_node(uint32_t i, enum stage stage, uint32_t needs, uint32_t tasks, const char *model)
{
    assert_true(i < plan.n_nodes);
    assert_int_equal(plan.nodes[i].stage, stage);
    assert_int_equal(plan.nodes[i].needs, needs);
    assert_int_equal(plan.nodes[i].tasks, tasks);
    assert_string_equal(plan.nodes[i].model, model);
    assert_true(plan.nodes[i].needs >> i == 0);
}

static void test_plan_caption_is_three_stages(void **state)
{
    (void)state;
    made("[caption]\n[precision]\nllm-dtype = bf16\n", OPT_DEMO, NULL);
    assert_int_equal(plan.n_nodes, 3);
    check_node(0, STAGE_ENCODE, 0, 0, "blip2-opt-demo");
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_PROJECT, "blip2-opt-demo");
    check_node(2, STAGE_LLM, 2, 0, "blip2-opt-demo");
    assert_int_equal(plan.n_workers, 3);
    assert_int_equal(plan.workers[0].dtype, DTYPE_F32);
    assert_int_equal(plan.workers[2].dtype, DTYPE_BF16);
    assert_int_equal(plan.recipe.dtype_llm, DTYPE_BF16);
    assert_true(plan.workers[0].gflop > 1 && plan.workers[0].gflop < 4); /* 2.3 of MODEL.md */
    assert_true(plan.workers[1].gflop > 0 && plan.workers[2].gflop > 0);
    assert_true(plan.is_demo);
    assert_int_equal(plan.recipe.n_prompts, 0);
    assert_string_equal(plan.recipe.score_model, "");
}

static void test_plan_trunk_is_shared_exactly_when_it_is_the_same(void **state)
{
    struct fingerprint bf16;

    (void)state;
    made("[caption]\n[score]\n", OPT_C, ITM_C); /* differ in post_layernorm alone */
    assert_int_equal(plan.n_nodes, 4);
    check_node(0, STAGE_ENCODE, 0, 0, "opt_c");
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_PROJECT, "opt_c");
    check_node(2, STAGE_LLM, 2, 0, "opt_c");
    check_node(3, STAGE_QFORMER, 1 | 4, MSG_TASK_SCORE, "itm_c");
    assert_int_equal(plan.n_workers, 4);
    assert_int_equal(plan.nodes[3].out_bytes, 0);
    assert_string_equal(plan.recipe.score_model, "itm_c");

    made("[caption]\n[score]\n", OPT_A, ITM_C);
    assert_int_equal(plan.n_nodes, 5);
    check_node(3, STAGE_ENCODE, 0, 0, "itm_c");
    check_node(4, STAGE_QFORMER, 4 | 8, MSG_TASK_SCORE, "itm_c");
    assert_int_equal(plan.n_workers, 5);
    assert_string_equal(plan.workers[3].name, "score-encoder");
    assert_string_equal(plan.workers[4].name, "score-qformer");
    assert_true(strstr(plan.workers[4].model_dir, "itm_c") != NULL && plan.workers[4].model_dir[0] == '/');

    bf16 = plan.nodes[0].fingerprint;
    made("[caption]\n[precision]\nencoder-dtype = bf16\n", OPT_A, NULL);
    assert_false(fingerprint_equal(&bf16, &plan.nodes[0].fingerprint));
}

static void test_plan_embeddings_come_from_the_scorer_if_there_is_one(void **state)
{
    (void)state;
    made("[caption]\n[embed]\nembed = query\nembed = cls\n", OPT_C, NULL);
    assert_int_equal(plan.n_nodes, 3);
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_PROJECT | MSG_TASK_QUERY | MSG_TASK_CLS, "opt_c");
    made("[caption]\n[embed]\nembed = query\nembed = itc\n", OPT_C, ITM_C);
    assert_int_equal(plan.n_nodes, 4);
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_PROJECT, "opt_c");
    check_node(3, STAGE_QFORMER, 1, MSG_TASK_QUERY | MSG_TASK_ITC, "itm_c"); /* needs no captions */
    made("[caption]\n[embed]\nembed = itc_text:fp16\n", OPT_C, ITM_C);
    check_node(3, STAGE_QFORMER, 1 | 4, MSG_TASK_ITC_TEXT, "itm_c");
    made("[caption]\n", OPT_C, ITM_C); /* nothing for it to do */
    assert_int_equal(plan.n_nodes, 3);
    made("[embed]\nembed = query\n", OPT_C, NULL); /* a captioner's Q-Former will do */
    assert_int_equal(plan.n_nodes, 2);
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_QUERY, "opt_c");
    assert_int_equal(plan.recipe.decode.max_new_tokens, 0);
    made("[score]\ntext-field = caption\n[embed]\nembed = itc\n", ITM_C, NULL);
    assert_int_equal(plan.n_nodes, 2);
    check_node(1, STAGE_QFORMER, 1, MSG_TASK_SCORE | MSG_TASK_ITC, "itm_c");
    assert_int_equal(plan.n_fields, 1);
    assert_true(plan.fields[0].needed);
    made("[score]\ntext-field = caption\n", NULL, ITM_C); /* under the other name */
    assert_int_equal(plan.n_nodes, 2);
}

static void test_plan_questions_are_asked_in_the_models_words(void **state)
{
    (void)state;
    made("[caption]\nquestion = what is this?\nprompt = a photo of\nquestion = {question}\n", OPT_DEMO, NULL);
    assert_int_equal(plan.recipe.n_prompts, 3);
    assert_string_equal(plan.recipe.prompts[0], "Question: what is this? Answer:");
    assert_string_equal(plan.recipe.prompts[1], "a photo of");
    assert_string_equal(plan.recipe.prompts[2], "Question: {question} Answer:");
    assert_int_equal(plan.n_fields, 1);
    assert_string_equal(plan.fields[0].name, "question");
    assert_true(plan.fields[0].needed);
    made("[caption]\nquestion = what is this?\n", T5_A, NULL);
    assert_string_equal(plan.recipe.prompts[0], "Question: what is this? Short answer:");
}

static void test_plan_columns_are_those_of_prompts_and_texts(void **state)
{
    (void)state;
    made("[caption]\nprompt = {a} {key} {b}: {a}\nprompt = {{c}}\n[score]\ntext-field = b\ntext-field = d\n", OPT_C,
         ITM_C);
    assert_int_equal(plan.n_fields, 3);
    assert_string_equal(plan.fields[0].name, "a");
    assert_string_equal(plan.fields[1].name, "b");
    assert_string_equal(plan.fields[2].name, "d");
    assert_true(plan.fields[0].needed && plan.fields[1].needed && !plan.fields[2].needed);
}

static void test_plan_wrong_checkpoints_are_refused_with_the_cure(void **state)
{
    (void)state;
    refused("[caption]\n", ITM_C, NULL, "a retrieval checkpoint");
    refused("[caption]\n[score]\n", OPT_C, NULL, "--score-model DIR is missing");
    refused("[caption]\n[score]\n", OPT_C, OPT_A, "has no ITC and ITM heads");
    refused("[score]\ntext-field = a\n", OPT_C, NULL, "has no ITC and ITM heads");
    refused("[embed]\nembed = itc\n", OPT_C, NULL, "retrieval checkpoint");
    refused("[embed]\nembed = cls\n", OPT_C, ITM_C, "takes one model");
    refused("[caption]\n", "/nonexistent", NULL, "--model /nonexistent");
    refused("[caption]\n", "tests/golden/pixels", NULL, "config.json");
}

static void test_plan_options_that_cannot_be_done_are_refused(void **state)
{
    char many[4000] = "[caption]\nsample = yes\ncaptions = 11\n", longest[4000] = "[caption]\nprompt =";

    (void)state;
    refused("[caption]\nprompt = {a\n", OPT_DEMO, NULL, "{ without }");
    refused("[caption]\nprompt =\n", OPT_DEMO, NULL, "no tokens");
    refused("[caption]\nprompt = a <image> of\n", OPT_DEMO, NULL, "image token");
    refused("[caption]\nmax-new-tokens = 60000\n", OPT_DEMO, NULL, "positions");
    for (int i = 0; i < 18; i++)
        (void)strcat(longest,
                     "\n the cat on the mat and the cat on the mat and the cat on the mat and the cat on the mat");
    refused(longest, OPT_DEMO, NULL, "positions");
    for (int i = 0; i < 3; i++)
        (void)snprintf(many + strlen(many), 40, "prompt = %c\n", 'a' + i);
    refused(many, OPT_DEMO, NULL, "33 captions a picture");
    refused("[caption]\nsample = yes\ncaptions = 32\n[score]\ntext-field = a\n", OPT_C, ITM_C, "33 captions a picture");
    made("[caption]\nsample = yes\ncaptions = 31\n[score]\ntext-field = a\n", OPT_C, ITM_C);
}

static void test_plan_beams_beyond_the_vocabulary_are_refused(void **state)
{
    struct config c = {.lm = CONFIG_LM_OPT, .lm_vocab_size = 100, .n_eos = 1};
    struct msg_recipe *r = calloc(1, sizeof(*r));
    struct err err;

    (void)state;
    msg_recipe_init(r);
    r->decode.n_beams = 50;
    assert_int_equal(plan_check_captions(r, &c, &err), 0);
    r->decode.n_beams = 51;
    assert_int_equal(plan_check_captions(r, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most 50 beams"));
    c.n_eos = 4;
    r->decode.n_beams = 21;
    assert_int_equal(plan_check_captions(r, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most 20 beams"));
    r->decode.n_beams = 1; /* greedy looks at no candidates */
    c.lm_vocab_size = 2;
    assert_int_equal(plan_check_captions(r, &c, &err), 0);
    free(r);
}

static void test_plan_embeddings_beyond_a_record_are_refused(void **state)
{
    struct config c = {.n_queries = 32, .qformer = {.width = 768}, .embed_width = 256, .vision = {.width = 1408}};
    struct err err;

    (void)state;
    made("[embed]\nembed = query\nembed = itc\nembed = cls\n", NULL, NULL);
    assert_int_equal(plan_check_sizes(&plan, &c, &err), 0); /* published sizes in fp32 fit */
    c.qformer.width = 2048;
    assert_int_equal(plan_check_sizes(&plan, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "query:fp16"));
    plan.recipe.embeddings[0].dtype = DTYPE_F16;
    assert_int_equal(plan_check_sizes(&plan, &c, &err), 0);
    plan.nodes[0].out_bytes = MSG_MAX_TENSOR_FRAME_BYTES + 1;
    assert_int_equal(plan_check_sizes(&plan, &c, &err), -EINVAL);
}

/* A copy of a checkpoint's folder in links, without one of its files. */
static void without(const char *from, const char *file, char *ret, size_t size)
{
    char command[512];

    (void)snprintf(ret, size, "/tmp/test_plan.XXXXXX");
    assert_non_null(mkdtemp(ret));
    (void)snprintf(command, sizeof(command), "ln -s \"$PWD\"/%s/* %s/ && rm %s/%s", from, ret, ret, file);
    assert_int_equal(system(command), 0);
}

static void test_plan_lacking_tokenizer_is_named(void **state)
{
    char dir[64], command[128];

    (void)state;
    without(OPT_C, "tokenizer.json", dir, sizeof(dir));
    refused("[caption]\n", dir, NULL, "tokenizer.json");
    (void)snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    without(ITM_C, "tokenizer.json", dir, sizeof(dir));
    refused("[score]\ntext-field = a\n", dir, NULL, "tokenizer.json");
    (void)snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void check_dtypes(enum dtype encode, enum dtype qformer, enum dtype llm)
{
    assert_int_equal(plan.recipe.dtype_encode, encode);
    assert_int_equal(plan.recipe.dtype_qformer, qformer);
    assert_int_equal(plan.recipe.dtype_llm, llm);
    for (uint32_t i = 0; i < plan.n_workers; i++)
        assert_int_equal(plan.workers[i].dtype, i == 0 ? encode : i == 1 ? qformer : llm);
}

static void test_plan_auto_is_what_the_device_is_used_with(void **state)
{
    struct fingerprint fp32, bf16;

    (void)state;
    made("[caption]\n", OPT_DEMO, NULL);
    check_dtypes(DTYPE_F32, DTYPE_F32, DTYPE_F32);
    fp32 = plan.nodes[0].fingerprint;
    device = DEVICE_CUDA;
    made("[caption]\n", OPT_DEMO, NULL);
    check_dtypes(DTYPE_BF16, DTYPE_BF16, DTYPE_BF16);
    bf16 = plan.nodes[0].fingerprint;
    assert_false(fingerprint_equal(&fp32, &bf16));
    made("[caption]\n[precision]\ndtype = fp32\nllm-dtype = auto\n", OPT_DEMO, NULL);
    check_dtypes(DTYPE_F32, DTYPE_F32, DTYPE_BF16);
    assert_true(fingerprint_equal(&fp32, &plan.nodes[0].fingerprint)); /* the type counts, not the device */
    made("[caption]\n[precision]\ndtype = fp8\n", OPT_DEMO, NULL);
    check_dtypes(DTYPE_F8_E4M3, DTYPE_BF16, DTYPE_F8_E4M3);
    assert_false(fingerprint_equal(&bf16, &plan.nodes[0].fingerprint));
    made("[caption]\n[precision]\ndtype = fp16\nqformer-dtype = fp32\n", OPT_DEMO, NULL);
    check_dtypes(DTYPE_F16, DTYPE_F32, DTYPE_F16);
    device = DEVICE_CPU;
}

static void test_plan_types_that_a_stage_has_not_are_refused_with_the_cure(void **state)
{
    (void)state;
    refused("[caption]\n[precision]\ndtype = fp8\n", OPT_DEMO, NULL, "--encoder-dtype fp8: CPUs compute in fp32");
    refused("[caption]\n[precision]\nllm-dtype = fp16\n", OPT_DEMO, NULL, "--llm-dtype fp16: CPUs compute in");
    refused("[caption]\n[precision]\ndtype = fp16\n", OPT_DEMO, NULL, "--dtype fp16: CPUs compute in");
    made("[score]\ntext-field = a\n[precision]\nllm-dtype = fp16\n", ITM_C, NULL); /* there is none */
    device = DEVICE_CUDA;
    refused("[caption]\n[precision]\nllm-dtype = fp16\n", T5_A, NULL, "FlanT5 overflows fp16");
    refused("[caption]\n[precision]\ndtype = fp8\n", T5_A, NULL, "--llm-dtype fp8: the activations of FlanT5");
    made("[caption]\n[precision]\ndtype = fp8\nllm-dtype = bf16\n", T5_A, NULL);
    check_dtypes(DTYPE_F8_E4M3, DTYPE_BF16, DTYPE_BF16);
    device = DEVICE_CPU;
}

static void test_plan_what_this_machine_cannot_do_is_refused_with_the_cure(void **state)
{
    struct err err = {""};

    (void)state;
    made("[caption]\n", OPT_DEMO, NULL);
    assert_int_equal(plan_check_machine(&plan, CPU_ISA_BASE, 1e9, &err), 0);
    assert_int_equal(plan_check_machine(&plan, CPU_ISA_BASE, 1e6, &err), -ENOMEM);
    assert_non_null(strstr(err.text, "take a smaller checkpoint"));
    made("[caption]\n[precision]\nllm-dtype = bf16\n", OPT_DEMO, NULL);
    assert_int_equal(plan_check_machine(&plan, CPU_ISA_BASE, 1e9, &err), -EDOM);
    assert_non_null(strstr(err.text, "the llm in bf16") && strstr(err.text, "--dtype fp32") ? err.text : NULL);
    assert_int_equal(plan_check_machine(&plan, CPU_ISA_AVX512, 1e9, &err),
                     cpu_isa_has_bf16(CPU_ISA_AVX512) ? 0 : -EDOM);
    device = DEVICE_CUDA; /* a card says itself what it can do */
    made("[caption]\n", OPT_DEMO, NULL);
    device = DEVICE_CPU;
    assert_int_equal(plan_check_machine(&plan, CPU_ISA_BASE, 1e6, &err), 0);
}

static void test_plan_memory_of_published_sizes_is_that_of_weights_and_batch(void **state)
{
    struct config c = {
        .lm = CONFIG_LM_OPT,
        .vision = {.width = 1408, .n_layers = 39, .ffn_width = 6144, .n_tokens = 257},
        .qformer = {.width = 768, .n_layers = 12, .ffn_width = 3072, .vision_width = 1408, .cross_attention_freq = 2},
        .opt = {.width = 2560, .n_layers = 32, .ffn_width = 10240},
        .lm_width = 2560,
        .lm_vocab_size = 50304,
        .n_queries = 32};
    double encoder, llm;

    (void)state;
    encoder = plan_bytes_encoder(&c, DTYPE_BF16, true);
    assert_true(encoder > 3.9e9 && encoder < 5e9); /* 2.0 GB of weights, 1.9 of a batch of 256, 0.5 */
    assert_true(plan_bytes_encoder(&c, DTYPE_F32, true) > encoder + 3.7e9);
    assert_true(plan_bytes_encoder(&c, DTYPE_F8_E4M3, true) < encoder - 0.9e9);
    assert_true(plan_bytes_qformer(&c, DTYPE_BF16, true) > 0.9e9 && plan_bytes_qformer(&c, DTYPE_BF16, true) < 2e9);
    llm = plan_bytes_llm(&c, DTYPE_BF16, 60, true);
    assert_true(llm > 10e9 && llm < 13e9); /* 5.3 GB of weights, 0.3 of a table, 5 of a cache of 256 sequences, 0.5 */
    c.lm = CONFIG_LM_T5;
    c.t5 = (struct config_t5){.width = 2048,
                              .n_heads = 32,
                              .head_dim = 64,
                              .ffn_width = 5120,
                              .n_encoder_layers = 24,
                              .n_decoder_layers = 24};
    c.lm_width = 2048;
    c.lm_vocab_size = 32128;
    llm = plan_bytes_llm(&c, DTYPE_BF16, 60, true);
    assert_true(llm > 8e9 && llm < 10e9); /* 5.6 GB of weights, 3 of a cache, 0.5 */
}

static void test_plan_null_workers_do_every_graph(void **state)
{
    (void)state;
    made("[caption]\nquestion = {q}\nbeams = 5\n", NULL, NULL);
    assert_int_equal(plan.n_nodes, 3);
    assert_int_equal(plan.n_workers, 3);
    made("[caption]\n[score]\n[embed]\nembed = query\nembed = itc\nembed = itc_text\nembed = cls\n", NULL, NULL);
    assert_int_equal(plan.n_nodes, 4);
    assert_int_equal(plan.n_workers, 3);
    assert_int_equal(plan.workers[1].nodes, 2 | 8); /* one Q-Former process for both */
    made("[score]\ntext-field = a\n", NULL, NULL);
    assert_int_equal(plan.n_nodes, 2);
    made("[embed]\nembed = query\n", NULL, NULL);
    assert_int_equal(plan.n_nodes, 2);
    for (uint32_t i = 0; i < plan.n_workers; i++)
        assert_string_equal(plan.workers[i].model_dir, "");
}

static void test_plan_of_every_builtin_recipe_can_be_shown(void **state)
{
    (void)state;
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++) {
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        struct recipe r, again;

        made(b->text, NULL, NULL);
        assert_int_equal(recipe_load(b->name, &r, NULL), 0);
        place_workers(&plan, &cards, 16, &placement);
        assert_int_equal(plan_show(&plan, &placement, &r, out), 0);
        assert_int_equal(fclose(out), 0);
        assert_non_null(strstr(text, b->name));
        assert_int_equal(recipe_parse(text, n, "x", "shown", &again, NULL), 0); /* all of it */
        assert_memory_equal(&again.decode, &r.decode, sizeof(r.decode));
        assert_string_equal(again.about, r.about);
        assert_true(again.stages == r.stages && again.n_prompts == r.n_prompts);
        assert_non_null(strstr(text, "encode"));
        assert_non_null(strstr(text, "#   qformer-1       on cuda:1, "));
        free(text);
    }
}

static void test_plan_shown_is_a_recipe_with_long_and_odd_prompts_too(void **state)
{
    char prompt[400] = "in words", *text = NULL;
    struct recipe r, again;
    size_t n = 0;
    FILE *out;

    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(prompt, " and so");
    recipe_init(&r);
    r.stages = RECIPE_CAPTION;
    r.n_prompts = 2;
    (void)msg_text_set(r.prompts[0].text, MSG_PROMPT_SIZE, prompt);
    (void)msg_text_set(r.prompts[1].text, MSG_PROMPT_SIZE, "a\nb");
    assert_int_equal(plan_make(&(struct plan_options){.recipe = &r, .device = DEVICE_NULL}, &plan, NULL), 0);
    out = open_memstream(&text, &n);
    place_workers(&plan, &cpu, 2, &placement);
    assert_int_equal(plan_show(&plan, &placement, &r, out), 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(recipe_parse(text, n, "x", "shown", &again, NULL), 0);
    assert_int_equal(again.n_prompts, 1);
    assert_string_equal(again.prompts[0].text, prompt);
    assert_non_null(strstr(text, "\n# prompt = a\\nb (contains line ends"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_caption_is_three_stages),
        cmocka_unit_test(test_plan_trunk_is_shared_exactly_when_it_is_the_same),
        cmocka_unit_test(test_plan_embeddings_come_from_the_scorer_if_there_is_one),
        cmocka_unit_test(test_plan_questions_are_asked_in_the_models_words),
        cmocka_unit_test(test_plan_columns_are_those_of_prompts_and_texts),
        cmocka_unit_test(test_plan_wrong_checkpoints_are_refused_with_the_cure),
        cmocka_unit_test(test_plan_options_that_cannot_be_done_are_refused),
        cmocka_unit_test(test_plan_beams_beyond_the_vocabulary_are_refused),
        cmocka_unit_test(test_plan_embeddings_beyond_a_record_are_refused),
        cmocka_unit_test(test_plan_lacking_tokenizer_is_named),
        cmocka_unit_test(test_plan_auto_is_what_the_device_is_used_with),
        cmocka_unit_test(test_plan_types_that_a_stage_has_not_are_refused_with_the_cure),
        cmocka_unit_test(test_plan_what_this_machine_cannot_do_is_refused_with_the_cure),
        cmocka_unit_test(test_plan_memory_of_published_sizes_is_that_of_weights_and_batch),
        cmocka_unit_test(test_plan_null_workers_do_every_graph),
        cmocka_unit_test(test_plan_of_every_builtin_recipe_can_be_shown),
        cmocka_unit_test(test_plan_shown_is_a_recipe_with_long_and_odd_prompts_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
