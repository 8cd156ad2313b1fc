/* Picture files of every kind and damage, against what Pillow 12.3 makes of them (tests/zoo/zoo.py stored both). */
#include "tests/unit/fixture.h"
#include "tests/unit/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_SHOWN = 20 };

struct tally {
    int n_equal, n_refused, n_exceptions, n_wrong;
};

/* "NAME TAB VERDICT", and a TAB and a reason where Blipline differs on purpose. NAME@N is the file cut to N bytes. */
static void check_line(const struct fixture_file *files, char *line, struct tally *t)
{
    char *name = strtok(line, "\t"), *want = strtok(NULL, "\t"), *reason = strtok(NULL, "\t"), *cut;
    struct fixture_tensor file;
    struct err err = {""};
    char got[VERDICT_SIZE];
    size_t n;

    assert_non_null(want);
    cut = strchr(name, '@');
    if (cut)
        *cut++ = '\0';
    file = fixture_tensor(files, name);
    n = cut ? strtoul(cut, NULL, 10) : file.size_bytes;
    assert_true(n <= file.size_bytes);
    verdict(file.data, n, got, &err);
    if (reason) {
        t->n_exceptions++;
    } else if (strcmp(got, want) == 0) {
        *(strcmp(got, "refused") == 0 ? &t->n_refused : &t->n_equal) += 1;
    } else if (t->n_wrong++ < MAX_SHOWN) {
        print_error("%s%s%s: %s (%s), Pillow: %s\n", name, cut ? " cut to " : "", cut ? cut : "", got, err.text, want);
    }
}

static void test_zoo_pixels_and_refusals_are_pillows(void **state)
{
    struct tally t = {0};
    struct fixture_file files;
    struct buf lines;
    char *rest, *line;

    (void)state;
    fixture_open(&files, "tests/zoo/files.safetensors.gz");
    buf_init(&lines, 0);
    fixture_bytes("tests/zoo/expected.tsv", &lines);
    assert_int_equal(buf_append(&lines, "", 1), 0);
    rest = (char *)lines.data;
    while ((line = strsep(&rest, "\n")))
        if (*line)
            check_line(&files, line, &t);
    print_message("%d pictures are equal, %d files refused by both, %d exceptions\n", t.n_equal, t.n_refused,
                  t.n_exceptions);
    assert_int_equal(t.n_wrong, 0);
    assert_true(t.n_equal > 1000 && t.n_refused > 1300 && t.n_exceptions < 20);
    buf_release(&lines);
    fixture_close(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zoo_pixels_and_refusals_are_pillows),
    };

    return cmocka_run_group_tests_name("zoo", tests, NULL, NULL);
}
