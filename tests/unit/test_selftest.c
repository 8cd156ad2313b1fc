/* Golden data and reports as the self-tests use them, the workers' own tests, and the table that people read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/selftest/selftest_demo.h"
#include "client/selftest/selftest_table.h"
#include "encoder_worker/encoder_selftest.h"
#include "llm_worker/llm_selftest.h"
#include "qformer_worker/qformer_selftest.h"
#include "worker/selftest.h"

#define OPT_A "tests/golden/opt_a"

static struct golden *open_golden(void)
{
    struct golden *g = NULL;
    struct err err = {""};

    if (golden_open(OPT_A, &g, &err) < 0)
        fail_msg("%s", err.text);
    return g;
}

/* -- golden -- */

static void test_selftest_tensors_may_be_longer_than_asked_never_shorter(void **state)
{
    struct golden *g = open_golden();
    float *all = NULL, *first = NULL, *none = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(golden_n_pictures(g, "language_projection", &err), 4);
    assert_int_equal(golden_n_pictures(g, "nonsense", &err), -ENOENT);
    assert_int_equal(golden_floats(g, "language_projection", 3, (int64_t[]){4, 32, 160}, &all, &err), 0);
    assert_int_equal(golden_first_floats(g, "language_projection", 3, (int64_t[]){2, 32, 160}, &first, &err), 0);
    assert_memory_equal(all, first, 2 * 32 * 160 * sizeof(float));
    assert_int_equal(golden_first_floats(g, "language_projection", 3, (int64_t[]){5, 32, 160}, &none, &err), -EINVAL);
    assert_int_equal(golden_first_floats(g, "language_projection", 3, (int64_t[]){2, 31, 160}, &none, &err), -EINVAL);
    assert_int_equal(golden_first_floats(g, "language_projection", 2, (int64_t[]){2, 32}, &none, &err), -EINVAL);
    assert_int_equal(golden_floats(g, "language_projection", 3, (int64_t[]){2, 32, 160}, &none, &err), -EINVAL);
    assert_null(none);
    free(all);
    free(first);
    golden_free(g);
}

static bool passes(enum golden_grain grain, struct golden_sequences s)
{
    struct golden *g = open_golden();
    struct err err = {""};
    bool pass;

    g->grain = grain;
    assert_int_equal(golden_report_sequences(g, "ids", &s, &err), 0);
    pass = json_is_true(json_object_get(json_array_get(g->rows, 0), "pass"));
    assert_int_equal(g->n_failed, !pass);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(g->rows, 0), "equal")), s.n_equal);
    golden_free(g);
    return pass;
}

static void test_selftest_sequences_must_all_be_equal_with_their_scores(void **state)
{
    (void)state;
    assert_true(
        passes(GOLDEN_EXACT, (struct golden_sequences){.n = 4, .n_equal = 4, .score_error = 1e-6, .limit = 1e-5}));
    assert_true(
        passes(GOLDEN_EXACT, (struct golden_sequences){.n = 4, .n_equal = 4, .score_error = NAN, .limit = 1e-5}));
    assert_false(
        passes(GOLDEN_EXACT, (struct golden_sequences){.n = 4, .n_equal = 3, .score_error = 1e-6, .limit = 1e-5}));
    assert_false(
        passes(GOLDEN_EXACT, (struct golden_sequences){.n = 4, .n_equal = 4, .score_error = 2e-5, .limit = 1e-5}));
    assert_false(
        passes(GOLDEN_EXACT, (struct golden_sequences){.n = 4, .n_equal = 4, .score_error = INFINITY, .limit = 1e-5}));
    assert_true(
        passes(GOLDEN_BF16, (struct golden_sequences){.n = 4, .n_equal = 1, .score_error = 0.3, .limit = 1e-5}));
}

static bool tensor_passes(enum golden_grain grain, double limit, float got)
{
    struct golden *g = open_golden();
    const float want = 1;
    struct err err = {""};
    int n_failed;

    g->grain = grain;
    assert_int_equal(golden_report_within(g, "x", 1, (int64_t[]){1}, limit, &got, &want, &err), 0);
    n_failed = g->n_failed;
    golden_free(g);
    return n_failed == 0;
}

static void test_selftest_limits_depend_on_the_type(void **state)
{
    (void)state;
    assert_true(tensor_passes(GOLDEN_EXACT, GOLDEN_LIMIT, 1.000005F));
    assert_false(tensor_passes(GOLDEN_EXACT, GOLDEN_LIMIT, 1.001F));
    assert_true(tensor_passes(GOLDEN_BF16, GOLDEN_LIMIT, 1.01F));
    assert_false(tensor_passes(GOLDEN_BF16, GOLDEN_LIMIT, 1.1F));
    assert_true(tensor_passes(GOLDEN_BF16, GOLDEN_LIMIT_T5_LOGITS, 1.3F));
    assert_false(tensor_passes(GOLDEN_BF16, GOLDEN_LIMIT, NAN));
    assert_true(tensor_passes(GOLDEN_FP16, GOLDEN_LIMIT, 1.005F));
    assert_false(tensor_passes(GOLDEN_FP16, GOLDEN_LIMIT, 1.02F));
    assert_true(tensor_passes(GOLDEN_FP8, GOLDEN_LIMIT, 1.3F));
    assert_false(tensor_passes(GOLDEN_FP8, GOLDEN_LIMIT, 1.6F)); /* nonsense */
    assert_false(tensor_passes(GOLDEN_FP8, GOLDEN_LIMIT, NAN));
}

/* -- the workers -- */

static json_t *report_of(int (*selftest)(const char *, const struct selftest_conf *, FILE *, struct err *),
                         const char *dir, int *ret_rc)
{
    const struct selftest_conf conf = {
        .device = {.device = "cpu", .n_threads = 1, .act_dtype = DTYPE_F32, .memory_share = 1}};
    struct err err = {""};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    json_t *rows;

    assert_non_null(out);
    *ret_rc = selftest(dir, &conf, out, &err);
    (void)fclose(out);
    if (*ret_rc < 0)
        fail_msg("%s: %s", dir, err.text);
    rows = json_loads(text, 0, NULL);
    assert_true(json_is_array(rows));
    free(text);
    return rows;
}

static void check_report(int (*selftest)(const char *, const struct selftest_conf *, FILE *, struct err *),
                         const char *dir, size_t n_rows)
{
    json_t *row, *rows;
    size_t i;
    int rc;

    rows = report_of(selftest, dir, &rc);
    assert_int_equal(rc, 0);
    assert_int_equal(json_array_size(rows), n_rows + 1);
    json_array_foreach(rows, i, row)
    {
        assert_int_equal(selftest_row_is_test(row), i > 0);
        assert_false(selftest_row_failed(row));
        assert_true(json_number_value(json_object_get(row, "seconds")) >= 0);
    }
    row = json_object_get(json_array_get(rows, 0), "machine");
    assert_true(strlen(json_string_value(json_object_get(row, "cpu"))) > 0);
    assert_true(strlen(json_string_value(json_object_get(row, "library"))) > 0);
    json_decref(rows);
}

static void test_selftest_of_each_worker_passes(void **state)
{
    static const char *const captioners[] = {OPT_A, "tests/golden/opt_c", "tests/golden/t5_a", "tests/golden/t5_c"};

    (void)state;
    for (size_t i = 0; i < sizeof(captioners) / sizeof(captioners[0]); i++) {
        check_report(encoder_selftest, captioners[i], 1);
        check_report(qformer_selftest, captioners[i], 2);
        check_report(llm_selftest, captioners[i], 1 + 39 + 3);
    }
    check_report(encoder_selftest, "tests/golden/itm_c", 1);
    check_report(qformer_selftest, "tests/golden/itm_c", 6);
}

/* -- the table -- */

static char *table_of(const char *rows_text, bool every_row)
{
    json_t *rows = json_loads(rows_text, 0, NULL);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(rows);
    selftest_table_print(rows, every_row, out);
    (void)fclose(out);
    json_decref(rows);
    return text;
}

static const char rows_text[] =
    "[{\"machine\":{},\"pass\":null,\"model\":\"m\",\"worker\":\"llm\"},"
    " {\"stage\":\"ids a {x}\",\"shape\":[4],\"equal\":4,\"relative_error\":1e-6,\"limit\":1e-5,\"pass\":true,"
    "  \"seconds\":1,\"model\":\"m\",\"worker\":\"llm\"},"
    " {\"stage\":\"first_logits_none\",\"shape\":[2,9],\"relative_error\":2e-7,\"limit\":1e-5,\"pass\":true,"
    "  \"seconds\":0,\"model\":\"m\",\"worker\":\"llm\"},"
    " {\"stage\":\"ids b {y}\",\"shape\":[4],\"equal\":3,\"relative_error\":2e-4,\"limit\":1e-5,\"pass\":false,"
    "  \"seconds\":1.5,\"model\":\"m\",\"worker\":\"llm\",\"detail\":\"sequence 2: 7\"},"
    " {\"stage\":\"tokenizer\",\"shape\":[],\"skipped\":\"no "
    "cases\",\"pass\":null,\"model\":\"m\",\"worker\":\"llm\"}]";

static void test_selftest_table_puts_options_together_and_names_what_failed(void **state)
{
    char *text = table_of(rows_text, false);

    (void)state;
    assert_non_null(strstr(text, "2 option sets, 7 of 8 equal"));
    assert_non_null(strstr(text, "2.0e-04"));
    assert_non_null(strstr(text, "2.5 s  FAILED"));
    assert_non_null(strstr(text, "b {y}"));
    assert_null(strstr(text, "a {x}"));
    assert_non_null(strstr(text, "sequence 2: 7"));
    assert_non_null(strstr(text, "1 skipped: no cases"));
    assert_non_null(strstr(text, "logits without a prompt"));
    free(text);
    text = table_of(rows_text, true);
    assert_non_null(strstr(text, "a {x}"));
    assert_null(strstr(text, "option sets"));
    free(text);
}

static void test_selftest_finds_the_demo_in_the_source_tree(void **state)
{
    struct selftest_demo demo;
    struct err err = {""};

    (void)state;
    if (selftest_demo_find(&demo, &err) < 0)
        fail_msg("%s", err.text);
    assert_non_null(strstr(demo.caption_model, "models/blip2-opt-demo"));
    assert_non_null(strstr(demo.images, "examples/images"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selftest_tensors_may_be_longer_than_asked_never_shorter),
        cmocka_unit_test(test_selftest_sequences_must_all_be_equal_with_their_scores),
        cmocka_unit_test(test_selftest_limits_depend_on_the_type),
        cmocka_unit_test(test_selftest_of_each_worker_passes),
        cmocka_unit_test(test_selftest_table_puts_options_together_and_names_what_failed),
        cmocka_unit_test(test_selftest_finds_the_demo_in_the_source_tree),
    };

    return cmocka_run_group_tests_name("selftest", tests, NULL, NULL);
}
