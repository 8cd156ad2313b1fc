#include "client/broker_client.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "console/answer.h"
#include "job/job.h"
#include "wire/context.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRST_CONTACT_MS = 5000, /* all attempts to reach a broker */
    RETURN_MS = 60000,       /* for a broker that is gone to come back */
};

int broker_client_init(struct broker_client *c, const char *command, const char *option, struct err *err)
{
    int rc;

    *c = (struct broker_client){.command = command, .option = option, .signal_fd = -1, .error_exit = CLI_EXIT_USAGE};
    terminal_init(&c->terminal, STDERR_FILENO);
    rc = broker_conf_find(option, BROKER_CONF_SYSTEM, &c->conf, err);
    if (rc == 0)
        rc = broker_conf_keys(&c->conf, &c->keys, err);
    if (rc < 0)
        return rc;
    c->error_exit = CLI_EXIT_ERROR;
    rc = interrupt_open(&c->signal_fd, err);
    return rc < 0 ? rc : wire_init(1, err);
}

void broker_client_answered(struct broker_client *c)
{
    c->reached = true;
    c->give_up_ms = 0;
}

bool broker_client_may_try_again(struct broker_client *c, int rc, const struct err *err)
{
    const bool passing = job_is_passing(rc), wait_long = c->reached || c->waits_forever;

    if (!passing && rc != -EBUSY)
        return false;
    if (passing)
        client_session_close(&c->session);
    if (!c->give_up_ms) {
        c->give_up_ms = clock_mono_ms() + (wait_long ? RETURN_MS : FIRST_CONTACT_MS);
        if (wait_long)
            terminal_note(&c->terminal, "%s; trying again", err->text);
    }
    return c->waits_forever || clock_mono_ms() < c->give_up_ms;
}

int broker_client_pause(struct broker_client *c, int wait_ms)
{
    struct pollfd p = {.fd = c->signal_fd, .events = POLLIN};
    struct interrupt in;

    if (wait_ms)
        (void)poll(&p, 1, wait_ms);
    interrupt_read(c->signal_fd, &in);
    if (in.signal_number && !c->signal_number)
        c->signal_number = in.signal_number;
    return c->signal_number ? -EINTR : 0;
}

int broker_client_ask(struct broker_client *c, int (*request)(struct client_session *s, void *arg, struct err *err),
                      void *arg, struct err *err)
{
    for (;;) {
        int rc = 0;

        interrupt_let_in(true);
        if (!c->session)
            rc = client_session_open(c->conf.broker, &c->keys, BROKER_CLIENT_CONNECT_MS, &c->session, err);
        c->reached |= c->session != NULL;
        if (rc == 0)
            rc = request(c->session, arg, err);
        interrupt_let_in(false);
        if (rc == 0)
            broker_client_answered(c);
        if (rc == 0 || (rc != -EINTR && !broker_client_may_try_again(c, rc, err)))
            return rc;
        rc = broker_client_pause(c, rc == -EINTR ? 0 : BROKER_CLIENT_PAUSE_MS);
        if (rc < 0)
            return rc;
    }
}

int broker_client_fail(struct broker_client *c, int rc, const struct err *err)
{
    const char *text = err->text[0] ? err->text : strerror(-rc);

    terminal_status(&c->terminal, "");
    if (rc == -EINTR && broker_client_pause(c, 0) == -EINTR)
        return 128 + c->signal_number;
    terminal_note(&c->terminal, "%s: %s", c->command, text);
    answer_error(text);
    return c->error_exit;
}

char *broker_client_hint(const struct broker_client *c, const char *command, uint64_t job, char ret[SHELL_SIZE])
{
    char number[24], endpoint[sizeof(c->conf.broker) + 8];
    size_t n;

    (void)snprintf(number, sizeof(number), "%" PRIu64, job);
    n = strlen(shell_command(command, number, ret, SHELL_SIZE));
    if (c->option)
        (void)snprintf(ret + n, SHELL_SIZE - n, " --broker %s", shell_word(c->option, endpoint, sizeof(endpoint)));
    return ret;
}

void broker_client_release(struct broker_client *c)
{
    client_session_close(&c->session);
    wire_exit();
    wire_keys_wipe(&c->keys);
    if (c->signal_fd >= 0)
        (void)close(c->signal_fd);
}
