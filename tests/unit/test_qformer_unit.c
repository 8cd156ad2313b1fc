#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qformer_worker/qformer_unit.h"
#include "tensor/tensor.h"

static struct tokenizer *tokenizer;
static const struct qformer_shape shape = {
    .n_queries = 2, .width = 3, .out_width = 0, .embed_width = 4, .image_width = 5, .max_text = 16, .n_words = 1 << 20};

#define TEXT(s) .text = (const uint8_t *)(s), .text_bytes = sizeof(s) - 1
#define FIELD(n, v)                                                                               \
    {                                                                                             \
        .name = (const uint8_t *)(n), .name_bytes = sizeof(n) - 1, .value = (const uint8_t *)(v), \
        .value_bytes = sizeof(v) - 1                                                              \
    }

static const struct row_caption written[] = {
    {TEXT("a small dog"), .logprob = -1, .score = -1, .tokens = 4},
    {TEXT(""), .logprob = -2, .score = -2, .tokens = 1, .sample = 1},
};
static const struct row_field fields[] = {FIELD("caption", "two cats"), FIELD("other", "x"), FIELD("caption", "a cat"),
                                          FIELD("alt", "three keys")};
static const struct row_field empty_field[] = {FIELD("caption", " \t ")};
static const struct row_field long_field[] = {
    FIELD("caption", "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a")};
static const struct row_field bad_field[] = {FIELD("caption", "caf\xe9")};

static const struct row_item items[] = {
    {.item = 70,
     .key = (const uint8_t *)"k",
     .key_bytes = 1,
     .n_fields = 4,
     .fields = fields,
     .n_captions = 2,
     .captions = written},
    {.item = 71, .key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = 1, .fields = empty_field},
    {.item = 72, .key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = 1, .fields = long_field},
    {.item = 73, .key = (const uint8_t *)"k", .key_bytes = 1, .n_fields = 1, .fields = bad_field},
    {.item = 74, .key = (const uint8_t *)"k", .key_bytes = 1},
    {.item = 75, .key = (const uint8_t *)"k", .key_bytes = 1, .n_captions = 1, .captions = written},
};
enum { N = sizeof(items) / sizeof(items[0]) };

static struct worker_work *work_of(uint32_t tasks)
{
    struct worker_work *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    msg_recipe_init(&w->recipe);
    w->recipe.n_text_fields = 2;
    strcpy(w->recipe.text_fields[0], "caption");
    strcpy(w->recipe.text_fields[1], "alt");
    w->recipe.itc = w->recipe.itm = true;
    w->tasks = tasks;
    w->n_items = N;
    w->items = items;
    return w;
}

static struct qformer_unit *unit_of(struct worker_work *w)
{
    struct qformer_unit *u = NULL;
    const char *code;
    struct err err = {""};

    if (qformer_unit_new(&w, &shape, tokenizer, &u, &code, &err) != 0)
        fail_msg("%s: %s", code, err.text);
    assert_null(w);
    return u;
}

static void test_qformer_unit_texts_are_captions_then_fields_in_the_recipes_order(void **state)
{
    static const char *const want[] = {"a small dog", "", "two cats", "a cat", "three keys"};
    struct worker_work *w = work_of(MSG_TASK_SCORE);
    struct qformer_unit *u = unit_of(w);

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        const struct unit_text *t = &u->texts.texts[i];

        assert_int_equal(t->row, 0);
        assert_int_equal(t->caption.text_bytes, strlen(want[i]));
        assert_memory_equal(t->caption.text, want[i], strlen(want[i]));
        assert_int_equal(t->caption.given, i >= 2);
        assert_int_equal(t->has_ids, i != 1); /* an empty caption has no score, and is no error */
    }
    assert_int_equal(u->texts.texts[4].caption.prompt, 1);
    assert_int_equal(u->texts.texts[5].row, 1);
    free(w);
    qformer_unit_free(u);
}

static void test_qformer_unit_bad_texts_are_problems_of_their_item(void **state)
{
    static const char *const codes[N] = {NULL, "empty_text", "long_text", "bad_text", "no_text", NULL};
    struct worker_work *w = work_of(MSG_TASK_SCORE);
    struct qformer_unit *u = unit_of(w);
    struct row_frame frame;
    struct row_cursor cursor;
    struct row_record back;
    uint32_t n_failed;
    struct buf rows;

    (void)state;
    buf_init(&rows, 0);
    assert_int_equal(qformer_unit_rows(u, &shape, &(struct qformer_results){0}, &rows, &n_failed), 0);
    assert_int_equal(n_failed, 4);
    frame = (struct row_frame){rows.data, rows.size_bytes};
    row_cursor_init(&cursor, &frame, 1, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(row_cursor_next_record(&cursor, &back, NULL), 1);
        assert_int_equal(back.item, 70 + i);
        assert_int_equal(back.failed, codes[i] != NULL);
        if (codes[i])
            assert_string_equal(back.error_code, codes[i]);
        else
            assert_int_equal(back.n_captions, i ? 1 : 5);
    }
    row_cursor_release(&cursor);
    buf_release(&rows);
    free(w);
    qformer_unit_free(u);
}

/* A tokenizer that has more words than the checkpoint: what they are in is the item's problem, not the worker's end. */
static void test_qformer_unit_a_word_the_model_lacks_is_the_items_problem(void **state)
{
    struct qformer_shape small = shape;
    struct worker_work *w = work_of(MSG_TASK_SCORE);
    struct qformer_unit *u = NULL;
    const char *code = "";
    int32_t largest = 0;

    (void)state;
    assert_int_equal(qformer_unit_new(&w, &shape, tokenizer, &u, &code, NULL), 0);
    for (size_t i = 0; i < u->texts.texts[3].n_ids; i++) {
        const int32_t id = u->texts.ids.ids[u->texts.texts[3].first_id + i];

        largest = id > largest ? id : largest;
    }
    w = u->work;
    qformer_unit_free(u);
    small.n_words = largest;
    assert_int_equal(qformer_unit_new(&w, &small, tokenizer, &u, &code, NULL), 0);
    assert_false(u->texts.texts[3].has_ids);
    assert_null(u->texts.errors[0].code); /* others of the item are scored */
    w = u->work;
    qformer_unit_free(u);
    small.n_words = 1;
    assert_int_equal(qformer_unit_new(&w, &small, tokenizer, &u, &code, NULL), 0);
    assert_string_equal(u->texts.errors[0].code, "unknown_token");
    assert_null(u->texts.errors[N - 1].code); /* a generated one stays unscored */
    free(u->work);
    qformer_unit_free(u);
}

static void test_qformer_unit_embeddings_are_those_of_the_item(void **state)
{
    const uint32_t all = MSG_TASK_SCORE | MSG_TASK_QUERY | MSG_TASK_ITC | MSG_TASK_ITC_TEXT | MSG_TASK_CLS;
    struct worker_work *w = work_of(all);
    float queries[(N + 1) * 6], itc[(N + 1) * 8], cls[(N + 1) * 5], got[8];
    struct qformer_results results = {.queries = queries, .itc = itc, .cls = cls};
    struct qformer_unit *u;
    struct row_frame frame;
    struct row_cursor cursor;
    struct row_record back;
    uint32_t n_failed;
    struct buf rows;

    (void)state;
    w->recipe.n_embeddings = 4;
    w->recipe.embeddings[0] = (struct msg_embedding_spec){MSG_EMBEDDING_QUERY, DTYPE_F16, false};
    w->recipe.embeddings[1] = (struct msg_embedding_spec){MSG_EMBEDDING_ITC, DTYPE_F32, true};
    w->recipe.embeddings[2] = (struct msg_embedding_spec){MSG_EMBEDDING_ITC_TEXT, DTYPE_F32, false};
    w->recipe.embeddings[3] = (struct msg_embedding_spec){MSG_EMBEDDING_CLS, DTYPE_F32, false};
    u = unit_of(w);
    u->first_image = 1; /* another unit's image stands before ours */
    for (int i = 0; i < (N + 1) * 8; i++) {
        itc[i] = (float)i;
        if (i < (N + 1) * 6)
            queries[i] = (float)(100 + i);
        if (i < (N + 1) * 5)
            cls[i] = (float)(1000 + i);
    }
    for (size_t i = 0; i < u->texts.n * 4; i++)
        u->text_embeds[i] = (float)i;
    buf_init(&rows, 0);
    assert_int_equal(qformer_unit_rows(u, &shape, &results, &rows, &n_failed), 0);
    frame = (struct row_frame){rows.data, rows.size_bytes};
    row_cursor_init(&cursor, &frame, 1, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(row_cursor_next_record(&cursor, &back, NULL), 1);
    assert_int_equal(back.n_embeddings, 4); /* of the last item, image 6 of the group */
    assert_int_equal(back.embeddings[0].rows * back.embeddings[0].cols, 6);
    tensor_to_f32(got, DTYPE_F16, back.embeddings[0].data, 6);
    for (int i = 0; i < 6; i++)
        assert_true(got[i] == (float)(100 + 36 + i));
    assert_int_equal(back.embeddings[1].rows, 1);
    memcpy(got, back.embeddings[1].data, 16);
    assert_true(got[0] == 48 && got[3] == 51);
    assert_int_equal(back.embeddings[2].rows, 1); /* one text */
    memcpy(got, back.embeddings[2].data, 16);
    assert_true(got[0] == (float)((u->texts.n - 1) * 4));
    memcpy(got, back.embeddings[3].data, 20);
    assert_true(got[0] == 1030);
    row_cursor_release(&cursor);
    buf_release(&rows);
    free(w);
    qformer_unit_free(u);
}

/* What no row can hold fails its item, not the unit. */
static void test_qformer_unit_a_record_that_is_none_is_the_items_problem(void **state)
{
    static const char *const codes[] = {"not_finite", "large_record", NULL};
    static uint8_t long_text[ROW_MAX_CAPTION_BYTES + 1];
    struct row_record back, record = {.item = 7, .n_captions = 1};
    struct row_frame frame;
    struct row_cursor cursor;
    uint32_t n_failed = 0;
    struct buf rows;

    (void)state;
    buf_init(&rows, 0);
    for (int i = 0; i < 3; i++) {
        record.captions[0] = (struct row_caption){
            .itc = i == 0 ? -HUGE_VALF : 0, .text = long_text, .text_bytes = (uint32_t)sizeof(long_text) - (i != 1)};
        assert_int_equal(item_record_append(&rows, &record, &n_failed), 0);
    }
    assert_int_equal(n_failed, 2);
    frame = (struct row_frame){rows.data, rows.size_bytes};
    row_cursor_init(&cursor, &frame, 1, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(row_cursor_next_record(&cursor, &back, NULL), 1);
        assert_int_equal(back.item, 7);
        assert_int_equal(back.failed, codes[i] != NULL);
        if (codes[i])
            assert_string_equal(back.error_code, codes[i]);
    }
    row_cursor_release(&cursor);
    buf_release(&rows);
}

/* An embedding of any type: no NaN goes into the store, nor what is too large for fp16. */
static void test_qformer_unit_an_embedding_that_is_not_finite_is_the_items_problem(void **state)
{
    static const float numbers[][3] = {{1, -2, 65504}, {1, NAN, 3}, {1, 2, -HUGE_VALF}, {1, 70000, 3}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16};

    (void)state;
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < 4; i++) {
            const bool is_fine = i == 0 || (i == 3 && dtypes[type] == DTYPE_F32);
            unsigned char data[1 + sizeof(numbers[i])]; /* not aligned */
            struct row_record back, record = {.item = 7, .n_embeddings = 1};
            struct row_cursor cursor;
            uint32_t n_failed = 0;
            struct buf rows;

            buf_init(&rows, 0);
            tensor_from_f32(data + 1, dtypes[type], numbers[i], 3);
            record.embeddings[0] = (struct row_embedding){.kind = MSG_EMBEDDING_ITC,
                                                          .dtype = dtypes[type],
                                                          .rows = 1,
                                                          .cols = 3,
                                                          .data = data + 1,
                                                          .data_bytes = 3 * (uint32_t)dtype_size_bytes(dtypes[type])};
            assert_int_equal(item_record_append(&rows, &record, &n_failed), 0);
            assert_int_equal(n_failed, !is_fine);
            row_cursor_init(&cursor, &(struct row_frame){rows.data, rows.size_bytes}, 1, 1);
            assert_int_equal(row_cursor_next_record(&cursor, &back, NULL), 1);
            assert_int_equal(back.n_embeddings, is_fine);
            if (!is_fine)
                assert_string_equal(back.error_code, "not_finite");
            row_cursor_release(&cursor);
            buf_release(&rows);
        }
}

static void test_qformer_unit_refuses_what_the_checkpoint_cannot_do(void **state)
{
    struct qformer_shape captioner = shape;
    struct worker_work *w = work_of(MSG_TASK_SCORE);
    struct qformer_unit *u = NULL;
    const char *code = "";
    struct err err = {""};

    (void)state;
    captioner.embed_width = 0;
    captioner.out_width = 8;
    assert_int_equal(qformer_unit_new(&w, &captioner, NULL, &u, &code, &err), -EINVAL);
    assert_string_equal(code, "model");
    assert_non_null(strstr(err.text, "retrieval checkpoint"));
    w->tasks = MSG_TASK_PROJECT;
    assert_int_equal(qformer_unit_new(&w, &shape, tokenizer, &u, &code, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no language model"));
    w->tasks = 0;
    assert_int_equal(qformer_unit_new(&w, &shape, tokenizer, &u, &code, &err), -EINVAL);
    assert_non_null(w);
    free(w);
}

static int load(void **state)
{
    (void)state;
    return tokenizer_load("models/blip2-itm-demo/tokenizer.json", &tokenizer, NULL);
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
        cmocka_unit_test(test_qformer_unit_texts_are_captions_then_fields_in_the_recipes_order),
        cmocka_unit_test(test_qformer_unit_bad_texts_are_problems_of_their_item),
        cmocka_unit_test(test_qformer_unit_a_word_the_model_lacks_is_the_items_problem),
        cmocka_unit_test(test_qformer_unit_embeddings_are_those_of_the_item),
        cmocka_unit_test(test_qformer_unit_a_record_that_is_none_is_the_items_problem),
        cmocka_unit_test(test_qformer_unit_an_embedding_that_is_not_finite_is_the_items_problem),
        cmocka_unit_test(test_qformer_unit_refuses_what_the_checkpoint_cannot_do),
    };

    return cmocka_run_group_tests_name("qformer_unit", tests, load, unload);
}
