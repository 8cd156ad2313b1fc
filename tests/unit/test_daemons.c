/* Deaths of workers that the client forgives, and workers that it kills. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "local/daemons.h"

static const struct plan_worker llm = {.stage = STAGE_LLM}, encoder = {.stage = STAGE_ENCODE};
static const struct place places[] = {{.worker = &encoder, .name = "encoder"}, {.worker = &llm, .name = "llm"}};

static struct daemons two_workers(struct terminal *terminal)
{
    struct daemons d = {.n_children = 3, .terminal = terminal};

    d.children[0].name = "broker";
    for (int i = 0; i < 2; i++) {
        d.children[i + 1].name = places[i].name;
        d.children[i + 1].place = &places[i];
        d.children[i + 1].log_fd = -1;
    }
    return d;
}

static unsigned n_counted(const struct daemons_child *c)
{
    unsigned n = 0;

    for (int i = 0; i < DAEMONS_MAX_DEATHS; i++)
        n += c->deaths_ms[i] > 0;
    return n;
}

static void test_daemons_forgive_as_many_deaths_as_isolation_explains(void **state)
{
    struct daemons d = two_workers(NULL);

    (void)state;
    for (int i = 0; i < 4; i++) {
        d.children[1].deaths_ms[d.children[1].n_deaths++] = 1000 + i;
        d.children[2].deaths_ms[d.children[2].n_deaths++] = 1000 + i;
    }
    daemons_forgive(&d, STAGE_LLM, 3);
    assert_int_equal(n_counted(&d.children[2]), 1);
    assert_int_equal(d.children[2].deaths_ms[0], 1000); /* the latest are forgiven */
    assert_int_equal(n_counted(&d.children[1]), 4);
    daemons_forgive(&d, STAGE_LLM, 3); /* nothing new */
    assert_int_equal(n_counted(&d.children[2]), 1);
    daemons_forgive(&d, STAGE_LLM, 1); /* another broker */
    daemons_forgive(&d, STAGE_LLM, 3); /* one death is seen, one is still to be */
    assert_int_equal(n_counted(&d.children[2]), 0);
    d.children[2].deaths_ms[d.children[2].n_deaths++] = 2000;
    daemons_forgive(&d, STAGE_LLM, 3);
    assert_int_equal(n_counted(&d.children[2]), 0);
}

static pid_t start_sleeper(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    return pid;
}

static void test_daemons_kill_hung_workers_that_are_theirs(void **state)
{
    struct terminal terminal;
    struct daemons d;
    struct msg_hung_worker hung[2] = {{.text = "it has fallen silent"}, {.text = "of another machine"}};
    int status, null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(null >= 0);
    terminal_init(&terminal, null);
    d = two_workers(&terminal);
    d.children[1].pid = start_sleeper();
    d.children[2].pid = start_sleeper();
    hung[0].pid = (uint32_t)d.children[2].pid;
    hung[1].pid = 1;
    daemons_kill_hung(&d, hung, 2);
    daemons_kill_hung(&d, hung, 2);
    assert_int_equal(waitpid(d.children[2].pid, &status, 0), d.children[2].pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(waitpid(d.children[1].pid, &status, WNOHANG), 0);
    d.children[2].pid = 0;
    daemons_release(&d);
    (void)close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_daemons_forgive_as_many_deaths_as_isolation_explains),
        cmocka_unit_test(test_daemons_kill_hung_workers_that_are_theirs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
