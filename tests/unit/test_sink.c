#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/export/sink.h"

static char folder[64];

static int enter(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/bl-sink-XXXXXX");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    char command[96];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static int write_text(const char *path, const char *text)
{
    struct sink s;
    struct err err;
    int rc = sink_open(&s, path, false, &err);

    if (rc == 0)
        rc = buf_append(&s.rows, text, strlen(text));
    if (rc == 0)
        rc = sink_finish(&s, &err);
    sink_release(&s);
    return rc;
}

static void check_file(const char *path, const char *want)
{
    char text[64] = "";
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    assert_int_equal(fread(text, 1, sizeof(text) - 1, f), strlen(want));
    (void)fclose(f);
    assert_string_equal(text, want);
}

static bool is_link(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static void test_sink_file_is_there_only_when_finished(void **state)
{
    struct sink s;
    struct err err;

    (void)state;
    assert_int_equal(sink_open(&s, "a", false, &err), 0);
    assert_int_equal(access("a", F_OK), -1);
    sink_release(&s);
    assert_int_equal(access("a", F_OK), -1);
    assert_int_equal(write_text("a", "one"), 0);
    assert_int_equal(chmod("a", 0640), 0);
    assert_int_equal(write_text("a", "two"), 0);
    check_file("a", "two");
}

static void test_sink_link_stays_and_its_target_is_replaced(void **state)
{
    (void)state;
    assert_int_equal(mkdir("d", 0700), 0);
    assert_int_equal(write_text("d/t", "old"), 0);
    assert_int_equal(symlink("d/l", "one"), 0);
    assert_int_equal(symlink("t", "d/l"), 0);
    assert_int_equal(write_text("one", "new"), 0);
    assert_true(is_link("one") && is_link("d/l") && !is_link("d/t"));
    check_file("d/t", "new");
    assert_int_equal(symlink("d/later", "dangling"), 0);
    assert_int_equal(write_text("dangling", "x"), 0);
    assert_true(is_link("dangling"));
    check_file("d/later", "x");
    assert_int_equal(symlink("loop", "loop"), 0);
    assert_int_equal(write_text("loop", "x"), -ELOOP);
}

static void test_sink_pipe_and_device_are_written_through(void **state)
{
    char text[8] = "";
    struct stat st;
    struct sink s;
    struct err err;
    int fd;

    (void)state;
    assert_int_equal(mkfifo("p", 0600), 0);
    fd = open("p", O_RDONLY | O_NONBLOCK);
    assert_int_equal(write_text("p", "rows"), 0);
    assert_int_equal(read(fd, text, sizeof(text)), 4);
    (void)close(fd);
    assert_true(stat("p", &st) == 0 && S_ISFIFO(st.st_mode));
    assert_int_equal(write_text("/dev/full", "rows"), -ENOSPC);
    assert_true(stat("/dev/full", &st) == 0 && S_ISCHR(st.st_mode));
    assert_int_equal(sink_open(&s, "p", true, &err), -ESPIPE);
    sink_release(&s);
    assert_int_equal(sink_open(&s, "-", true, &err), -ESPIPE);
    sink_release(&s);
    assert_int_equal(sink_open(&s, ".", false, &err), -EISDIR);
    sink_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sink_file_is_there_only_when_finished, enter, leave),
        cmocka_unit_test_setup_teardown(test_sink_link_stays_and_its_target_is_replaced, enter, leave),
        cmocka_unit_test_setup_teardown(test_sink_pipe_and_device_are_written_through, enter, leave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
