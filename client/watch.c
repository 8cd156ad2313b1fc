#include "client/watch.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "client/job_row.h"
#include "client/report.h"
#include "wire/client_jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

bool watch_may_try_again(struct watch *w, int rc, const struct err *err)
{
    if (job_is_passing(rc))
        job_disconnect(w->job);
    return broker_client_may_try_again(w->broker, rc, err);
}

int watch_open(struct watch *w, struct err *err)
{
    const struct msg_recipe *stored;
    int rc = job_open(w->job, BROKER_CLIENT_CONNECT_MS, &stored, err);

    w->broker->reached |= w->job->session != NULL;
    if (rc == 0)
        broker_client_answered(w->broker);
    return rc;
}

void watch_set_number(struct watch *w, uint64_t number)
{
    w->number = number;
    (void)snprintf(w->label, sizeof(w->label), "job %" PRIu64, number);
}

static int look_at_row(struct watch *w, struct err *err)
{
    struct stored_job_entry row;
    int rc;

    interrupt_let_in(true);
    rc = client_session_find_job(w->job->session, w->number, &row, err);
    interrupt_let_in(false);
    if (rc < 0)
        return rc;
    w->is_pushed = row.push;
    if (w->view.now.state == MSG_JOB_STOPPED &&
        row.wanted == STORED_WANTED_PAUSED) /* else the broker is about to end */
        (void)msg_text_set(w->paused, sizeof(w->paused), row.text[0] ? row.text : "on request");
    return 0;
}

static int judge(struct watch *w, struct err *err)
{
    const struct msg_job_progress *now = &w->view.now;

    w->done = now->state == MSG_JOB_DONE;
    if (now->state == MSG_JOB_FAILED)
        return err_set(err, -EIO, "%s failed: %s", w->label, now->text);
    if (now->state == MSG_JOB_CANCELLED)
        return err_set(err, -ECANCELED, "%s was cancelled, with %" PRIu64 " of %" PRIu64 " items done", w->label,
                       now->n_done, now->n_items);
    if (now->state == MSG_JOB_PAUSED)
        (void)msg_text_set(w->paused, sizeof(w->paused), now->text[0] ? now->text : "?");
    return now->state == MSG_JOB_STOPPED || (w->done && now->n_failed) ? look_at_row(w, err) : 0;
}

static int ask(struct watch *w, struct err *err)
{
    int rc = 0;

    if (!w->job->session) {
        rc = watch_open(w, err);
        if (rc == 0 && !w->view.terminal) {
            (void)job_view_begin(&w->view, &w->broker->terminal, &w->job->opened);
            job_view_watch(&w->view);
        }
        w->broker->waits_forever |= rc == 0;
    }
    if (rc < 0)
        return rc;
    rc = job_query(w->job, &w->view.now, err);
    if (rc == -ENOENT) { /* the broker has closed it, to go on after an error: open it again */
        job_disconnect(w->job);
        return 0;
    }
    if (rc == 0) {
        job_view_show(&w->view);
        rc = judge(w, err);
    }
    return rc;
}

int watch_until_end(struct watch *w, struct err *err)
{
    w->job->open = (struct msg_job_open){.job = w->number}; /* for a broker that was restarted */
    w->job->sealed = true;
    job_view_watch(&w->view);
    for (;;) {
        int rc = ask(w, err);

        if (rc < 0 && rc != -EINTR && !watch_may_try_again(w, rc, err))
            return rc;
        if (rc == 0 && (w->done || w->paused[0]))
            return 0;
        rc = broker_client_pause(w->broker, BROKER_CLIENT_PAUSE_MS);
        if (rc < 0)
            return rc;
    }
}

static void say_what_to_do_next(const struct watch *w)
{
    struct terminal *terminal = &w->broker->terminal;
    char command[SHELL_SIZE], retry[SHELL_SIZE];

    if (w->paused[0])
        terminal_note(terminal, "%s is paused: %s; `%s` continues it", w->label, w->paused,
                      broker_client_hint(w->broker, "resume", w->number, command));
    if (!w->done)
        return;
    if (w->view.now.n_failed)
        terminal_note(terminal, "`%s` counts the reasons%s%s%s",
                      broker_client_hint(w->broker, "stats", w->number, command), w->is_pushed ? "" : "; `",
                      w->is_pushed ? "" : broker_client_hint(w->broker, "retry", w->number, retry),
                      w->is_pushed ? "" : "` does these items again");
    terminal_note(terminal, "read the results with: %s", broker_client_hint(w->broker, "export", w->number, command));
}

int watch_conclude(const struct watch *w, const char *command, const struct passed_over *passed_over, bool json)
{
    struct terminal *terminal = &w->broker->terminal;
    struct report report = {.store = w->label,
                            .command = command,
                            .job = w->number,
                            .done = w->done,
                            .paused = w->paused[0] ? w->paused : NULL,
                            .passed_over = *passed_over};

    terminal_status(terminal, "");
    if (!w->done && !w->paused[0])
        terminal_note(terminal, "%s goes on at the broker; only this command has ended", w->label);
    job_view_report(&w->view, clock_mono_ms(), &report);
    if (w->view.now.job) {
        report_words(&report, terminal);
        if (json)
            report_json(&report);
    }
    say_what_to_do_next(w);
    if (w->paused[0])
        return CLI_EXIT_ERROR;
    return w->done ? report_exit_code(&report) : 128 + w->broker->signal_number;
}
