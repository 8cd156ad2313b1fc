#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/export/export_row.h"
#include "console/printable.h"

static struct row_record caption(uint64_t item, const char *text, float logprob)
{
    return (struct row_record){.item = item,
                               .n_captions = 1,
                               .captions = {{.text = (const uint8_t *)text,
                                             .text_bytes = (uint32_t)strlen(text),
                                             .logprob = logprob,
                                             .score = logprob,
                                             .tokens = 9}}};
}

static struct row_record failure(uint64_t item, const char *code, const char *message)
{
    struct row_record r = {.item = item, .failed = true};

    (void)msg_text_set(r.error_code, sizeof(r.error_code), code);
    r.error_message = (const uint8_t *)message;
    r.error_message_bytes = (uint32_t)strlen(message);
    return r;
}

static char *line(enum export_format format, const char *key, size_t key_bytes, const struct row_record *r)
{
    struct export_row row = {.key = (const uint8_t *)key, .key_bytes = key_bytes, .record = r};
    struct buf out;
    char *text;

    buf_init(&out, 0);
    assert_int_equal(export_row(format, &row, &out), 0);
    text = strndup((const char *)out.data, out.size_bytes);
    buf_release(&out);
    return text;
}

static void check(enum export_format format, const char *key, size_t key_bytes, const struct row_record *r,
                  const char *want)
{
    char *text = line(format, key, key_bytes, r);

    assert_string_equal(text, want);
    free(text);
}

static void test_export_row_jsonl_has_the_documented_keys_in_order(void **state)
{
    struct row_record r = caption(7, "a \"dog\"\non a mat", -1.25F);
    struct row_record e = failure(8, "truncated", "the picture ends early");

    (void)state;
    check(EXPORT_JSONL, "a/b.jpg", 7, &r,
          "{\"item\": 7, \"key\": \"a/b.jpg\", \"caption\": \"a \\\"dog\\\"\\non a mat\", \"logprob\": -1.25, "
          "\"tokens\": 9}\n");
    check(EXPORT_JSONL, "c.jpg", 5, &e,
          "{\"item\": 8, \"key\": \"c.jpg\", \"error\": {\"code\": \"truncated\", \"message\": \"the picture ends "
          "early\"}}\n");
}

static void test_export_row_a_key_that_is_not_utf8_comes_back_from_base64(void **state)
{
    struct row_record r = caption(0, "x", -1);
    char *text = line(EXPORT_JSONL, "b\xff\xfe.jpg", 7, &r);
    json_t *row = json_loads(text, 0, NULL);

    (void)state;
    assert_non_null(row);
    assert_string_equal(json_string_value(json_object_get(row, "key")), "b\xef\xbf\xbd\xef\xbf\xbd.jpg");
    assert_string_equal(json_string_value(json_object_get(row, "key_base64")), "Yv/+LmpwZw==");
    json_decref(row);
    free(text);
}

static void test_export_row_a_caption_that_is_not_utf8_is_repaired(void **state)
{
    struct row_record r = caption(0, "caf\xe9", -1);

    (void)state;
    check(EXPORT_JSONL, "k", 1, &r,
          "{\"item\": 0, \"key\": \"k\", \"caption\": \"caf\xef\xbf\xbd\", \"logprob\": -1.0, \"tokens\": 9}\n");
}

static void test_export_row_logprob_gives_its_float_back(void **state)
{
    static const float values[] = {-0.1F, -3.14159274F, -1e-7F, -FLT_MIN, -FLT_MAX, -123456.789F, 0.0F, -16777217.0F};
    uint32_t seed = 12345;

    (void)state;
    for (int i = 0; i < 2000; i++) {
        uint32_t bits = (seed = seed * 1664525u + 1013904223u);
        struct row_record r;
        float v, back;
        char *text;
        json_t *row;

        memcpy(&v, &bits, sizeof(v));
        if (i < (int)(sizeof(values) / sizeof(values[0])))
            v = values[i];
        if (!(v >= -FLT_MAX && v <= FLT_MAX))
            continue;
        r = caption(1, "x", v);
        text = line(EXPORT_JSONL, "k", 1, &r);
        row = json_loads(text, 0, NULL);
        assert_non_null(row);
        back = (float)json_real_value(json_object_get(row, "logprob"));
        if (memcmp(&back, &v, sizeof(v)) != 0 && v != 0)
            fail_msg("seed 12345, row %d: %.9g came back as %.9g from %s", i, (double)v, (double)back, text);
        json_decref(row);
        free(text);
    }
}

static void test_export_row_csv_quotes_as_rfc_4180(void **state)
{
    struct row_record r = caption(7, "a \"dog\", asleep", -1.5F);
    struct row_record e = failure(8, "corrupt", "bad, bad\nbytes");
    struct row_record plain = caption(9, "a dog", -2);
    struct buf head;

    (void)state;
    buf_init(&head, 0);
    assert_int_equal(export_head(EXPORT_CSV, NULL, &head), 0);
    assert_memory_equal(
        head.data, "item,key,key_base64,caption,logprob,tokens,error_code,error_message,score,prompt,given,itc,itm\r\n",
        head.size_bytes);
    buf_release(&head);
    check(EXPORT_CSV, "a,b.jpg", 7, &r, "7,\"a,b.jpg\",,\"a \"\"dog\"\", asleep\",-1.5,9,,,-1.5,,0,,\r\n");
    check(EXPORT_CSV, "c.jpg", 5, &e, "8,c.jpg,,,,,corrupt,\"bad, bad\nbytes\",,,,,\r\n");
    check(EXPORT_CSV, "d.jpg", 5, &plain, "9,d.jpg,,a dog,-2,9,,,-2,,0,,\r\n");
    check(EXPORT_CSV, "d\xff", 2, &plain, "9,d\xef\xbf\xbd,ZP8=,a dog,-2,9,,,-2,,0,,\r\n");
}

/* Two answers of two prompts and a text that came with the picture, with scores. */
static struct row_record several(void)
{
    struct row_record r = caption(3, "a dog", -1.5F), second = caption(3, "red", -0.5F),
                      given = caption(3, "DSC, 1", 0);

    r.n_captions = 3;
    r.captions[1] = second.captions[0];
    r.captions[1].prompt = 1;
    r.captions[1].score = -0.25F;
    r.captions[2] = given.captions[0];
    r.captions[2].given = true;
    for (int i = 0; i < 3; i++) {
        r.captions[i].has_itc = r.captions[i].has_itm = true;
        r.captions[i].itc = 0.25F;
        r.captions[i].itm = 0.5F;
    }
    return r;
}

static void test_export_row_several_captions_are_listed_with_prompts_and_scores(void **state)
{
    static const uint32_t picked[] = {1, 2};
    struct row_record r = several();
    struct msg_recipe recipe;
    struct export_row row = {
        .key = (const uint8_t *)"k", .key_bytes = 1, .record = &r, .recipe = &recipe, .picked = picked, .n_picked = 2};
    struct buf out;

    (void)state;
    msg_recipe_init(&recipe);
    recipe.n_prompts = 2;
    strcpy(recipe.prompts[0], "a photo of");
    strcpy(recipe.prompts[1], "the colour is");
    buf_init(&out, 0);
    assert_int_equal(export_row(EXPORT_JSONL, &row, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((char *)out.data,
                        "{\"item\": 3, \"key\": \"k\", \"caption\": \"red\", \"logprob\": -0.5, \"tokens\": 9, "
                        "\"score\": -0.25, \"prompt\": \"the colour is\", \"itc\": 0.25, \"itm\": 0.5, \"captions\": ["
                        "{\"caption\": \"red\", \"logprob\": -0.5, \"tokens\": 9, \"score\": -0.25, \"prompt\": "
                        "\"the colour is\", \"itc\": 0.25, \"itm\": 0.5}, "
                        "{\"caption\": \"DSC, 1\", \"given\": true, \"itc\": 0.25, \"itm\": 0.5}]}\n");
    buf_clear(&out);
    assert_int_equal(export_row(EXPORT_CSV, &row, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((char *)out.data, "3,k,,red,-0.5,9,,,-0.25,the colour is,0,0.25,0.5\r\n"
                                          "3,k,,\"DSC, 1\",,,,,,,1,0.25,0.5\r\n");
    buf_clear(&out);
    assert_int_equal(export_row(EXPORT_TXT, &row, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((char *)out.data, "k\tred\nk\tDSC, 1\n");
    buf_release(&out);
}

static void test_export_row_an_item_without_captions_is_still_a_row(void **state)
{
    struct row_record r = {.item = 4};

    (void)state;
    check(EXPORT_JSONL, "k", 1, &r, "{\"item\": 4, \"key\": \"k\"}\n");
    check(EXPORT_CSV, "k", 1, &r, "4,k,,,,,,,,,,,\r\n");
    check(EXPORT_TXT, "k", 1, &r, "k\t\n");
}

static void test_export_row_txt_is_one_line_an_item_whatever_the_names(void **state)
{
    struct row_record r = caption(7, "a dog\non\ta \\ mat", -1);
    struct row_record e = failure(8, "corrupt", "x");

    (void)state;
    check(EXPORT_TXT, "a\tb\n\r\\c.jpg", 11, &r, "a\\tb\\n\\r\\\\c.jpg\ta dog\\non\\ta \\\\ mat\n");
    check(EXPORT_TXT, "\xff.jpg", 5, &e, "\xff.jpg\t\n");
}

static void test_export_row_formats_are_known_by_their_words(void **state)
{
    enum export_format f = EXPORT_JSONL;

    (void)state;
    assert_int_equal(export_format_parse("csv", &f), 0);
    assert_int_equal(f, EXPORT_CSV);
    assert_true(export_format_parse("json", &f) < 0);
    assert_int_equal(f, EXPORT_CSV);
}

static void test_printable_shows_no_control_character_and_keeps_text(void **state)
{
    char text[64];

    (void)state;
    assert_string_equal(printable_text("a\nb\x1b[31m\x7f", 9, text, sizeof(text)), "a\\nb\\x1b[31m\\x7f");
    assert_string_equal(printable_text("\xc3\xbcn\xff\xc3", 5, text, sizeof(text)), "\xc3\xbcn\\xff\\xc3");
    assert_string_equal(printable_text("\xc2\x9b", 2, text, sizeof(text)), "\\x9b"); /* a C1 control: CSI */
    assert_string_equal(printable_text("abcdef", 6, text, 4), "abc");
    assert_string_equal(printable_text("ab\n", 3, text, 4), "ab"); /* no half escape */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_row_jsonl_has_the_documented_keys_in_order),
        cmocka_unit_test(test_export_row_a_key_that_is_not_utf8_comes_back_from_base64),
        cmocka_unit_test(test_export_row_a_caption_that_is_not_utf8_is_repaired),
        cmocka_unit_test(test_export_row_logprob_gives_its_float_back),
        cmocka_unit_test(test_export_row_csv_quotes_as_rfc_4180),
        cmocka_unit_test(test_export_row_several_captions_are_listed_with_prompts_and_scores),
        cmocka_unit_test(test_export_row_an_item_without_captions_is_still_a_row),
        cmocka_unit_test(test_export_row_txt_is_one_line_an_item_whatever_the_names),
        cmocka_unit_test(test_export_row_formats_are_known_by_their_words),
        cmocka_unit_test(test_printable_shows_no_control_character_and_keeps_text),
    };

    return cmocka_run_group_tests_name("export_row", tests, NULL, NULL);
}
