/* broker_client.h - how each command that talks to a broker begins and ends.
 *
 * It finds the broker's endpoint and the keys, takes signals, connects, waits for a broker that is away, and prints the
 * error at the end:
 *
 *     rc = broker_client_init(&c, self->name, flags.broker, &err);
 *     if (rc == 0)
 *         rc = broker_client_ask(&c, request, &arg, &err);
 *     exit_code = rc < 0 ? broker_client_fail(&c, rc, &err) : CLI_EXIT_OK;
 *     broker_client_release(&c);
 *
 * Who may call: the main thread, one at a time. Units: milliseconds.
 * Memory: broker_client_release closes the session and wipes the keys; always call it after broker_client_init.
 * Errors: negative errno and `err`; -EINTR: a signal, whose number is in signal_number after broker_client_pause. */
#ifndef BLIPLINE_CLIENT_BROKER_CLIENT_H
#define BLIPLINE_CLIENT_BROKER_CLIENT_H

#include "base/err.h"
#include "console/cli.h"
#include "console/shell.h"
#include "console/terminal.h"
#include "job/broker_conf.h"
#include "wire/client_session.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BROKER_CLIENT_CONNECT_MS = 1000, /* one attempt, for those that try again themselves */
    BROKER_CLIENT_PAUSE_MS = 200,    /* between attempts, and between queries */
};

/* The entry of a command's option table; `type` has a field `const char *broker`. */
#define BROKER_CLIENT_OPTION(type)                                                                           \
    {                                                                                                        \
        "broker", 'b', CLI_TEXT, offsetof(type, broker), "ENDPOINT",                                         \
            "the broker: ipc:///PATH or tcp://HOST:PORT (default: $BLIPLINE_BROKER, else the key broker of " \
            "~/.config/blipline/client.conf or /etc/blipline/client.conf)",                                  \
            0, 0, NULL                                                                                       \
    }

struct broker_client {
    const char *option;       /* the value of --broker; NULL: not given */
    const char *command;      /* its name, for messages */
    struct terminal terminal; /* standard error */
    struct broker_conf conf;
    struct wire_keys keys;
    struct client_session *session; /* NULL: not connected */
    int signal_fd, signal_number;
    int error_exit;     /* the exit code of an error */
    bool reached;       /* a broker has answered */
    bool waits_forever; /* whatever happens, a broker will come back and go on */
    int64_t give_up_ms; /* when to stop trying to reach a broker; 0: it answers */
};

/* `option`: the value of --broker, or NULL. Nothing is sent yet. */
int broker_client_init(struct broker_client *c, const char *command, const char *option, struct err *err) CHECK_RESULT;
/* Call `request`, which asks something of the broker, with the session; connect first if there is none. While the
 * broker is away or busy, and waiting makes sense (broker_client_may_try_again), connect and call again. -EINTR: a
 * signal. */
int broker_client_ask(struct broker_client *c, int (*request)(struct client_session *s, void *arg, struct err *err),
                      void *arg, struct err *err) CHECK_RESULT;
/* The broker has answered: a failure from now on is a new one. */
void broker_client_answered(struct broker_client *c);
/* Is the broker only away or busy, and is there time left to wait for it: a few seconds for the first answer, a minute
 * for one that has answered before? Closes the session if the broker is away, and says so once. */
bool broker_client_may_try_again(struct broker_client *c, int rc, const struct err *err);
/* Wait, and take a signal that came. -EINTR: there was one. */
int broker_client_pause(struct broker_client *c, int wait_ms) CHECK_RESULT;
/* Print what has ended the command. Returns the exit code. */
int broker_client_fail(struct broker_client *c, int rc, const struct err *err);
/* "blipline COMMAND JOB" for a message, with --broker if this command was given it. Returns `ret`. */
char *broker_client_hint(const struct broker_client *c, const char *command, uint64_t job, char ret[SHELL_SIZE]);
void broker_client_release(struct broker_client *c);

#endif
