/* cmd_top.c - `blipline top`: what a broker's workers and jobs do now, again and again. */
#include "base/clock.h"
#include "base/interrupt.h"
#include "client/broker_client.h"
#include "client/commands.h"
#include "client/fleet_view.h"
#include "client/help_texts.h"
#include "console/answer.h"
#include "console/screen.h"
#include "job/job.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { ANSWER_MS = 3000, FIRST_CONTACT_MS = 5000 };

struct top_flags {
    const char *broker;
    double interval_s;
    bool once, json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct top_flags),
    {"interval", 'i', CLI_REAL, offsetof(struct top_flags, interval_s), "SECONDS",
     "time between two looks (default: 2)", 0, 3600, NULL},
    {"once", '1', CLI_FLAG, offsetof(struct top_flags, once), NULL, "print the page once, and end", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct top_flags, json), NULL,
     "print one JSON object on standard output, and end (blipline help json)", 0, 0, NULL},
    {0},
};

struct top {
    struct broker_client client;
    struct screen screen;
    struct client_fleet fleet; /* the latest answer */
    int64_t interval_ms;
};

static int ask(struct top *t, struct err *err)
{
    struct broker_client *c = &t->client;
    int rc = 0;

    interrupt_let_in(true);
    if (!c->session) {
        rc = client_session_open(c->conf.broker, &c->keys, c->reached ? BROKER_CLIENT_CONNECT_MS : FIRST_CONTACT_MS,
                                 &c->session, err);
        if (rc == 0)
            client_session_set_timeout(c->session, ANSWER_MS);
    }
    if (rc == 0)
        rc = client_session_fleet(c->session, &t->fleet, err);
    interrupt_let_in(false);
    if (rc == 0)
        broker_client_answered(c);
    if (job_is_passing(rc))
        client_session_close(&c->session);
    return rc;
}

/* Draw the page, or print it where there is no screen. `note`: NULL, or why the rows are missing. */
static int show(struct top *t, const char *note, struct err *err)
{
    unsigned columns = 0, rows = 0;
    struct buf page;
    int rc;

    buf_init(&page, 0);
    if (t->screen.is_open)
        screen_size(&columns, &rows);
    rc = fleet_view_page(&t->fleet, t->client.conf.broker, note, columns, rows, &page);
    if (rc < 0)
        rc = err_set(err, rc, "no memory for the page");
    else if (t->screen.is_open)
        screen_show(&t->screen, (const char *)page.data, page.size_bytes);
    else if (fwrite(page.data, 1, page.size_bytes, stdout) != page.size_bytes || fflush(stdout) != 0)
        rc = err_set(err, -EIO, "standard output: %s", strerror(errno));
    buf_release(&page);
    return rc;
}

static int look_once(struct top *t, bool is_json, struct err *err)
{
    int rc = ask(t, err);

    if (rc == 0 && is_json)
        answer_print("top", fleet_view_json(&t->fleet, t->client.conf.broker), 0);
    else if (rc == 0)
        rc = show(t, NULL, err);
    return rc;
}

/* Until the user or a signal ends it. A broker that has answered may be away for a while. */
static int run_on(struct top *t, struct err *err)
{
    char note[sizeof(err->text) + 32] = "";
    int rc = ask(t, err);

    if (rc == 0 && screen_open(&t->screen))
        t->client.terminal.is_terminal = false;
    while (rc == 0) {
        rc = show(t, note[0] ? note : NULL, err);
        if (rc < 0 || screen_wait(&t->screen, t->client.signal_fd, (int)t->interval_ms) ||
            broker_client_pause(&t->client, 0) < 0)
            break;
        rc = ask(t, err);
        note[0] = '\0';
        if (job_is_passing(rc)) {
            (void)snprintf(note, sizeof(note), "%s; trying again", err->text);
            rc = 0;
        }
    }
    screen_close(&t->screen);
    return rc;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct top_flags f = {.interval_s = 2};
    static struct top t; /* large for a stack */
    struct err err = {""};
    int n_args = cli_parse(self, argc, argv, &f), rc, exit_code = CLI_EXIT_OK;

    if (n_args < 0)
        return cli_exit_code(n_args);
    t.interval_ms = f.interval_s < 0.1 ? 100 : (int64_t)(f.interval_s * 1000);
    rc = broker_client_init(&t.client, self->name, f.broker, &err);
    if (rc == 0 && (f.once || f.json)) {
        rc = look_once(&t, f.json, &err);
    } else if (rc == 0) {
        rc = run_on(&t, &err);
        if (rc == -EINTR && broker_client_pause(&t.client, 0) < 0)
            rc = 0;
        if (rc == 0 && t.client.signal_number && t.client.signal_number != SIGINT)
            exit_code = 128 + t.client.signal_number;
    }
    if (rc < 0)
        exit_code = broker_client_fail(&t.client, rc, &err);
    client_fleet_release(&t.fleet);
    broker_client_release(&t.client);
    return exit_code;
}

const struct cli_command cmd_top = {
    .name = "top",
    .line = "watch what a broker's workers and jobs do",
    .usage = "[--broker ENDPOINT] [--once] [--json]",
    .about = HELP_TOP,
    .examples = HELP_TOP_EXAMPLES,
    .options = options,
    .run = run,
};
