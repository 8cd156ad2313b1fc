/* submit_dry_run.c - `submit --dry-run`: the plan, and how much time and disk the job would take at the broker. */
#include "client/submit.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "client/broker_client.h"
#include "client/estimate.h"
#include "client/import.h"
#include "client/plan_show.h"
#include "client/progress.h"
#include "client/source_notes.h"
#include "console/answer.h"
#include "console/printable.h"
#include "job/passed_over.h"
#include "wire/client_fleet.h"

struct look {
    const struct submit_options *o;
    struct broker_client broker;
    struct import import;
    struct client_fleet fleet;
    struct estimate estimate;
};

static int walk(struct look *l, struct err *err)
{
    bool more = true;
    struct buf rows;
    uint32_t n;
    int rc = import_open_feed(&l->import, NULL, err);

    buf_init(&rows, MSG_MAX_ROW_FRAME_BYTES);
    while (rc == 0 && more) {
        rc = feed_next(l->import.feed, &rows, &n, &more, err);
        if (rc == 0)
            rc = broker_client_pause(&l->broker, 0);
    }
    buf_release(&rows);
    return rc;
}

static int ask_fleet(struct client_session *s, void *arg, struct err *err)
{
    struct look *l = arg;

    return client_session_fleet(s, &l->fleet, err);
}

/* -- as text -- */

static void show_stage(const struct estimate_stage *s)
{
    char rate[PROGRESS_RATE_SIZE];

    printf("#   %-8s %s: ", stage_name(s->node->stage), s->node->model);
    if (!s->fleet)
        puts("no worker that could do it takes work");
    else if (s->items_per_s > 0)
        printf("%u worker%s, %s img/s while busy\n", s->fleet->n_able, cli_s(s->fleet->n_able),
               progress_rate_text(s->items_per_s, rate));
    else
        printf("%u worker%s, speed unknown: no picture done yet\n", s->fleet->n_able, cli_s(s->fleet->n_able));
}

static void say_time(struct look *l)
{
    const struct estimate *e = &l->estimate;
    char duration[PROGRESS_DURATION_SIZE];

    if (!e->slowest)
        terminal_note(&l->broker.terminal, "time: unknown, since the speed of some stage is not known");
    else
        terminal_note(&l->broker.terminal,
                      "time: about %s, if no other job needs these workers (%u job%s open); the slowest stage is %s",
                      progress_duration((int64_t)(e->seconds * 1000), duration), l->fleet.totals.n_jobs,
                      l->fleet.totals.n_jobs == 1 ? " is" : "s are", stage_name(e->slowest->node->stage));
}

static void say_disk(struct look *l, uint64_t results, uint64_t pictures)
{
    const uint64_t room = l->fleet.totals.disk_room;
    char need[32], send[32], have[32];

    terminal_note(&l->broker.terminal, "disk: the results take about %s, and the broker's disk has room for %s",
                  printable_size(results, need), printable_size(room, have));
    if (l->o->push)
        terminal_note(&l->broker.terminal, "--push: the pictures take %s there until they are done%s",
                      printable_size(pictures, send),
                      pictures > room ? "; once the disk is full, the others are sent as workers finish pictures" : "");
}

static int show(struct look *l, struct err *err)
{
    const struct feed_counts *c = feed_counts(l->import.feed);
    const uint64_t n = c->n_walked;
    char size[32];

    if (plan_show(l->o->job.plan, NULL, l->o->job.recipe, stdout) < 0)
        return err_set(err, -ENOMEM, "no memory for the plan");
    puts("\n# workers of the broker");
    for (size_t i = 0; i < l->estimate.n; i++)
        show_stage(&l->estimate.stages[i]);
    (void)fflush(stdout);
    source_notes(&l->import, &(const struct msg_compared){0}, "the job");
    say_time(l);
    say_disk(l, import_disk_bytes(&l->import), c->n_bytes);
    terminal_note(&l->broker.terminal, "%" PRIu64 " picture%s, %s. Nothing was submitted (--dry-run)", n, cli_s(n),
                  printable_size(c->n_bytes, size));
    return 0;
}

/* -- as JSON -- */

static json_t *stage_json(const struct estimate_stage *s)
{
    return json_pack("{s:s, s:s, s:i, s:o}", "stage", stage_name(s->node->stage), "model", s->node->model, "workers",
                     s->fleet ? (int)s->fleet->n_able : 0, "items_per_s",
                     s->items_per_s > 0 ? json_real(s->items_per_s) : json_null());
}

static int print_json(struct look *l, struct err *err)
{
    const struct feed_counts *c = feed_counts(l->import.feed);
    json_t *all = plan_json(l->o->job.plan, NULL), *fleet = json_array(), *more;
    struct passed_over passed;

    passed_over_of_walk(&c->skipped, &passed);
    for (size_t i = 0; i < l->estimate.n; i++)
        (void)json_array_append_new(fleet, stage_json(&l->estimate.stages[i]));
    more = json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:o}", "pictures", (json_int_t)c->n_walked, "bytes",
                     (json_int_t)c->n_bytes, "fleet", fleet, "seconds",
                     l->estimate.slowest ? json_real(l->estimate.seconds) : json_null(), "result_bytes",
                     (json_int_t)import_disk_bytes(&l->import), "disk_room", (json_int_t)l->fleet.totals.disk_room,
                     "passed_over", passed_over_json(&passed));
    if (!all || !more || json_object_update(all, more) < 0) {
        json_decref(all);
        json_decref(more);
        return err_set(err, -ENOMEM, "no memory for the answer");
    }
    json_decref(more);
    answer_print("dry-run", all, JSON_REAL_PRECISION(9));
    (void)fflush(stdout);
    return 0;
}

/* -- both -- */

static int look(struct look *l, struct err *err)
{
    uint64_t results;
    char need[32], have[32];
    int rc = walk(l, err);

    if (rc == 0)
        rc = broker_client_ask(&l->broker, ask_fleet, l, err);
    if (rc < 0)
        return rc;
    results = import_disk_bytes(&l->import);
    estimate_make(l->o->job.plan, feed_counts(l->import.feed)->n_walked, l->fleet.stages, l->fleet.n_stages,
                  &l->estimate);
    if (results > l->fleet.totals.disk_room)
        return err_set(err, -ENOSPC,
                       "the results take about %s, and the broker's disk has room for %s: make room there, or submit "
                       "fewer pictures",
                       printable_size(results, need), printable_size(l->fleet.totals.disk_room, have));
    return l->o->json ? print_json(l, err) : show(l, err);
}

int submit_dry_run(const struct submit_options *o)
{
    static struct look l; /* large for a stack */
    struct err err = {""};
    int rc;

    l = (struct look){.o = o, .import = {.o = &o->job, .terminal = &l.broker.terminal, .error_exit = CLI_EXIT_ERROR}};
    rc = broker_client_init(&l.broker, "submit", o->broker, &err);
    if (rc == 0)
        rc = look(&l, &err);
    l.broker.error_exit = l.import.error_exit;
    rc = rc < 0 ? broker_client_fail(&l.broker, rc, &err) : CLI_EXIT_OK;
    import_release(&l.import);
    client_fleet_release(&l.fleet);
    broker_client_release(&l.broker);
    return rc;
}
