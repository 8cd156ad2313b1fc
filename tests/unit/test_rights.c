#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/rights.h"

enum { MAX_TYPE = 128 };

/* "JobOpen" as msg_type_name has it: "job_open". */
static void snake(const char *name, char ret[64])
{
    size_t n = 0;

    for (const char *p = name; *p && n + 2 < 64; p++) {
        if (isupper((unsigned char)*p) && n)
            ret[n++] = '_';
        ret[n++] = (char)tolower((unsigned char)*p);
    }
    ret[n] = '\0';
}

static int type_of(const char *name)
{
    char words[64];

    snake(name, words);
    for (int type = 0; type < MAX_TYPE; type++)
        if (strcmp(msg_type_name((enum msg_type)type), words) == 0)
            return type;
    return -1;
}

static enum msg_right right_of(const char *cell)
{
    if (strcmp(cell, "no") == 0)
        return MSG_RIGHT_NONE;
    if (strcmp(cell, "own jobs") == 0)
        return MSG_RIGHT_OWN;
    if (strcmp(cell, "yes") != 0 && strcmp(cell, "all jobs") != 0)
        fail_msg("a cell says \"%s\"", cell);
    return MSG_RIGHT_ALL;
}

static void test_rights_are_those_of_the_readme(void **state)
{
    static const char head[] = "| may send | worker | client | admin |";
    bool listed[MAX_TYPE] = {false}, inside = false;
    char line[1024], name[64], cells[3][16];
    FILE *f = fopen("proto/README.md", "re");

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, head, sizeof(head) - 1) == 0)
            inside = true;
        else if (line[0] != '|')
            inside = false;
        if (!inside || sscanf(line, "| %63[A-Za-z] | %15[a-z ] | %15[a-z ] | %15[a-z ] |", name, cells[0], cells[1],
                              cells[2]) != 4)
            continue;
        const int type = type_of(name);

        if (type < 0)
            fail_msg("there is no message %s", name);
        listed[type] = true;
        for (int i = 0; i < 3; i++) {
            for (size_t n = strlen(cells[i]); n && cells[i][n - 1] == ' '; n--)
                cells[i][n - 1] = '\0';
            if (msg_right((enum msg_role)(MSG_ROLE_WORKER + i), (enum msg_type)type) != right_of(cells[i]))
                fail_msg("%s: the table says that %s: %s", name, msg_role_name((enum msg_role)(MSG_ROLE_WORKER + i)),
                         cells[i]);
        }
    }
    (void)fclose(f);
    for (int type = 0; type < MAX_TYPE; type++)
        for (int role = MSG_ROLE_WORKER; role <= MSG_ROLE_ADMIN; role++)
            if (!listed[type] && msg_right((enum msg_role)role, (enum msg_type)type) != MSG_RIGHT_NONE)
                fail_msg("proto/README.md does not say who may send %s", msg_type_name((enum msg_type)type));
}

static void test_rights_without_a_role_there_are_none(void **state)
{
    (void)state;
    for (int type = -1; type <= MAX_TYPE; type++) {
        assert_int_equal(msg_right((enum msg_role)0, (enum msg_type)type), MSG_RIGHT_NONE);
        assert_int_equal(msg_right((enum msg_role)4, (enum msg_type)type), MSG_RIGHT_NONE);
    }
    assert_int_equal(msg_right(MSG_ROLE_ADMIN, (enum msg_type)MAX_TYPE), MSG_RIGHT_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rights_are_those_of_the_readme),
        cmocka_unit_test(test_rights_without_a_role_there_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
