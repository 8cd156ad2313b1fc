#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/prompts.h"
#include "llm_worker/llm_unit.h"

static struct tokenizer *tokenizer;
static struct config config;

#define FIELD(n, v)                                                                               \
    {                                                                                             \
        .name = (const uint8_t *)(n), .name_bytes = sizeof(n) - 1, .value = (const uint8_t *)(v), \
        .value_bytes = sizeof(v) - 1                                                              \
    }
#define KEY .key = (const uint8_t *)"a/b.jpg", .key_bytes = 7

static const struct row_field two[] = {FIELD("question", "what is this?"), FIELD("question", "how many?")};
static const struct row_field bad[] = {FIELD("question", "\xff")};
static const struct row_item items[] = {
    {.item = 5, KEY, .n_fields = 2, .fields = two},
    {.item = 6, KEY},
    {.item = 7, KEY, .n_fields = 1, .fields = bad},
};
enum { N = 3 };

static struct worker_work *work_of(const char *prompt, const char *second)
{
    struct worker_work *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    msg_recipe_init(&w->recipe);
    w->items = items;
    w->n_items = N;
    for (const char *text = prompt; text; text = text == prompt ? second : NULL)
        strcpy(w->recipe.prompts[w->recipe.n_prompts++], text);
    return w;
}

static void check_ids(const struct unit_prompts *u, size_t i, const char *text)
{
    struct token_ids want = {0};

    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), true, &want, NULL), 0);
    assert_int_equal(u->prompts[i].n_ids, want.n);
    assert_memory_equal(u->ids.ids + u->prompts[i].first_id, want.ids, want.n * sizeof(int32_t));
    token_ids_release(&want);
}

static void test_prompts_without_any_begin_with_bos(void **state)
{
    struct worker_work *w = work_of(NULL, NULL);
    struct unit_prompts u;

    (void)state;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, NULL), 0);
    assert_int_equal(u.n, N);
    assert_int_equal(u.prompts[2].row, 2);
    assert_int_equal(u.prompts[2].n_ids, 1);
    assert_int_equal(u.ids.ids[u.prompts[2].first_id], config.bos);
    unit_prompts_release(&u);
    free(w);
}

static void test_prompts_are_rendered_an_item_and_encoded_as_written(void **state)
{
    struct worker_work *w = work_of("a photo of", "Question: {question} Answer:");
    struct unit_prompts u;

    (void)state;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, NULL), 0);
    assert_int_equal(u.n, 5); /* three, two, and one an item */
    check_ids(&u, 0, "a photo of");
    assert_int_equal(u.prompts[0].n_bytes, 0); /* the recipe says it for all */
    check_ids(&u, 1, "Question: what is this? Answer:");
    check_ids(&u, 2, "Question: how many? Answer:");
    assert_memory_equal(u.texts.data + u.prompts[2].first_byte, "Question: how many? Answer:", u.prompts[2].n_bytes);
    assert_int_equal(u.prompts[2].prompt, 1);
    assert_int_equal(u.prompts[2].number, 2);
    assert_int_equal(u.prompts[3].row, 1);
    assert_null(u.errors[0].code);
    assert_string_equal(u.errors[1].code, "missing_field");
    assert_non_null(strstr(u.errors[1].text, "question"));
    assert_string_equal(u.errors[2].code, "bad_prompt");
    unit_prompts_release(&u);
    free(w);
}

static void test_prompts_more_than_a_record_holds_are_the_items_problem(void **state)
{
    struct worker_work *w = work_of("a", "b");
    struct unit_prompts u;

    (void)state;
    w->recipe.decode.sample = true;
    w->recipe.decode.n_return = 17;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, NULL), 0);
    assert_string_equal(u.errors[0].code, "many_captions");
    unit_prompts_release(&u);
    free(w);
}

/* None of them is left out in silence. */
static void test_prompts_of_a_long_list_are_the_items_problem(void **state)
{
    struct worker_work *w = work_of("a", "{question}");
    struct row_field fields[ROW_MAX_CAPTIONS];
    struct row_item item = {.item = 5, KEY, .n_fields = ROW_MAX_CAPTIONS, .fields = fields};
    struct unit_prompts u;

    (void)state;
    for (int i = 0; i < ROW_MAX_CAPTIONS; i++)
        fields[i] = two[0];
    w->items = &item;
    w->n_items = 1;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, NULL), 0);
    assert_non_null(u.errors[0].code);
    assert_string_equal(u.errors[0].code, "many_captions");
    assert_non_null(strstr(u.errors[0].text, "33 prompts"));
    assert_int_equal(u.n, 0);
    unit_prompts_release(&u);
    item.n_fields--;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, NULL), 0);
    assert_null(u.errors[0].code);
    assert_int_equal(u.n, ROW_MAX_CAPTIONS);
    unit_prompts_release(&u);
    free(w);
}

/* A unit of 4096 items with several prompts each has more than 65536. */
static void test_prompts_of_a_large_unit_have_tags_of_their_own(void **state)
{
    const struct unit u = {.serial = 3}, next = {.serial = 4};

    (void)state;
    for (uint32_t i = 65535; i <= 131072; i += 65537) {
        assert_int_equal(llm_unit_serial(llm_unit_tag(&u, i)), 3);
        assert_int_equal(llm_unit_prompt(llm_unit_tag(&u, i)), i);
    }
    assert_true(llm_unit_tag(&u, 65536) != llm_unit_tag(&next, 0));
}

static void test_prompts_a_broken_template_fails_the_unit(void **state)
{
    struct worker_work *w = work_of("a {photo of", NULL);
    struct unit_prompts u;
    struct err err = {""};

    (void)state;
    assert_int_equal(unit_prompts_collect(&u, w, tokenizer, &config, &err), -EINVAL);
    assert_non_null(strstr(err.text, "{"));
    free(w);
}

/* The key of sampling tells items, prompts, seeds and recipes apart, and nothing else. */
static void test_prompts_sampling_keys_depend_on_what_is_asked_alone(void **state)
{
    uint64_t keys[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct worker_work *w = work_of("a photo of", "{key}");
        struct generate_request r;
        struct unit *u = NULL;

        strcpy(w->recipe.model, i == 1 ? "here" : "there"); /* a name changes nothing */
        w->recipe.decode.seed = i == 2;
        w->recipe.decode.top_k = i == 3 ? 5 : 0;
        w->items = items + (i == 4);
        w->n_items = 1;
        assert_int_equal(llm_unit_new(&w, (uint64_t)i + 1, tokenizer, &config, &u, NULL), 0);
        r = llm_unit_request(u, 0, &config, 1, 1);
        keys[i] = r.key;
        assert_int_equal(llm_unit_serial(r.tag), i + 1);
        assert_int_equal(llm_unit_prompt(r.tag), 0);
        assert_true(llm_unit_request(u, 1, &config, 1, 1).key != r.key);
        free(u->work);
        llm_unit_free(u);
    }
    assert_true(keys[0] == keys[1]);
    for (int i = 2; i < 5; i++)
        assert_true(keys[i] != keys[0]);
}

static int load(void **state)
{
    (void)state;
    return config_load("models/blip2-opt-demo", &config, NULL) < 0 ||
           tokenizer_load("models/blip2-opt-demo/tokenizer.json", &tokenizer, NULL) < 0;
}

static int unload(void **state)
{
    (void)state;
    tokenizer_free(tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_without_any_begin_with_bos),
        cmocka_unit_test(test_prompts_are_rendered_an_item_and_encoded_as_written),
        cmocka_unit_test(test_prompts_more_than_a_record_holds_are_the_items_problem),
        cmocka_unit_test(test_prompts_of_a_long_list_are_the_items_problem),
        cmocka_unit_test(test_prompts_of_a_large_unit_have_tags_of_their_own),
        cmocka_unit_test(test_prompts_a_broken_template_fails_the_unit),
        cmocka_unit_test(test_prompts_sampling_keys_depend_on_what_is_asked_alone),
    };

    return cmocka_run_group_tests_name("prompts", tests, load, unload);
}
