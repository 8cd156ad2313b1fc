/* Plans from what workers have offered, compared with plans from the checkpoints. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/fingerprint.h"
#include "proto/model_contents.h"
#include "recipe/plan.h"

#define OPT_C "tests/golden/opt_c"
#define ITM_C "tests/golden/itm_c"

struct far { /* a model that is not on this machine */
    char folder[128];
    struct model model;
};

static struct plan near_plan, far_plan; /* large for a stack */
static struct far captioner, scorer;
static struct recipe recipe;
static char temp[64];

/* Offer the stages of a checkpoint in one type. */
static void offer(const char *dir, struct far *f, enum dtype dtype)
{
    struct checkpoint *c;
    struct err err;

    assert_int_equal(checkpoint_open(dir, &c, &err), 0);
    for (int stage = STAGE_ENCODE; stage <= (c->config.lm ? STAGE_LLM : STAGE_QFORMER); stage++) {
        struct model_stage *s = &f->model.stages[f->model.n_stages++];

        *s = (struct model_stage){.stage = (enum stage)stage, .dtype = dtype, .n_workers = 1, .host = "host-1"};
        assert_int_equal(stage_fingerprint(c, s->stage, dtype, &s->fingerprint, &err), 0);
    }
    checkpoint_free(c);
}

static void send_away(const char *dir, const char *name, struct far *f)
{
    struct model_contents files = {0};
    struct err err;

    *f = (struct far){.model = {.name = ""}};
    (void)snprintf(f->model.name, sizeof(f->model.name), "%s", name);
    assert_int_equal(model_contents_describe(dir, &f->model, &err), 0);
    (void)snprintf(f->folder, sizeof(f->folder), "%s/%s", temp, name);
    assert_int_equal(file_make_folder(f->folder, &err), 0);
    assert_int_equal(model_contents_read(dir, &f->model, &files, &err), 0);
    assert_int_equal(model_contents_write(f->folder, &f->model, &files, &err), 0);
    model_contents_release(&files);
    offer(dir, f, DTYPE_F32);
}

static int setup(void **state)
{
    (void)state;
    strcpy(temp, "/tmp/bl-offered-XXXXXX");
    if (!mkdtemp(temp))
        return -1;
    send_away(OPT_C, "opt_c", &captioner);
    send_away(ITM_C, "itm_c", &scorer);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", temp);
    return system(command); /* NOLINT(cert-env33-c) */
}

static int make_far(const char *text, bool score, struct err *err)
{
    const struct plan_options o = {.recipe = &recipe,
                                   .model_dir = captioner.folder,
                                   .model = &captioner.model,
                                   .score_model_dir = score ? scorer.folder : NULL,
                                   .score_model = score ? &scorer.model : NULL,
                                   .device = DEVICE_CPU};

    err->text[0] = '\0';
    assert_int_equal(recipe_parse(text, strlen(text), "test", "test", &recipe, err), 0);
    return plan_make(&o, &far_plan, err);
}

static void same_as_of(const char *text, const char *model, const char *score_model)
{
    struct err err;
    struct plan_options o = {
        .recipe = &recipe, .model_dir = model, .score_model_dir = score_model, .device = DEVICE_CPU};

    if (make_far(text, score_model, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(plan_make(&o, &near_plan, &err), 0);
    assert_int_equal(far_plan.n_nodes, near_plan.n_nodes);
    assert_memory_equal(far_plan.nodes, near_plan.nodes, sizeof(near_plan.nodes));
    assert_memory_equal(&far_plan.recipe, &near_plan.recipe, sizeof(near_plan.recipe));
    assert_memory_equal(far_plan.fields, near_plan.fields, sizeof(near_plan.fields));
}

static void refused(const char *text, bool score, const char *says)
{
    struct err err;

    if (make_far(text, score, &err) >= 0)
        fail_msg("not refused: %s", text);
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void test_offered_plan_is_that_of_the_checkpoint(void **state)
{
    (void)state;
    same_as_of("[caption]\n", OPT_C, NULL);
    same_as_of("[caption]\nprompt = a photo of {title}\nbeams = 3\n", OPT_C, NULL);
    same_as_of("[caption]\n[score]\nscore = itm\n", OPT_C, ITM_C);
    same_as_of("[caption]\n[embed]\nembed = itc\nembed = cls\n", OPT_C, ITM_C);
    same_as_of("[embed]\nembed = query\n", OPT_C, NULL);
}

static void test_offered_prompts_are_checked_as_with_the_checkpoint(void **state)
{
    (void)state;
    refused("[caption]\nprompt = {a\n", false, "{ without }");
    refused("[caption]\nmax-new-tokens = 60000\n", false, "positions");
    refused("[caption]\nprompt = a <image> of\n", false, "image token");
}

static void test_offered_types_are_those_of_the_workers(void **state)
{
    struct err err;

    (void)state;
    refused("[caption]\n[precision]\nllm-dtype = bf16\n", false, "no llm worker of opt_c computes in bf16");
    offer(OPT_C, &captioner, DTYPE_BF16);
    refused("[caption]\n", false, "several number types (fp32, bf16): choose one by --encoder-dtype");
    same_as_of("[caption]\n[precision]\ndtype = bf16\n", OPT_C, NULL);
    for (uint32_t i = 0; i < 3; i++)
        captioner.model.stages[i].n_workers = 0; /* those in fp32 have gone */
    assert_int_equal(make_far("[caption]\n[precision]\ndtype = auto\n", false, &err), 0);
    assert_int_equal(far_plan.recipe.dtype_llm, DTYPE_BF16);
    refused("[caption]\n[score]\n", true, "the encode workers of opt_c compute in bf16, those of itm_c in fp32");
}

static void test_offered_encoder_has_the_settings_of_the_recipe(void **state)
{
    static const char exif[] = "[caption]\n[pixels]\nexif-orientation = apply\n";
    struct model_stage *s = &captioner.model.stages[captioner.model.n_stages];

    (void)state;
    refused(exif, false, "no encode worker of opt_c computes in fp32 with exif_orientation");
    *s = captioner.model.stages[0];
    s->settings = MODEL_EXIF_ORIENTATION;
    captioner.model.n_stages++;
    same_as_of(exif, OPT_C, NULL);
    same_as_of("[caption]\n", OPT_C, NULL);
}

static void test_offered_models_of_one_name_are_refused(void **state)
{
    struct model_stage *s = &captioner.model.stages[captioner.model.n_stages++];

    (void)state;
    *s = captioner.model.stages[2];
    s->fingerprint.bytes[0] ^= 1;
    strcpy(s->host, "host-2");
    refused("[caption]\n", false, "the llm weights on host-1");
    refused("[caption]\n", false, "not those on host-2");
    s->n_workers = 0;
    same_as_of("[caption]\n", OPT_C, NULL);
}

static void test_offered_stages_may_be_missing(void **state)
{
    (void)state;
    captioner.model.n_stages = 2;
    refused("[caption]\n", false, "no llm worker of opt_c has ever been connected");
    same_as_of("[embed]\nembed = query\n", OPT_C, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_offered_plan_is_that_of_the_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offered_prompts_are_checked_as_with_the_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offered_types_are_those_of_the_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offered_encoder_has_the_settings_of_the_recipe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offered_models_of_one_name_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offered_stages_may_be_missing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
