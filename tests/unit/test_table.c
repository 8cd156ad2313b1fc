#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "source/source.h"

static char folder[] = "/tmp/test_table.XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[64];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

static const char *const wanted_names[] = {"caption", "question"};
static const struct source_columns wanted = {.names = wanted_names, .n = 2};

/* "@folder/name" of a file of these bytes. */
static const char *list_of(const char *name, const char *text, size_t n)
{
    static char arg[96];
    FILE *f;

    (void)snprintf(arg, sizeof(arg), "@%s/%s", folder, name);
    f = fopen(arg + 1, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return arg;
}

/* All items as "KEY|PATH below the folder|name=value,...\n". */
static char listed[8192];
static const char *read_all(const char *name, const char *text)
{
    const char *arg = list_of(name, text, strlen(text));
    struct source *s = NULL;
    struct source_item item;
    struct source_summary sum;
    struct err err = {""};
    uint64_t n_items = 0;
    int rc;

    listed[0] = '\0';
    if (source_open(arg, &wanted, &s, &err) < 0)
        fail_msg("%s", err.text);
    while ((rc = source_next(s, &item, &err)) > 0) {
        size_t used = strlen(listed);
        const char *path = strncmp(item.path, folder, strlen(folder)) == 0 ? item.path + strlen(folder) : item.path;

        assert_int_equal(item.path_bytes, strlen(item.path));
        used += (size_t)snprintf(listed + used, sizeof(listed) - used, "%.*s|%s|", (int)item.key_bytes, item.key, path);
        for (uint32_t i = 0; i < item.n_fields; i++) {
            assert_int_equal(item.fields[i].value_bytes, strlen(item.fields[i].value));
            used += (size_t)snprintf(listed + used, sizeof(listed) - used, "%s%s=%s", i ? "," : "", item.fields[i].name,
                                     item.fields[i].value);
        }
        (void)snprintf(listed + used, sizeof(listed) - used, "\n");
        n_items++;
    }
    source_free(s);
    if (rc < 0)
        fail_msg("%s", err.text);
    assert_int_equal(source_check(arg, &wanted, 0, &sum, &err), 0);
    assert_true(sum.is_table);
    assert_int_equal(sum.n_items, n_items);
    return listed;
}

static void refused(const char *name, const char *text, size_t n, const char *says)
{
    const char *arg = list_of(name, text, n);
    struct source_summary sum;
    struct err err = {""};

    assert_true(source_check(arg, &wanted, 0, &sum, &err) < 0);
    if (!strstr(err.text, says) || (strncmp(says, "line", 4) == 0 && !strstr(err.text, name)))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void test_table_jsonl_rows_become_items_with_fields(void **state)
{
    (void)state;
    assert_string_equal(
        read_all("a.jsonl", "\xef\xbb\xbf{\"path\": \"a.jpg\", \"caption\": \"a \\u00e9 \\\"cat\\\"\", \"x\": {}}\r\n"
                            "\n  \n"
                            "{\"image\": \"b/c.jpg\", \"key\": \"k1\", \"question\": [\"one\", 2, true, null]}\n"
                            "{\"file_name\": \"/abs.png\", \"key\": 17, \"caption\": null, \"question\": 1.5}"),
        "a.jpg|/a.jpg|caption=a \xc3\xa9 \"cat\"\n"
        "k1|/b/c.jpg|question=one,question=2,question=true\n"
        "17|/abs.png|question=1.5\n");
    assert_string_equal(read_all("b.NDJSON", "{\"key\": \"only.jpg\", \"caption\": \"\"}\n"),
                        "only.jpg|/only.jpg|caption=\n");
}

static void test_table_csv_is_that_of_rfc_4180_and_python(void **state)
{
    (void)state;
    assert_string_equal(read_all("a.csv", "\xef\xbb\xbfkey,path,caption,other\r\n"
                                          "1,a.jpg,\"a cat, \"\"big\"\"\r\nand red\",x\r\n"
                                          "\r\n"
                                          "2,b.jpg, spaces stay ,\n"
                                          "3,c.jpg,,\"\""),
                        "1|/a.jpg|caption=a cat, \"big\"\r\nand red\n"
                        "2|/b.jpg|caption= spaces stay \n"
                        "3|/c.jpg|\n");
    assert_string_equal(read_all("a.tsv", "question\tfilename\nhow \"big\"? 5\"\tx y.jpg\n\"a\tb\"\tz.jpg\n"),
                        "x y.jpg|/x y.jpg|question=how \"big\"? 5\"\nz.jpg|/z.jpg|question=a\tb\n");
    assert_string_equal(read_all("q.csv", "path,caption\na,5\" disk\nb,\"the \"\"big\"\"\" one \"old\"\nc\"d,\n"),
                        "a|/a|caption=5\" disk\nb|/b|caption=the \"big\" one \"old\"\nc\"d|/c\"d|\n");
    assert_string_equal(read_all("h.csv", "path,caption\n"), "");
}

static void test_table_first_of_the_picture_columns_counts(void **state)
{
    (void)state;
    assert_string_equal(read_all("c.csv", "filename,image,path\nf,i,p\nf,i,\nf,,\n"), "p|/p|\ni|/i|\nf|/f|\n");
    assert_string_equal(read_all("c.jsonl", "{\"image\": {\"bytes\": 1}, \"file_name\": \"a\"}\n"
                                            "{\"image\": \"https://x/y.jpg\", \"image_url\": \"b\"}\n"),
                        "a|/a|\nb|/b|\n");
}

/* The reason of the last row of the list, which becomes an item without a picture; the rows before it are fine. */
static void bad_row(const char *name, const char *text, size_t n, enum image_error code, const char *says)
{
    const char *arg = list_of(name, text, n);
    struct source_item item = {0};
    struct source_summary sum;
    struct err err = {""};
    struct source *s = NULL;
    uint64_t n_items = 0, n_bad = 0;
    int rc;

    assert_int_equal(source_open(arg, &wanted, &s, &err), 0);
    while ((rc = source_next(s, &item, &err)) > 0) {
        n_items++;
        n_bad += item.problem_code != IMAGE_OK;
        assert_true(item.key_bytes > 0);
        if (item.problem_code == IMAGE_OK)
            continue;
        assert_int_equal(item.problem_code, code);
        assert_int_equal(item.path_bytes + item.n_fields, 0);
        if (!strstr(item.problem, says) || !strstr(item.problem, name))
            fail_msg("\"%s\" does not say \"%s\"", item.problem, says);
    }
    if (rc < 0)
        fail_msg("%s", err.text);
    source_free(s);
    assert_int_equal(source_check(arg, &wanted, 0, &sum, &err), 0);
    assert_int_equal(sum.n_items, n_items);
    assert_int_equal(sum.n_bad, 1);
    assert_int_equal(n_bad, 1);
}

static void test_table_row_of_no_use_is_an_item_with_the_reason(void **state)
{
    (void)state;
#define BAD(name, text, code, says) bad_row(name, text, strlen(text), code, says)
    BAD("a.jsonl", "{\"path\": \"a\"}\n{\"caption\": \"a\"}\n", IMAGE_NO_PICTURE, "line 2: no picture");
    BAD("a.jsonl", "{\"url\": \"http://x/y.jpg\"}\n", IMAGE_URL, "line 1: http://x/y.jpg");
    BAD("a.jsonl", "{\"path\": \"https://x/y.jpg\"}\n", IMAGE_URL, "pictures are not downloaded");
    BAD("a.jsonl", "{\"path\": [\"a\", \"b\"]}\n", IMAGE_BAD_ROW, "path: too many values");
    BAD("a.jsonl", "{\"image\": {\"path\": \"a\"}}\n", IMAGE_BAD_ROW, "image is neither text");
    BAD("a.jsonl", "{\"path\": \"a\", \"caption\": {}}\n", IMAGE_BAD_ROW, "caption is neither text");
    BAD("a.jsonl", "{\"path\": \"a\", \"caption\": [[1]]}\n", IMAGE_BAD_ROW, "caption is neither text");
    BAD("a.jsonl", "{\"path\": \"a\", \"caption\": \"x\\u0000\"}\n", IMAGE_BAD_ROW, "contains an invalid character");
    BAD("a.jsonl", "{\"path\": \"a\", \"caption\": \"\\ude00\"}\n", IMAGE_BAD_ROW, "contains an invalid character");
    BAD("a.jsonl", "{\"path\": \"a\\u0000\"}\n", IMAGE_BAD_ROW, "an invalid character");
    BAD("a.jsonl", "{\"path\": \"a\\ud800\"}\n", IMAGE_BAD_ROW, "an invalid character");
    BAD("a.jsonl", "{\"path\": \"\"}\n", IMAGE_NO_PICTURE, "path is empty");
    BAD("a.jsonl", "{\"path\": null, \"key\": \"k\"}\n", IMAGE_NO_PICTURE, "path is empty");
    BAD("a.csv", "path,caption\na,b\nc,d,e\n", IMAGE_BAD_ROW, "line 3: 3 cells, but line 1 names 2");
    BAD("a.csv", "path,caption\na,\xff\n", IMAGE_BAD_ROW, "line 2: caption is not UTF-8");
    BAD("a.csv", "key,path,caption\n1,a,b\n2,,d\n", IMAGE_NO_PICTURE, "line 3: path is empty");
    bad_row("a.csv", "path,caption\na,b\0\n", 18, IMAGE_BAD_ROW, "line 2: caption contains");
}

/* What is not used is of no matter, and what Python's json writes can be read. */
static void test_table_values_that_nobody_asked_for_are_no_matter(void **state)
{
    (void)state;
    assert_string_equal(
        read_all("p.jsonl",
                 "{\"path\": \"1\", \"x\": NaN, \"y\": [Infinity, -Infinity], \"caption\": \"NaN \\\" Infinity\"}\n"
                 "{\"x\": 17293822569102704640123, \"y\": 1e400, \"path\": \"2\", \"caption\": -12345678901234567890}\n"
                 "{\"path\": \"3\", \"x\": \"\\udcff\", \"y\": \"\\u0000\", \"\\u0000path\": 1, \"caption\\u0000\": "
                 "\"no\"}\n"
                 "{\"path\": \"old\", \"path\": \"4\", \"x\": {\"a\": {\"b\": 1, \"b\": 2}}, \"caption\": 1, "
                 "\"caption\": [\"c\", \"d\"]}\n"
                 "{\"path\": \"5\", \"caption\": NaN, \"question\": \"\\ud83d\\ude00\\\\u0000\"}\n"
                 "{\"path\": \"6\", \"x\": \"\xff\xed\xa0\x80\", \"caption\": 1.50}\n"),
        "1|/1|caption=NaN \" Infinity\n"
        "2|/2|caption=-12345678901234567890\n"
        "3|/3|\n"
        "4|/4|caption=c,caption=d\n"
        "5|/5|question=\xf0\x9f\x98\x80\\u0000\n"
        "6|/6|caption=1.50\n");
    assert_string_equal(read_all("p.csv", "path,x,x,caption\na,1,2,d e\nc,,,\ng\n\xc3\xa9,\xff,,h,,\n"),
                        "a|/a|caption=d e\nc|/c|\ng|/g|\n\xc3\xa9|/\xc3\xa9|caption=h\n");
}

static void test_table_picture_column_can_be_named(void **state)
{
    const struct source_columns named = {.names = wanted_names, .n = 2, .picture = "img col"};
    const char *arg = list_of("n.csv", "path,img col\na,b\n", 18);
    struct source_item item;
    struct source_summary sum;
    struct err err = {""};
    struct source *s = NULL;

    (void)state;
    assert_int_equal(source_open(arg, &named, &s, &err), 0);
    assert_int_equal(source_next(s, &item, &err), 1);
    assert_string_equal(item.key, "b");
    source_free(s);
    arg = list_of("n.jsonl", "{\"path\": \"a\"}\n", 14);
    assert_int_equal(source_check(arg, &named, 0, &sum, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no column img col; there is \"path\""));
}

static void test_table_broken_line_names_file_and_line(void **state)
{
    static const char good[] = "{\"path\": \"a.jpg\"}\n";
    char seven[1024] = "";

    (void)state;
    for (int i = 0; i < 6; i++)
        (void)strcat(seven, good);
#define REFUSED(name, text, says) refused(name, text, strlen(text), says)
    (void)strcat(seven, "{\"path\": \"a.jpg\"\n");
    REFUSED("a.jsonl", seven, "a.jsonl, line 7: not a JSON object");
    REFUSED("a.jsonl", "\n[1]\n", "line 2: not a JSON object");
    REFUSED("a.jsonl", "{\"path\": Nan}\n", "line 1: not a JSON object");
    REFUSED("a.jsonl", "{\"path\": \"a\"} {}\n", "line 1: not a JSON object");
    REFUSED("a.jsonl", "{\"path\": \"a\\ud83\"}\n", "line 1: not a JSON object");
    REFUSED("a.jsonl", "{\"caption\": \"a\"}\n", "line 1: no picture");
    refused("a.jsonl", "{\"path\": \"a\0\"}\n", 15, "line 1: not a JSON object");
    refused("a.csv", "path\0,caption\na,b\n", 18, "line 1: contains a NUL");
    REFUSED("a.csv", "path,caption\na,\"b\n\nc,d\n", "line 2: a quote");
    REFUSED("a.csv", "path,caption\n\"a\n\nb\",c\nd,\"e\nf,\"g\"\n", "line 5: a quote");
    REFUSED("a.csv", "path,path\na,b\n", "line 1: column path occurs twice");
    REFUSED("a.csv", "caption\nb\n", "line 2: no picture");
    REFUSED("a.csv", "", "is empty");
    REFUSED("a.csv", "path\na\rb\n", "carriage return");
    REFUSED("a.json", "[{\"path\": \"a\"}]\n", "one object per line");
}

static void test_table_sizes_are_bounded(void **state)
{
    size_t n = SOURCE_MAX_ROW_BYTES + 64;
    char *text = malloc(n);
    int used;

    (void)state;
    memset(text, 'x', n);
    memcpy(text, "path,caption\n", 13);
    refused("a.csv", text, n, "line 2: longer than");
    memcpy(text, "path,caption\na,\"", 16);
    for (size_t i = 1000; i < n; i += 1000)
        text[i] = '\n';
    refused("a.csv", text, n, "line 2: a row of more than");
    used = snprintf(text, n, "{\"path\": \"a\", \"caption\": \"%0*d\"}\n", SOURCE_MAX_FIELD_BYTES, 1);
    refused("a.jsonl", "x", 1, "line 1");
    assert_non_null(strstr(read_all("b.csv", "path,caption\na,b\n"), "caption=b"));
    {
        const char *arg = list_of("ok.jsonl", text, (size_t)used);
        struct source_summary sum;

        assert_int_equal(source_check(arg, &wanted, 0, &sum, NULL), 0);
        assert_int_equal(sum.n_with[0], 1);
        assert_int_equal(sum.n_with[1], 0);
    }
    used = snprintf(text, n, "{\"path\": \"a\", \"caption\": \"%0*d\"}\n", SOURCE_MAX_FIELD_BYTES + 1, 1);
    bad_row("a.jsonl", text, (size_t)used, IMAGE_BAD_ROW, "line 1: caption has 16385 bytes");
    used = snprintf(text, n, "{\"path\": \"a\", \"caption\": [");
    for (int i = 0; i <= SOURCE_MAX_FIELDS; i++)
        used += snprintf(text + used, n - (size_t)used, "%s%d", i ? "," : "", i);
    used += snprintf(text + used, n - (size_t)used, "]}\n");
    bad_row("a.jsonl", text, (size_t)used, IMAGE_BAD_ROW, "caption: too many values");
    free(text);
}

static void test_table_without_a_file_is_refused(void **state)
{
    struct source *s = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(source_open("@/nonexistent/a.csv", &wanted, &s, &err), -ENOENT);
    assert_int_equal(source_open("@/tmp", NULL, &s, &err), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_jsonl_rows_become_items_with_fields),
        cmocka_unit_test(test_table_csv_is_that_of_rfc_4180_and_python),
        cmocka_unit_test(test_table_first_of_the_picture_columns_counts),
        cmocka_unit_test(test_table_row_of_no_use_is_an_item_with_the_reason),
        cmocka_unit_test(test_table_values_that_nobody_asked_for_are_no_matter),
        cmocka_unit_test(test_table_picture_column_can_be_named),
        cmocka_unit_test(test_table_broken_line_names_file_and_line),
        cmocka_unit_test(test_table_sizes_are_bounded),
        cmocka_unit_test(test_table_without_a_file_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
