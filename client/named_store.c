#include "client/named_store.h"

#include "base/interrupt.h"
#include "client/job_row.h"
#include "console/cli.h"
#include "console/crash_handler.h"
#include "console/shell.h"
#include "wire/client_store.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 30000, CHECK_MS = 86400000 /* nobody knows how long all pages take */ };

/* -- a path -- */

/* True if the name does not exist or is not a store; false if a store cannot be read. */
static bool is_no_store(const char *path)
{
    char data[PATH_MAX];

    return snprintf(data, sizeof(data), "%s/data.mdb", path) < (int)sizeof(data) && access(data, F_OK) < 0 &&
           (errno == ENOENT || errno == ENOTDIR);
}

static int open_path(struct named_store *s)
{
    struct err err = {""};
    int rc;

    crash_handler_install(s->command, s->name);
    rc = reader_open(s->name, false, &s->reader, &err);
    if (rc == 0)
        return CLI_EXIT_OK;
    cli_error("%s: %s", s->command, err.text[0] ? err.text : strerror(-rc));
    return is_no_store(s->name) ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
}

/* -- a job -- */

struct request {
    const struct msg_store_read *question;
    struct msg_store_rows *ret;
    struct buf *rows;
    uint32_t *ret_n_rows;
};

static int request(struct client_session *session, void *arg, struct err *err)
{
    const struct request *r = arg;
    const bool is_long = r->question->what == MSG_STORE_CHECK || r->question->what == MSG_STORE_VERIFY;

    buf_clear(r->rows);
    client_session_set_timeout(session, is_long ? CHECK_MS : ANSWER_MS);
    return client_session_read_store(session, r->question, r->ret, r->rows, r->ret_n_rows, err);
}

static int ask(void *arg, const struct msg_store_read *question, struct msg_store_rows *ret, struct buf *rows,
               uint32_t *ret_n_rows, struct err *err)
{
    struct named_store *s = arg;
    struct request r = {question, ret, rows, ret_n_rows};
    int rc;

    if (question)
        rc = broker_client_ask(&s->broker, request, &r, err);
    else
        rc = client_session_read_store(s->broker.session, NULL, ret, rows, ret_n_rows, err);
    interrupt_let_in(true); /* a signal ends the command at once: there is nothing to finish */
    return rc;
}

/* Like a command that reads a path. */
static void let_signals_end_it(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)signal(signals[i], SIG_DFL);
}

static int open_job(struct named_store *s)
{
    const struct reader_source_far from = {.ask = ask, .arg = s};
    struct err err = {""};
    int rc;

    (void)snprintf(s->label, sizeof(s->label), "job %" PRIu64, s->job);
    rc = broker_client_init(&s->broker, s->command, s->broker_option, &err);
    if (rc == 0) {
        let_signals_end_it();
        rc = reader_open_remote(s->label, s->job, &from, &s->reader, &err);
    }
    if (rc == -EIDRM)
        s->broker.error_exit = CLI_EXIT_USAGE; /* no such job */
    return rc < 0 ? named_store_fail(s, rc, &err) : CLI_EXIT_OK;
}

/* -- either -- */

int named_store_open(const char *command, const char *broker_option, const char *name, struct named_store *ret)
{
    struct err err = {""};
    int rc = 0;

    *ret = (struct named_store){.command = command, .broker_option = broker_option, .name = name};
    if (broker_option || access(name, F_OK) < 0)
        rc = job_number_parse(name, &ret->job, &err);
    if (ret->job)
        return open_job(ret);
    if (rc == 0 || !broker_option)
        return open_path(ret);
    cli_error("%s: %s", command, err.text);
    return CLI_EXIT_USAGE;
}

void named_store_close(struct named_store *s)
{
    reader_close(s->reader);
    if (s->job)
        broker_client_release(&s->broker);
}

const char *named_store_label(const struct named_store *s)
{
    return s->job ? s->label : s->name;
}

char *named_store_hint(const struct named_store *s, const char *command, char *ret, size_t ret_size)
{
    size_t at;

    (void)shell_command(command, s->name, ret, ret_size);
    at = strlen(ret);
    if (s->broker_option && at + 16 < ret_size) {
        at += (size_t)snprintf(ret + at, ret_size - at, " --broker ");
        (void)shell_word(s->broker_option, ret + at, ret_size - at);
    }
    return ret;
}

int named_store_fail(struct named_store *s, int rc, const struct err *err)
{
    if (rc == -EINTR && s->job)
        return broker_client_fail(&s->broker, rc, err);
    cli_error("%s: %s", s->command, err->text[0] ? err->text : strerror(-rc));
    return s->job ? s->broker.error_exit : CLI_EXIT_ERROR;
}
