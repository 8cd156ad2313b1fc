#include "client/report.h"

#include "console/answer.h"
#include "console/cli.h"
#include "client/progress.h"
#include "console/shell.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static uint64_t n_again_this_run(const struct report *r)
{
    return r->progress->n_redone > r->n_redone_before ? r->progress->n_redone - r->n_redone_before : 0;
}

static uint64_t n_this_run(const struct report *r)
{
    return (r->progress->n_done > r->n_before ? r->progress->n_done - r->n_before : 0) + n_again_this_run(r);
}

static double rate(const struct report *r)
{
    const int64_t ms = r->elapsed_ms - r->waited_ms;

    return ms > 0 ? (double)n_this_run(r) * 1000 / (double)ms : 0;
}

static uint64_t busy_sum(const struct msg_job_progress *p)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < p->n_stages; i++)
        sum += p->stages[i].busy_ns;
    return sum;
}

const char *report_stage_label(const struct msg_job_progress *p, uint32_t node, char ret[REPORT_LABEL_SIZE])
{
    const char *name = stage_name(p->stages[node].stage), *whose = "";

    for (uint32_t i = 0; i < node; i++)
        if (p->stages[i].stage == p->stages[node].stage)
            whose = "score-";
    (void)snprintf(ret, REPORT_LABEL_SIZE, "%s%s", whose, name);
    return ret;
}

static void stage_words(const struct report *r, struct terminal *s)
{
    const struct msg_job_progress *p = r->progress;
    uint64_t sum = busy_sum(p);
    char text[512] = "";

    if (sum == 0)
        return;
    for (uint32_t i = 0; i < p->n_stages; i++) {
        const struct msg_stage_progress *g = &p->stages[i];
        size_t n = strlen(text);
        char label[REPORT_LABEL_SIZE];

        (void)snprintf(text + n, sizeof(text) - n, "%s%s %.2f s (%.0f %%)", i ? ", " : "",
                       report_stage_label(p, i, label), (double)g->busy_ns / 1e9,
                       (double)g->busy_ns * 100 / (double)sum);
        n = strlen(text);
        if (g->decode_ns || g->resize_ns)
            (void)snprintf(text + n, sizeof(text) - n, " + decoding %.2f s, resizing %.2f s",
                           (double)g->decode_ns / 1e9, (double)g->resize_ns / 1e9);
    }
    terminal_note(s, "busy: %s", text);
}

/* "0.8 s", "3m07s" */
static void elapsed_text(int64_t ms, char ret[PROGRESS_DURATION_SIZE])
{
    if (ms < 60000)
        (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%.1f s", (double)ms / 1000);
    else
        (void)progress_duration(ms, ret);
}

static void say_how_to_read(const struct report *r, struct terminal *s)
{
    const struct msg_recipe *recipe = r->recipe;
    const char *kind = recipe->n_embeddings ? msg_embedding_name(recipe->embeddings[0].kind) : NULL;
    char command[SHELL_SIZE];

    (void)shell_command("export", r->store, command, sizeof(command));
    if (recipe->decode.max_new_tokens || recipe->n_text_fields)
        terminal_note(s, "read them with: %s --format jsonl%s", command, recipe->itm ? " (--best-of itm chooses)" : "");
    if (kind)
        terminal_note(s, "read embeddings with: %s --embedding %s -o %s.npy", command, kind, kind);
}

/* A failure does not replace a record. */
static void say_what_is_left(const struct report *r, struct terminal *s)
{
    const uint64_t n = r->progress->n_again;

    if (r->done && n)
        terminal_note(
            s, "%" PRIu64 " item%s could not be done again; the record%s stay%s, and the next run tries once more", n,
            cli_s(n), cli_s(n), n == 1 ? "s" : "");
}

void report_words(const struct report *r, struct terminal *s)
{
    const struct msg_job_progress *p = r->progress;
    uint64_t n = n_this_run(r), n_again = n_again_this_run(r), n_good = p->n_done - p->n_again;
    char took[PROGRESS_DURATION_SIZE], speed[PROGRESS_RATE_SIZE], again[48] = "", command[SHELL_SIZE];
    char waited[PROGRESS_DURATION_SIZE], stats[SHELL_SIZE + 8] = "";

    if (p->n_failed && !r->job)
        (void)snprintf(stats, sizeof(stats), ": %s", shell_command("stats", r->store, command, sizeof(command)));
    if (n == 0 && r->job && r->done) {
        terminal_note(s, "%s: %" PRIu64 " of %" PRIu64 " items done", r->store, n_good, p->n_items);
        if (p->n_failed)
            terminal_note(s, "%" PRIu64 " item%s failed", p->n_failed, cli_s(p->n_failed));
        say_what_is_left(r, s);
        return;
    }
    if (n == 0) {
        if (r->done && p->n_again == 0)
            terminal_note(s, "%s: nothing to do, %" PRIu64 " item%s done%s%s%s", r->store, p->n_done,
                          cli_are(p->n_done), p->n_failed ? " (some failed" : "", stats, p->n_failed ? ")" : "");
        else
            terminal_note(s, "%s: %" PRIu64 " of %" PRIu64 " items done, none in this run", r->store, n_good,
                          p->n_items);
        say_what_is_left(r, s);
        return;
    }
    elapsed_text(r->elapsed_ms - r->waited_ms, took);
    elapsed_text(r->waited_ms, waited);
    if (n_again)
        (void)snprintf(again, sizeof(again), " (%" PRIu64 " of them once more)", n_again);
    terminal_note(s, "%s: %" PRIu64 " of %" PRIu64 " items done, %" PRIu64 " in this run%s in %s%s%s (%s img/s)",
                  r->store, n_good, p->n_items, n, again, took, r->waited_ms ? " and a wait of " : "",
                  r->waited_ms ? waited : "", progress_rate_text(rate(r), speed));
    stage_words(r, s);
    if (p->n_failed && r->job)
        terminal_note(s, "%" PRIu64 " item%s failed", p->n_failed, cli_s(p->n_failed));
    else if (p->n_failed)
        terminal_note(s, "%" PRIu64 " item%s failed; `%s` counts the reasons", p->n_failed, cli_s(p->n_failed),
                      shell_command("stats", r->store, command, sizeof(command)));
    say_what_is_left(r, s);
    if (r->done && !r->job)
        say_how_to_read(r, s);
}

static json_t *stage_json(const struct msg_job_progress *p, uint32_t node, uint64_t sum)
{
    const struct msg_stage_progress *g = &p->stages[node];
    char label[REPORT_LABEL_SIZE];

    return json_pack(
        "{s:s, s:I, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "stage",
        report_stage_label(p, node, label), "items", (json_int_t)g->items_done, "workers", (int)g->workers, "benched",
        (int)g->benched, "units_ready", (int)g->units_ready, "units_leased", (int)g->units_leased, "busy_s",
        (double)g->busy_ns / 1e9, "share", sum ? (double)g->busy_ns / (double)sum : 0.0, "decode_s",
        (double)g->decode_ns / 1e9, "resize_s", (double)g->resize_ns / 1e9, "failures", (json_int_t)g->failures,
        "lease_expiries", (json_int_t)g->lease_expiries, "bad_results", (json_int_t)g->bad_results, "returns",
        (json_int_t)g->returns, "tensors_refused", (json_int_t)g->tensors_refused, "stalls", (json_int_t)g->stalls);
}

static json_t *broker_json(const struct msg_job_progress *p)
{
    const struct msg_broker_counters *c = &p->broker;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "late",
                     (json_int_t)c->late, "strangers", (json_int_t)c->strangers, "malformed", (json_int_t)c->malformed,
                     "bad_messages", (json_int_t)c->bad_messages, "refusals", (json_int_t)c->refusals, "benches",
                     (json_int_t)c->benches, "cut_off", (json_int_t)c->cut_off, "splits", (json_int_t)c->splits, "lost",
                     (json_int_t)c->lost, "closed", (json_int_t)c->closed, "turned_away", (json_int_t)c->turned_away,
                     "keys_accepted", (json_int_t)c->keys_accepted, "keys_denied", (json_int_t)c->keys_denied,
                     "handshakes_bad", (json_int_t)c->handshakes_bad, "handshakes_unfinished",
                     (json_int_t)c->handshakes_unfinished);
}

struct json_t *report_stages_json(const struct msg_job_progress *p)
{
    json_t *stages = json_array();

    for (uint32_t i = 0; i < p->n_stages; i++)
        (void)json_array_append_new(stages, stage_json(p, i, busy_sum(p)));
    return stages;
}

void report_json(const struct report *r)
{
    const struct msg_job_progress *p = r->progress;
    json_t *all =
        json_pack("{s:b, s:s*, s:s*, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:f, s:f, s:f, s:o, s:o}", "complete",
                  r->done && !passed_over_is_incomplete(&r->passed_over), "paused", r->paused, "waiting_for",
                  !r->done && !r->paused && p->text[0] ? p->text : NULL, "items", (json_int_t)p->n_items, "done",
                  (json_int_t)p->n_done, "failed", (json_int_t)p->n_failed, "given_up", (json_int_t)p->n_given_up,
                  "this_run", (json_int_t)n_this_run(r), "done_again", (json_int_t)n_again_this_run(r), "to_do_again",
                  (json_int_t)p->n_again, "passed_over", passed_over_json(&r->passed_over), "seconds",
                  (double)r->elapsed_ms / 1000, "waited_s", (double)r->waited_ms / 1000, "images_per_s", rate(r),
                  "stages", report_stages_json(p), "broker", broker_json(p));
    if (r->job)
        (void)json_object_set_new(all, "job", json_integer((json_int_t)r->job));
    answer_print(r->command, all, JSON_REAL_PRECISION(9));
    (void)fflush(stdout);
}

int report_exit_code(const struct report *r)
{
    return r->progress->n_failed || r->progress->n_again || passed_over_is_incomplete(&r->passed_over)
               ? CLI_EXIT_FAILED_ITEMS
               : CLI_EXIT_OK;
}
