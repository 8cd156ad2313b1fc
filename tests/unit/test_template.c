#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/template.h"

static struct row_field field(const char *name, const char *value)
{
    return (struct row_field){.name = (const uint8_t *)name,
                              .name_bytes = (uint32_t)strlen(name),
                              .value = (const uint8_t *)value,
                              .value_bytes = (uint32_t)strlen(value)};
}

static struct row_item item_of(const struct row_field *fields, uint32_t n)
{
    return (struct row_item){.key = (const uint8_t *)"a/b.jpg", .key_bytes = 7, .fields = fields, .n_fields = n};
}

/* Prompt i of the item, in static memory. */
static const char *rendered(const char *text, const struct row_item *item, uint32_t i)
{
    static char out[ROW_MAX_CAPTION_BYTES + 1];
    struct template t;
    struct err err = {""};
    struct buf b;

    buf_init(&b, 0);
    if (template_parse(text, &t, &err) < 0 || template_render(&t, item, i, &b, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    assert_true(b.size_bytes <= ROW_MAX_CAPTION_BYTES);
    if (b.size_bytes)
        memcpy(out, b.data, b.size_bytes);
    out[b.size_bytes] = '\0';
    buf_release(&b);
    return out;
}

static void test_template_fills_in_fields_key_and_braces(void **state)
{
    struct row_field fields[] = {field("caption", "a cat"), field("empty", "")};
    struct row_item item = item_of(fields, 2);
    struct row_field own = field("key", "mine");
    struct row_item with_key = item_of(&own, 1);

    (void)state;
    assert_string_equal(rendered("", &item, 0), "");
    assert_string_equal(rendered("a photo of", &item, 0), "a photo of");
    assert_string_equal(rendered("{caption}", &item, 0), "a cat");
    assert_string_equal(rendered("{key}: {caption}{empty}, {caption}!", &item, 0), "a/b.jpg: a cat, a cat!");
    assert_string_equal(rendered("{{caption}} {{{caption}}}", &item, 0), "{caption} {a cat}");
    assert_string_equal(rendered("{key}", &with_key, 0), "mine");
}

static void test_template_with_a_list_becomes_a_prompt_a_value(void **state)
{
    struct row_field fields[] = {field("q", "what?"), field("lang", "en"), field("q", "why?"), field("q", "")};
    struct row_item item = item_of(fields, 4);
    struct template t;
    uint32_t n = 0;

    (void)state;
    assert_int_equal(template_parse("{lang}: {q} ({q})", &t, NULL), 0);
    assert_int_equal(template_count(&t, &item, &n, NULL), 0);
    assert_int_equal(n, 3);
    assert_string_equal(rendered("{lang}: {q} ({q})", &item, 0), "en: what? (what?)");
    assert_string_equal(rendered("{lang}: {q} ({q})", &item, 1), "en: why? (why?)");
    assert_string_equal(rendered("{lang}: {q} ({q})", &item, 2), "en:  ()");
    assert_int_equal(template_parse("{lang}", &t, NULL), 0);
    assert_int_equal(template_count(&t, &item, &n, NULL), 0);
    assert_int_equal(n, 1);
}

static void test_template_two_lists_are_refused(void **state)
{
    struct row_field fields[] = {field("a", "1"), field("a", "2"), field("b", "1"), field("b", "2")};
    struct row_item item = item_of(fields, 4);
    struct template t;
    struct err err = {""};
    uint32_t n = 7;

    (void)state;
    assert_int_equal(template_parse("{a} {b}", &t, &err), 0);
    assert_int_equal(template_count(&t, &item, &n, &err), -EINVAL);
    assert_int_equal(n, 7);
    assert_non_null(strstr(err.text, "\"a\" and \"b\""));
}

static void test_template_missing_field_is_named_and_leaves_the_buf(void **state)
{
    struct row_item item = item_of(NULL, 0);
    struct template t;
    struct err err = {""};
    struct buf b;
    uint32_t n;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(buf_append(&b, "x", 1), 0);
    assert_int_equal(template_parse("say {word}", &t, &err), 0);
    assert_false(template_is_constant(&t));
    assert_int_equal(template_count(&t, &item, &n, &err), -ENOENT);
    assert_non_null(strstr(err.text, "\"word\""));
    assert_int_equal(template_render(&t, &item, 0, &b, &err), -ENOENT);
    assert_int_equal(b.size_bytes, 1);
    buf_release(&b);
}

static void test_template_broken_ones_say_where(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"a {b", "{ without"},  {"a } b", "} without"}, {"{}", "names no field"},
        {"{a{b}", "{ without"}, {"{", "{ without"},     {"}", "} without"},
    };
    char many[4 * TEMPLATE_MAX_PARTS + 8] = "", wide[MSG_NAME_SIZE + 8];
    struct template t = {.n_parts = 99};
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(template_parse(cases[i].text, &t, &err), -EINVAL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: %s", cases[i].text, err.text);
    }
    for (int i = 0; i <= TEMPLATE_MAX_PARTS; i++)
        (void)strcat(many, "{a}");
    assert_int_equal(template_parse(many, &t, &err), -EINVAL);
    many[3 * TEMPLATE_MAX_PARTS] = '\0';
    assert_int_equal(t.n_parts, 99);
    assert_int_equal(template_parse(many, &t, &err), 0);
    assert_int_equal(t.n_parts, TEMPLATE_MAX_PARTS);
    memset(wide, 'w', sizeof(wide));
    wide[0] = '{';
    memcpy(wide + MSG_NAME_SIZE + 1, "}", 2); /* a name of MSG_NAME_SIZE bytes */
    assert_int_equal(template_parse(wide, &t, &err), -EINVAL);
    memcpy(wide + MSG_NAME_SIZE, "}", 2);
    assert_int_equal(template_parse(wide, &t, &err), 0);
}

static void test_template_prompt_stays_within_its_limit(void **state)
{
    char *value = malloc(ROW_MAX_CAPTION_BYTES + 1);
    struct row_field f;
    struct row_item item;
    struct template t;
    struct err err = {""};
    struct buf b;

    (void)state;
    memset(value, 'v', ROW_MAX_CAPTION_BYTES);
    value[ROW_MAX_CAPTION_BYTES] = '\0';
    f = field("v", value);
    item = item_of(&f, 1);
    buf_init(&b, 0);
    assert_int_equal(strlen(rendered("{v}", &item, 0)), ROW_MAX_CAPTION_BYTES);
    assert_int_equal(template_parse("{v}!", &t, &err), 0);
    assert_int_equal(template_render(&t, &item, 0, &b, &err), -EFBIG);
    assert_int_equal(b.size_bytes, 0);
    buf_release(&b);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_fills_in_fields_key_and_braces),
        cmocka_unit_test(test_template_with_a_list_becomes_a_prompt_a_value),
        cmocka_unit_test(test_template_two_lists_are_refused),
        cmocka_unit_test(test_template_missing_field_is_named_and_leaves_the_buf),
        cmocka_unit_test(test_template_broken_ones_say_where),
        cmocka_unit_test(test_template_prompt_stays_within_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
