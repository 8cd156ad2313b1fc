#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "recipe/recipe.h"
#include "proto/msg.h"

static struct recipe parsed(const char *text)
{
    struct recipe r;
    struct err err = {""};

    if (recipe_parse(text, strlen(text), "test", "test.conf", &r, &err) < 0)
        fail_msg("%s", err.text);
    return r;
}

static void refused(const char *text, const char *says)
{
    struct recipe r = {.name = "untouched"};
    struct err err = {""};

    assert_true(recipe_parse(text, strlen(text), "test", "test.conf", &r, &err) < 0);
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
    assert_string_equal(r.name, "untouched");
}

static void test_recipe_file_sets_every_key(void **state)
{
    struct recipe r = parsed("\xef\xbb\xbf# words\r\n"
                             "about = all of it\r\n"
                             "[caption]\n"
                             "prompt = a photo of ; a comment\n"
                             "question = {question}\n"
                             "prompt = \" {{a}} ; \" ; and a comment\n"
                             "captions = 3\n"
                             "max-new-tokens = 30\nmin-new-tokens = 8\nbeams=5\nlength-penalty = -1\n"
                             "early-stopping = never\nrepetition-penalty = 1.5\nno-repeat-ngram = 3\n"
                             "sample = no\ntemperature = 0.7\ntop-k = 50\ntop-p = 0.9\nseed = 18446744073709551615\n"
                             "\n[score]\nscore = itm\ntext-field = caption\ntext-field = alt\n"
                             "[embed]\nembed = itc:fp16:first\nembed = query\n"
                             "[pixels]\nexif-orientation = apply\ngrey16 = high-byte\n"
                             "[precision]\ndtype = fp32\nllm-dtype = bf16\nencoder-dtype = auto\n");

    (void)state;
    assert_string_equal(r.name, "test");
    assert_string_equal(r.about, "all of it");
    assert_int_equal(r.stages, RECIPE_CAPTION | RECIPE_SCORE | RECIPE_EMBED);
    assert_int_equal(r.n_prompts, 3);
    assert_string_equal(r.prompts[0].text, "a photo of");
    assert_string_equal(r.prompts[1].text, "{question}");
    assert_string_equal(r.prompts[2].text, " {{a}} ; ");
    assert_false(r.prompts[0].is_question);
    assert_true(r.prompts[1].is_question);
    assert_int_equal(r.decode.n_return, 3);
    assert_int_equal(r.decode.max_new_tokens, 30);
    assert_int_equal(r.decode.min_new_tokens, 8);
    assert_int_equal(r.decode.n_beams, 5);
    assert_true(r.decode.length_penalty == -1);
    assert_int_equal(r.decode.early_stopping, EARLY_STOPPING_NEVER);
    assert_true(r.decode.repetition_penalty == 1.5F);
    assert_int_equal(r.decode.no_repeat_ngram, 3);
    assert_true(r.decode.temperature == 0.7F && r.decode.top_p == 0.9F);
    assert_int_equal(r.decode.top_k, 50);
    assert_true(r.decode.seed == UINT64_MAX);
    assert_true(r.exif_orientation && r.grey16_high_byte);
    assert_true(r.itm && !r.itc);
    assert_int_equal(r.n_text_fields, 2);
    assert_string_equal(r.text_fields[1], "alt");
    assert_int_equal(r.n_embeddings, 2);
    assert_int_equal(r.embeddings[0].kind, MSG_EMBEDDING_ITC);
    assert_int_equal(r.embeddings[0].dtype, DTYPE_F16);
    assert_true(r.embeddings[0].first_row && !r.embeddings[1].first_row);
    assert_int_equal(r.embeddings[1].dtype, DTYPE_F32);
    assert_int_equal(r.dtype_encode, 0);
    assert_int_equal(r.dtype_qformer, DTYPE_F32);
    assert_int_equal(r.dtype_llm, DTYPE_BF16);
}

static void test_recipe_empty_section_asks_for_its_stage(void **state)
{
    struct recipe r = parsed("[caption]\n");

    (void)state;
    assert_int_equal(r.stages, RECIPE_CAPTION);
    assert_int_equal(r.decode.max_new_tokens, 20);
    r = parsed("[caption]\n[score]\n\n");
    assert_int_equal(r.stages, RECIPE_CAPTION | RECIPE_SCORE);
    assert_true(r.itc && r.itm);
}

static void test_recipe_value_goes_on_in_an_indented_line(void **state)
{
    struct recipe r = parsed("[caption]\nprompt = Question: what is\n   in the picture?\n\tAnswer:\nprompt = b\n"
                             "[precision]\n  dtype = bf16\n");

    (void)state;
    assert_int_equal(r.n_prompts, 2);
    assert_string_equal(r.prompts[0].text, "Question: what is in the picture? Answer:");
    assert_string_equal(r.prompts[1].text, "b");
    assert_int_equal(r.dtype_llm, DTYPE_BF16);
}

static void test_recipe_mistakes_name_file_and_line(void **state)
{
    char long_line[600] = "[caption]\nprompt = ";
    char long_value[4000] = "[caption]\nprompt = a\n";

    (void)state;
    refused("[caption]\n\nbeems = 5\n", "test.conf, line 3: unknown key beems; did you mean beams?");
    refused("[caption]\nbeams = many\n", "test.conf, line 2: beams = many: expected a whole number from 1 to 64");
    refused("[caption]\nbeams = 65\n", "from 1 to 64");
    refused("[caption]\nbeams = 2.5\n", "a whole number");
    refused("[caption]\ntop-p = 1.5\n", "a number above 0, up to 1");
    refused("[caption]\ntop-p = nan\n", "a number above 0, up to 1");
    refused("[caption]\nseed = -1\n", "a whole number, 0 or more");
    refused("[caption]\nsample = maybe\n", "yes or no");
    refused("[caption]\nearly-stopping = sometimes\n", "false, true or never");
    refused("[caption]\nbeams = 5\n\nbeams = 6\n", "line 4: beams is already set in line 2");
    refused("[caption]\n[score]\nbeams = 5\n", "line 3: beams belongs in section [caption]");
    refused("beams = 5\n[caption]\n", "line 1: beams belongs in section [caption]");
    refused("[caption]\nname = x\n", "line 2: name belongs above the first section");
    refused("[captoin]\n", "test.conf, line 1: unknown section captoin; did you mean caption?");
    refused("\n[captoin]\nbeams = 1\n", "line 2: unknown section captoin");
    refused("[caption]\nwhat is this\n", "line 2: neither");
    refused("[caption\n", "line 1: neither");
    refused("[score]\nscore = clip\n[caption]\n", "line 2: score = clip: expected itc, itm");
    refused("[embed]\nembed = vit\n", "query, itc, itc_text or cls");
    refused("[embed]\nembed = query:first\n", "fp16 or fp32 after");
    refused("[embed]\nembed = cls\nembed = cls:fp16\n", "line 3: embed cls twice");
    refused("[caption]\n[pixels]\nexif-orientation = yes\n", "expected ignore or apply");
    refused("[caption]\n[pixels]\ngrey16 = cli\n", "expected clip or high-byte");
    refused("[caption]\n[precision]\ndtype = fp4\n", "expected fp32, bf16, fp16, fp8 or auto");
    refused("[caption]\n[precision]\nqformer-dtype = fp8\n", "the Q-Former does not support fp8");
    refused("[caption]\nprompt = \xff\n", "not UTF-8");
    refused("", "asks for nothing");
    refused("[precision]\ndtype = bf16\n", "asks for nothing");
    refused("[caption]\nbeams = 3\nsample = yes\n", "sample = yes with 3 beams: sampling takes one beam (beams = 1)");
    refused("[caption]\ncaptions = 3\n",
            "3 captions from 1 beam: use as many beams (beams = 3), or sampling (sample = yes)");
    refused("[caption]\nmin-new-tokens = 21\n", "min-new-tokens 21");
    refused("[score]\n", "there are no texts to score");
    refused("[embed]\nembed = itc_text\n", "there are no texts to embed");
    refused("[embed]\n", "no embeddings are named");
    refused("[caption]\n[score]\nscore = none\ntext-field = a\n", "would not be used");
    memset(long_line + strlen(long_line), 'x', 300);
    refused(long_line, "line 2: longer than");
    for (int i = 0; i < 30; i++)
        (void)snprintf(long_value + strlen(long_value), sizeof(long_value) - strlen(long_value), " %0100d\n", i);
    refused(long_value, "line 2: the value is too long: prompt");
}

static void override(struct recipe *r, const char *first, ...)
{
    struct cli_settings s = {.n = 0};
    struct err err = {""};
    va_list ap;

    va_start(ap, first);
    for (const char *name = first; name; name = va_arg(ap, const char *))
        s.list[s.n++] = (struct cli_setting){.name = name, .value = va_arg(ap, const char *)};
    va_end(ap);
    if (recipe_override(r, &s, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_recipe_options_win_and_replace_lists(void **state)
{
    struct recipe r = parsed("[caption]\nprompt = a\nquestion = b\nbeams = 5\n");
    struct cli_settings wrong = {.n = 1, .list = {{.name = "beams", .value = "0"}}};
    struct err err = {""};

    (void)state;
    override(&r, "beams", "3", "beams", "4", NULL);
    assert_int_equal(r.decode.n_beams, 4);
    assert_int_equal(r.n_prompts, 2);
    override(&r, "question", "c", "prompt", "d", "question", "e", NULL);
    assert_int_equal(r.n_prompts, 3);
    assert_string_equal(r.prompts[0].text, "c");
    assert_string_equal(r.prompts[2].text, "e");
    assert_true(r.prompts[2].is_question && !r.prompts[1].is_question);
    override(&r, "score", "itc", "text-field", "alt", "embed", "cls", NULL);
    assert_int_equal(r.stages, RECIPE_CAPTION | RECIPE_SCORE | RECIPE_EMBED);
    assert_int_equal(recipe_override(&r, &wrong, &err), -EINVAL);
    assert_non_null(strstr(err.text, "--beams 0: expected a whole number from 1 to 64"));
    r = parsed("[score]\ntext-field = x\n");
    wrong.list[0] = (struct cli_setting){.name = "beams", .value = "3"};
    assert_int_equal(recipe_override(&r, &wrong, &err), -EINVAL);
    assert_non_null(strstr(err.text, "writes no captions"));
    r = parsed("[caption]\n[score]\n");
    override(&r, "score", "none", NULL);
    assert_int_equal(r.stages, RECIPE_CAPTION);
}

/* Of built-in recipes and of random ones. */
static void check_round_trip(const struct recipe *r)
{
    struct recipe again;
    struct err err = {""};
    struct buf text;

    buf_init(&text, 0);
    assert_int_equal(recipe_print(r, &text), 0);
    if (recipe_parse((const char *)text.data, text.size_bytes, "x", "printed", &again, &err) < 0)
        fail_msg("%s\n%.*s", err.text, (int)text.size_bytes, (const char *)text.data);
    for (uint32_t i = 0; i < MSG_MAX_EMBEDDINGS; i++) { /* with padding, which is nobody's */
        assert_int_equal(r->embeddings[i].kind, again.embeddings[i].kind);
        assert_int_equal(r->embeddings[i].dtype, again.embeddings[i].dtype);
        assert_int_equal(r->embeddings[i].first_row, again.embeddings[i].first_row);
        memcpy(&again.embeddings[i], &r->embeddings[i], sizeof(r->embeddings[i]));
    }
    assert_memory_equal(r, &again, sizeof(again));
    buf_release(&text);
}

static void test_recipe_printed_parses_to_the_same(void **state)
{
    static const enum dtype dtypes[] = {0, DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3};
    static const char *const texts[] = {
        "a",
        "",
        " b ",
        "\"c\"",
        "{d} {{",
        "x\"",
        "Question: {q} Answer:",
        "a ; b",
        "; \"x\"",
        "one two three four five six seven eight nine ten eleven twelve  thirteen # fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six, = \"ok "};
    unsigned seed = (unsigned)time(NULL);

    (void)state;
    print_message("seed %u\n", seed);
    srandom(seed);
    for (int i = 0; i < 300; i++) {
        struct recipe r;
        bool sample = random() % 2;

        recipe_init(&r);
        (void)msg_text_set(r.name, sizeof(r.name), "random");
        r.stages = RECIPE_CAPTION | (random() % 2 ? RECIPE_SCORE : 0);
        r.n_prompts = (uint32_t)random() % (MSG_MAX_PROMPTS + 1);
        for (uint32_t k = 0; k < r.n_prompts; k++) {
            (void)msg_text_set(r.prompts[k].text, MSG_PROMPT_SIZE, texts[random() % 10]);
            r.prompts[k].is_question = random() % 2;
        }
        r.decode = (struct generation_options){.max_new_tokens = 40,
                                               .min_new_tokens = (uint32_t)random() % 40,
                                               .n_beams = sample ? 1 : 5,
                                               .n_return = 1 + (uint32_t)random() % 5,
                                               .length_penalty = (float)(random() % 2001 - 1000) / 77,
                                               .early_stopping = (enum early_stopping)(random() % 3),
                                               .repetition_penalty = (float)(1 + random() % 1000) / 333,
                                               .no_repeat_ngram = (uint32_t)random() % 4,
                                               .sample = sample,
                                               .temperature = (float)(1 + random()) / 1e8F,
                                               .top_k = (uint32_t)random() % 100,
                                               .top_p = (float)(1 + random() % 999) / 1000,
                                               .seed = (uint64_t)random() << 33 | (uint64_t)random()};
        r.dtype_llm = dtypes[random() % 5];
        r.dtype_encode = dtypes[random() % 5];
        r.dtype_qformer = dtypes[random() % 4];
        r.exif_orientation = random() % 2;
        r.grey16_high_byte = random() % 2;
        if (r.stages & RECIPE_SCORE) {
            r.itc = random() % 2;
            r.itm = !r.itc || random() % 2;
            r.n_text_fields = (uint32_t)random() % 2;
            (void)msg_text_set(r.text_fields[0], MSG_NAME_SIZE, r.n_text_fields ? "caption" : "");
        }
        check_round_trip(&r);
    }
}

static void test_recipe_builtins_are_those_of_the_folder(void **state)
{
    DIR *d = opendir("ops/recipes");
    struct dirent *e;
    size_t n_files = 0, n_builtin = 0;

    (void)state;
    assert_non_null(d);
    while ((e = readdir(d))) {
        char path[300];
        struct buf text;
        size_t n = strlen(e->d_name);
        const struct recipe_builtin *b = recipe_builtins;

        if (n < 6 || strcmp(e->d_name + n - 5, ".conf") != 0)
            continue;
        n_files++;
        while (b->name && (strlen(b->name) != n - 5 || strncmp(b->name, e->d_name, n - 5) != 0))
            b++;
        assert_non_null(b->name);
        (void)snprintf(path, sizeof(path), "ops/recipes/%.200s", e->d_name);
        buf_init(&text, 0);
        assert_int_equal(file_read(path, 1 << 16, &text, NULL), 0);
        assert_int_equal(text.size_bytes, strlen(b->text));
        assert_memory_equal(text.data, b->text, text.size_bytes);
        buf_release(&text);
    }
    (void)closedir(d);
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++, n_builtin++) {
        struct recipe r;

        assert_int_equal(recipe_load(b->name, &r, NULL), 0);
        assert_string_equal(r.name, b->name);
        assert_true(r.about[0]);
        check_round_trip(&r);
    }
    assert_int_equal(n_files, n_builtin);
}

static void test_recipe_builtins_have_the_published_settings(void **state)
{
    struct recipe r;

    (void)state;
    assert_int_equal(recipe_load("caption", &r, NULL), 0);
    assert_true(r.decode.n_beams == 1 && r.decode.max_new_tokens == 20 && r.n_prompts == 0 && !r.decode.sample);
    assert_int_equal(recipe_load("caption-coco", &r, NULL), 0);
    assert_true(r.decode.n_beams == 5 && r.decode.max_new_tokens == 30 && r.decode.min_new_tokens == 8 &&
                r.decode.length_penalty == 1);
    assert_int_equal(recipe_load("vqa", &r, NULL), 0);
    assert_true(r.decode.n_beams == 5 && r.decode.max_new_tokens == 10 && r.decode.length_penalty == -1 &&
                r.n_prompts == 1 && r.prompts[0].is_question);
    assert_int_equal(recipe_load("nucleus-10", &r, NULL), 0);
    assert_true(r.decode.sample && r.decode.n_return == 10 && r.decode.top_p == 0.9F);
    assert_int_equal(recipe_load("bootstrap", &r, NULL), 0);
    assert_true(r.stages == (RECIPE_CAPTION | RECIPE_SCORE) && r.itc && r.itm && r.n_text_fields == 1);
}

static void test_recipe_unknown_name_is_answered_with_the_names(void **state)
{
    struct recipe r;
    struct err err = {""};

    (void)state;
    assert_int_equal(recipe_load("caption-coca", &r, &err), -ENOENT);
    assert_non_null(strstr(err.text, "did you mean caption-coco?"));
    assert_non_null(strstr(err.text, "nucleus-10"));
    assert_int_equal(recipe_load("/nonexistent/r.conf", &r, &err), -ENOENT);
    assert_int_equal(recipe_load("/tmp", &r, &err), -EISDIR);
}

static void test_recipe_help_and_options_name_every_key(void **state)
{
    char *help = NULL;
    size_t n = 0, n_options = 0;
    FILE *out = open_memstream(&help, &n);
    struct cli_option o;

    (void)state;
    recipe_print_help(out);
    assert_int_equal(fclose(out), 0);
    while (recipe_option(RECIPE_CAPTION | RECIPE_SCORE | RECIPE_EMBED, n_options, 16, &o)) {
        char row[80];

        (void)snprintf(row, sizeof(row), "\n    %s = ", o.name);
        assert_non_null(strstr(help, row));
        assert_int_equal(o.type, CLI_SETTING);
        assert_int_equal(o.offset, 16);
        n_options++;
    }
    assert_int_equal(n_options, 24);
    assert_non_null(strstr(help, "from 1 to 64; default 1"));
    assert_non_null(strstr(help, "default 20"));
    n_options = 0;
    while (recipe_option(RECIPE_EMBED, n_options, 0, &o))
        assert_string_not_equal(n_options++ ? "" : o.name, "prompt");
    assert_int_equal(n_options, 7);
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipe_file_sets_every_key),
        cmocka_unit_test(test_recipe_empty_section_asks_for_its_stage),
        cmocka_unit_test(test_recipe_value_goes_on_in_an_indented_line),
        cmocka_unit_test(test_recipe_mistakes_name_file_and_line),
        cmocka_unit_test(test_recipe_options_win_and_replace_lists),
        cmocka_unit_test(test_recipe_printed_parses_to_the_same),
        cmocka_unit_test(test_recipe_builtins_are_those_of_the_folder),
        cmocka_unit_test(test_recipe_builtins_have_the_published_settings),
        cmocka_unit_test(test_recipe_unknown_name_is_answered_with_the_names),
        cmocka_unit_test(test_recipe_help_and_options_name_every_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
