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
static const struct source_columns wanted = {wanted_names, 2};

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
    assert_int_equal(source_check(arg, &wanted, &sum, &err), 0);
    assert_true(sum.is_table);
    assert_int_equal(sum.n_items, n_items);
    return listed;
}

static void refused(const char *name, const char *text, size_t n, const char *says)
{
    const char *arg = list_of(name, text, n);
    struct source_summary sum;
    struct err err = {""};

    assert_true(source_check(arg, &wanted, &sum, &err) < 0);
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

static void test_table_csv_is_that_of_rfc_4180(void **state)
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
    assert_string_equal(read_all("h.csv", "path,caption\n"), "");
}

static void test_table_first_of_the_picture_columns_counts(void **state)
{
    (void)state;
    assert_string_equal(read_all("c.csv", "filename,image,path\nf,i,p\nf,i,\nf,,\n"), "p|/p|\ni|/i|\nf|/f|\n");
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
    REFUSED("a.jsonl", "{\"path\": \"a\", \"path\": \"b\"}\n", "line 1: not a JSON object");
    REFUSED("a.jsonl", "{\"caption\": \"a\"}\n", "line 1: no picture");
    REFUSED("a.jsonl", "{\"url\": \"http://x/y.jpg\"}\n", "url is not fetched");
    REFUSED("a.jsonl", "{\"path\": \"https://x/y.jpg\"}\n", "not fetched over the network");
    REFUSED("a.jsonl", "{\"path\": [\"a\", \"b\"]}\n", "path: too many values");
    REFUSED("a.jsonl", "{\"path\": \"a\", \"caption\": {}}\n", "caption is neither text");
    REFUSED("a.jsonl", "{\"path\": \"a\", \"caption\": [[1]]}\n", "caption is neither text");
    REFUSED("a.jsonl", "{\"path\": \"a\\u0000\"}\n", "line 1: holds a NUL");
    REFUSED("a.jsonl", "{\"path\": \"\"}\n", "path is empty");
    refused("a.jsonl", "{\"path\": \"a\0\"}\n", 15, "line 1: holds a NUL");
    REFUSED("a.csv", "path,caption\na,b\nc\n", "line 3: 1 cells, but line 1 names 2");
    REFUSED("a.csv", "path,caption\na,b\nc,d,e\n", "line 3: 3 cells");
    REFUSED("a.csv", "path,caption\na,\"b\n\nc,d\n", "line 2: a quote");
    REFUSED("a.csv", "path,caption\n\"a\n\nb\",c\nd,e\"f\n", "line 5: a quote");
    REFUSED("a.csv", "path,path\na,b\n", "line 1: column path is there twice");
    REFUSED("a.csv", "caption\nb\n", "line 2: no picture");
    REFUSED("a.csv", "", "is empty");
    REFUSED("a.csv", "path,caption\na,\xff\n", "line 2: caption is not UTF-8");
    REFUSED("a.csv", "path\na\rb\n", "carriage return");
    REFUSED("a.json", "[{\"path\": \"a\"}]\n", "one object a line");
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

        assert_int_equal(source_check(arg, &wanted, &sum, NULL), 0);
        assert_int_equal(sum.n_with[0], 1);
        assert_int_equal(sum.n_with[1], 0);
    }
    used = snprintf(text, n, "{\"path\": \"a\", \"caption\": \"%0*d\"}\n", SOURCE_MAX_FIELD_BYTES + 1, 1);
    refused("a.jsonl", text, (size_t)used, "line 1: caption has 16385 bytes");
    used = snprintf(text, n, "{\"path\": \"a\", \"caption\": [");
    for (int i = 0; i <= SOURCE_MAX_FIELDS; i++)
        used += snprintf(text + used, n - (size_t)used, "%s%d", i ? "," : "", i);
    used += snprintf(text + used, n - (size_t)used, "]}\n");
    refused("a.jsonl", text, (size_t)used, "caption: too many values");
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
        cmocka_unit_test(test_table_csv_is_that_of_rfc_4180),
        cmocka_unit_test(test_table_first_of_the_picture_columns_counts),
        cmocka_unit_test(test_table_broken_line_names_file_and_line),
        cmocka_unit_test(test_table_sizes_are_bounded),
        cmocka_unit_test(test_table_without_a_file_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
