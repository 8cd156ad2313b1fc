#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "local/rundir.h"
#include "local/spawn.h"

/* Run `sh -c script`, return its wait status and what it wrote. */
static int shell(const char *script, const char *const *env, char *ret_text, size_t ret_size)
{
    const char *args[] = {"sh", "-c", script, NULL};
    struct spawn s = {.program = "/bin/sh", .args = args, .env = env, .out_fd = -1};
    FILE *log = tmpfile();
    struct err err = {""};
    int status = 0;
    pid_t pid;

    s.log_fd = fileno(log);
    if (spawn_start(&s, &pid, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    rewind(log);
    ret_text[fread(ret_text, 1, ret_size - 1, log)] = '\0';
    (void)fclose(log);
    return status;
}

static void test_spawn_child_has_its_own_group_environment_and_no_descriptors(void **state)
{
    static const char *const env[] = {"HOME=/nowhere", "NEW=1", NULL};
    int extra = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char text[256], how[64];
    int status;

    (void)state;
    status = shell("echo $HOME $NEW; read x; for n in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$n && printf '%s ' "
                   "$n; done; cut -d ' ' -f 5 /proc/$$/stat | grep -qx $$ && "
                   "echo own; exit 7",
                   env, text, sizeof(text));
    assert_string_equal(text, "/nowhere 1\n0 1 2 own\n");
    assert_string_equal(spawn_status_text(status, how, sizeof(how)), "ended with code 7");
    (void)close(extra);
}

static void test_spawn_a_program_that_is_not_there_is_named(void **state)
{
    const char *args[] = {"x", NULL};
    struct spawn s = {.program = "/nowhere/blipline-x", .args = args, .out_fd = -1, .log_fd = 2};
    struct err err = {""};
    char path[256];
    pid_t pid = 77;

    (void)state;
    assert_int_equal(spawn_start(&s, &pid, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/blipline-x"));
    assert_int_equal(pid, 77);
    assert_int_equal(spawn_find("blipline-nobody", path, sizeof(path), &err), -ENOENT);
    assert_non_null(strstr(err.text, "blipline-nobody"));
}

static void test_spawn_signals_blocked_here_reach_the_child(void **state)
{
    char text[64], how[64];
    sigset_t set, old;
    int status;

    (void)state;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, &old);
    status = shell("kill -TERM $$; sleep 5", NULL, text, sizeof(text));
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    assert_string_equal(spawn_status_text(status, how, sizeof(how)), "was killed by signal 15 (Terminated)");
}

static void test_spawn_child_dies_with_its_parent(void **state)
{
    int pipe_fd[2];
    char byte;
    pid_t parent;
    int status;

    (void)state;
    assert_int_equal(pipe(pipe_fd), 0);
    parent = fork();
    if (parent == 0) {
        const char *args[] = {"sleep", "1000", NULL};
        struct spawn s = {.program = "/bin/sleep", .args = args, .out_fd = -1, .log_fd = pipe_fd[1]};
        struct err err;
        pid_t pid;

        if (spawn_start(&s, &pid, &err) == 0)
            (void)raise(SIGKILL);
        _exit(1);
    }
    (void)close(pipe_fd[1]);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    assert_true(WIFSIGNALED(status));
    {
        struct pollfd p = {.fd = pipe_fd[0], .events = POLLIN};

        assert_int_equal(poll(&p, 1, 10000), 1); /* the last writer, the child, is gone */
        assert_int_equal(read(pipe_fd[0], &byte, 1), 0);
    }
    (void)close(pipe_fd[0]);
}

static void test_spawn_parents_are_found(void **state)
{
    (void)state;
    assert_int_equal(spawn_parent((long)getpid()), getppid());
    assert_int_equal(spawn_parent(0x7ffffff0), -1);
    assert_true(spawn_is_same_program((long)getpid()));
    assert_false(spawn_is_same_program(0x7ffffff0));
}

static void test_rundir_is_private_and_goes(void **state)
{
    struct rundir r;
    struct err err = {""};
    char path[128], kept[RUNDIR_MAX];
    struct stat st;

    (void)state;
    if (rundir_create(&r, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(strlen(r.path) + strlen("/broker") <= 107);
    assert_int_equal(stat(r.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    (void)close(open(rundir_file(&r, "file", path, sizeof(path)), O_CREAT | O_WRONLY, 0600));
    assert_int_equal(symlink("/etc", rundir_file(&r, "link", path, sizeof(path))), 0);
    memcpy(kept, r.path, sizeof(kept));
    rundir_remove(&r);
    assert_int_equal(stat(kept, &st), -1);
    assert_int_equal(stat("/etc/passwd", &st), 0);
    rundir_remove(&r);
}

static void test_rundir_of_a_killed_run_goes_with_the_next_one_but_not_of_a_running_one(void **state)
{
    struct rundir running, killed, next;
    struct err err = {""};
    char path[RUNDIR_MAX];
    struct stat st;

    (void)state;
    assert_int_equal(rundir_create(&running, &err), 0);
    assert_int_equal(rundir_create(&killed, &err), 0);
    memcpy(path, killed.path, sizeof(path));
    rundir_keep(&killed); /* as the kernel does with a lock of a process that is killed */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(rundir_create(&next, &err), 0);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(stat(running.path, &st), 0);
    rundir_remove(&running);
    rundir_remove(&next);
}

static void test_interrupt_tells_signals_and_ends_a_wait_that_lets_them_in(void **state)
{
    struct interrupt in;
    struct err err;
    sigset_t old;
    int fd;

    (void)state;
    (void)sigprocmask(SIG_BLOCK, NULL, &old);
    assert_int_equal(interrupt_open(&fd, &err), 0);
    interrupt_read(fd, &in);
    assert_int_equal(in.signal_number, 0);
    (void)raise(SIGTERM);
    interrupt_read(fd, &in);
    assert_int_equal(in.signal_number, SIGTERM);
    assert_int_equal(in.n_signals, 1);
    (void)raise(SIGINT); /* waits until it is let in */
    interrupt_let_in(true);
    interrupt_let_in(false);
    interrupt_read(fd, &in);
    assert_int_equal(in.signal_number, SIGINT);
    interrupt_read(fd, &in);
    assert_int_equal(in.signal_number, 0);
    (void)close(fd);
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
}

static int setup(void **state)
{
    static char dir[] = "/tmp/test_spawn.XXXXXX";

    *state = dir;
    return mkdtemp(dir) ? setenv("TMPDIR", dir, 1) : -1;
}

static int teardown(void **state)
{
    return rmdir(*state); /* empty: nothing may be left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spawn_child_has_its_own_group_environment_and_no_descriptors),
        cmocka_unit_test(test_spawn_a_program_that_is_not_there_is_named),
        cmocka_unit_test(test_spawn_signals_blocked_here_reach_the_child),
        cmocka_unit_test(test_spawn_child_dies_with_its_parent),
        cmocka_unit_test(test_spawn_parents_are_found),
        cmocka_unit_test(test_rundir_is_private_and_goes),
        cmocka_unit_test(test_rundir_of_a_killed_run_goes_with_the_next_one_but_not_of_a_running_one),
        cmocka_unit_test(test_interrupt_tells_signals_and_ends_a_wait_that_lets_them_in),
    };

    return cmocka_run_group_tests_name("spawn", tests, setup, teardown);
}
