#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console/table.h"

static const struct table_column columns[] = {
    {"N", true, false}, {"NAME", false, true}, {"STATE", false, false}, {"WHY", false, true}, {0}};
static const char *const rows[][4] = {
    {"1", "short", "running", ""},
    {"12345", "a name that is longer", "paused", "line\none"},
    {"7", "\xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac", "done", "bad \xff"},
};

static void check(unsigned width, const char *want)
{
    char text[1024];
    FILE *out = fmemopen(text, sizeof(text), "w");
    struct table t;

    assert_non_null(out);
    table_init(&t, columns);
    for (size_t i = 0; i < 3; i++)
        table_measure(&t, rows[i]);
    table_fit(&t, width);
    table_print_titles(&t, out);
    for (size_t i = 0; i < 3; i++)
        table_print(&t, rows[i], out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, want);
}

static void test_table_has_the_width_of_its_cells(void **state)
{
    (void)state;
    check(0, "    N  NAME                   STATE    WHY\n"
             "    1  short                  running\n"
             "12345  a name that is longer  paused   line\\none\n"
             "    7  \xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac"
             "           done     bad \\xff\n");
}

static void test_table_cuts_the_widest_cells_to_fit(void **state)
{
    (void)state;
    check(37, "    N  NAME        STATE    WHY\n"
              "    1  short       running\n"
              "12345  a name t..  paused   line\\none\n"
              "    7  \xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac..  done     bad \\xff\n");
}

static void test_table_keeps_the_least_width(void **state)
{
    (void)state;
    check(10, "    N  NAME      STATE    WHY\n"
              "    1  short     running\n"
              "12345  a name..  paused   line\\n..\n"
              "    7  \xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5..  done     bad \\xff\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_has_the_width_of_its_cells),
        cmocka_unit_test(test_table_cuts_the_widest_cells_to_fit),
        cmocka_unit_test(test_table_keeps_the_least_width),
    };

    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
