#include "client/job_view.h"

#include "base/clock.h"

#include <string.h>

enum { LINE_EVERY_MS = 10000 }; /* progress without a terminal */

uint64_t job_view_begin(struct job_view *v, struct terminal *terminal, const struct msg_job_opened *opened)
{
    const uint64_t n_left = opened->n_items - opened->n_done + opened->n_again;

    *v = (struct job_view){.terminal = terminal,
                           .n_before = opened->n_done,
                           .n_redone_before = opened->n_redone,
                           .start_ms = clock_mono_ms()};
    progress_init(&v->progress, v->start_ms, opened->n_items - n_left, opened->n_items);
    return opened->n_items - n_left;
}

void job_view_watch(struct job_view *v)
{
    v->line_ms = clock_mono_ms();
}

static uint64_t n_this_run(const struct job_view *v)
{
    return v->now.n_done - v->n_before + v->now.n_redone - v->n_redone_before;
}

/* Say what the job waits for (disk space, a suitable worker, a stalled one), once for each reason. */
static void tell_what_it_waits_for(struct job_view *v)
{
    const struct msg_job_progress *p = &v->now;
    const bool waits = p->state != MSG_JOB_DONE && p->state != MSG_JOB_PAUSED && p->state != MSG_JOB_FAILED;

    if (waits && p->text[0] && strcmp(p->text, v->told) != 0)
        terminal_note(v->terminal, "waiting: %s", p->text);
    (void)msg_text_set(v->told, sizeof(v->told), waits ? p->text : "");
}

void job_view_show(struct job_view *v)
{
    int64_t now_ms = clock_mono_ms();
    const struct msg_job_progress *p = &v->now;
    char text[256];

    if (!v->any_done && n_this_run(v) > 0) { /* the time to load the model must not count as slow work */
        v->any_done = true;
        progress_init(&v->progress, now_ms, p->n_done - p->n_again, p->n_items);
    }
    progress_update(&v->progress, now_ms, p->n_done - p->n_again, p->n_failed, p->n_items);
    if (v->terminal->is_terminal) {
        progress_bar(&v->progress, now_ms, terminal_columns(v->terminal), text, sizeof(text));
        terminal_status(v->terminal, text);
    } else if (now_ms - v->line_ms >= LINE_EVERY_MS) {
        progress_line(&v->progress, now_ms, text, sizeof(text));
        terminal_note(v->terminal, "%s", text);
        v->line_ms = now_ms;
    }
    if ((p->state == MSG_JOB_BLOCKED) != (v->blocked_ms != 0)) {
        v->waited_ms += v->blocked_ms ? now_ms - v->blocked_ms : 0;
        v->blocked_ms = v->blocked_ms ? 0 : now_ms;
    }
    tell_what_it_waits_for(v);
}

void job_view_report(const struct job_view *v, int64_t end_ms, struct report *ret)
{
    ret->progress = &v->now;
    ret->n_before = v->n_before;
    ret->n_redone_before = v->n_redone_before;
    ret->elapsed_ms = end_ms - v->start_ms;
    ret->waited_ms = v->waited_ms + (v->blocked_ms ? end_ms - v->blocked_ms : 0);
}
