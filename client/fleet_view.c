#include "client/fleet_view.h"

#include "base/dtype.h"
#include "client/bottleneck.h"
#include "client/job_row.h"
#include "client/progress.h"
#include "console/cli.h"
#include "console/printable.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE = 132, TEXT_SIZE = 4096, CELL_SIZE = 512, INDENT = 8, MOST_BOTTLENECKS = 4 };

struct page {
    struct buf *out;
    unsigned columns; /* 0: lines are not cut */
    unsigned room;    /* lines left */
    int rc;
};

/* -- lines -- */

/* Where character `n` of the text begins, or its end. */
static size_t offset_of(const char *text, size_t n)
{
    size_t at = 0;

    for (; text[at]; at++)
        if (((unsigned char)text[at] & 0xc0) != 0x80 && n-- == 0)
            break;
    return at;
}

static size_t length_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void put_line(struct page *p, const char *text)
{
    size_t n = p->columns ? offset_of(text, p->columns) : strlen(text);

    while (n > 0 && text[n - 1] == ' ')
        n--;
    if (p->rc < 0 || p->room == 0)
        return;
    p->room--;
    p->rc = buf_append(p->out, text, n);
    if (p->rc == 0)
        p->rc = buf_append(p->out, "\n", 1);
}

static void put(struct page *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void put(struct page *p, const char *fmt, ...)
{
    char text[TEXT_SIZE];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    put_line(p, text);
}

/* A text of somebody else, printable, cut and filled to `width` characters. Returns `ret`. */
static const char *cell(const char *text, unsigned width, char ret[CELL_SIZE])
{
    size_t at;

    (void)printable_text(text, strlen(text), ret, CELL_SIZE / 2);
    at = offset_of(ret, width);
    ret[at] = '\0';
    for (size_t n = length_of(ret); n < width && at + 1 < CELL_SIZE; n++)
        ret[at++] = ' ';
    ret[at] = '\0';
    return ret;
}

/* Text of somebody else, wrapped, with `indent` spaces before each line but the first, which has `first`. Returns how
 * many lines it takes; `p` NULL: they are only counted. */
static unsigned put_wrapped(struct page *p, unsigned columns, int first, int indent, const char *text)
{
    const unsigned width = columns > (unsigned)indent + 20 ? columns - (unsigned)indent : 20;
    char shown[TEXT_SIZE];
    const char *at = printable_text(text, strlen(text), shown, sizeof(shown));
    unsigned n = 0;

    while (*at) {
        size_t take = columns ? offset_of(at, width) : strlen(at), end = take;

        while (at[take] && end > 0 && at[end] != ' ')
            end--;
        if (at[take] && end > 0)
            take = end;
        if (p)
            put(p, "%*s%.*s", n ? indent : first, "", (int)take, at);
        n++;
        at += take;
        at += strspn(at, " ");
    }
    return n;
}

/* Why, below a row. */
static unsigned reason(struct page *p, unsigned columns, const char *text)
{
    return put_wrapped(p, columns, INDENT, INDENT, text);
}

static const char *rate_text(uint64_t per_1000_s, char ret[PROGRESS_RATE_SIZE])
{
    return per_1000_s ? progress_rate_text((double)per_1000_s / 1000, ret) : "-";
}

static unsigned percent(uint32_t per_mille)
{
    return (per_mille + 5) / 10;
}

/* What is left of the line for a column whose width is not fixed. */
static unsigned rest(const struct page *p, unsigned fixed, unsigned least, unsigned most)
{
    const unsigned columns = p->columns ? p->columns : WIDE;
    const unsigned width = columns > fixed + 1 ? columns - fixed - 1 : 0;

    return width < least ? least : width > most ? most : width;
}

static const char *type_word(enum dtype dtype)
{
    return dtype ? dtype_word(dtype) : "-";
}

/* -- stages -- */

static void put_stages(struct page *p, const struct client_fleet *f)
{
    const unsigned width = rest(p, 53, 8, 40);
    char model[CELL_SIZE], rate[PROGRESS_RATE_SIZE];

    put(p, "%-7s %s %-5s %7s %5s %8s %7s %7s", "STAGE", cell("MODEL", width, model), "TYPE", "WORKERS", "BUSY",
        "ITEMS/S", "WAITING", "LEASED");
    for (size_t i = 0; i < f->n_stages; i++) {
        const struct row_fleet_stage *s = &f->stages[i];

        if (p->room == 1 && i + 1 < f->n_stages) {
            put(p, "... and %zu more", f->n_stages - i);
            return;
        }
        put(p, "%-7s %s %-5s %7u %4u%% %8s %7u %7u", stage_name(s->stage), cell(s->model, width, model),
            type_word(s->dtype), s->n_workers, percent(s->busy_per_mille), rate_text(s->rate, rate), s->units_ready,
            s->units_leased);
    }
}

/* -- jobs -- */

int64_t fleet_view_eta_s(const struct row_fleet_job *j)
{
    const uint64_t left = j->n_items - j->n_done + j->n_again;

    if (j->state != MSG_JOB_RUNNING || j->rate == 0 || left > INT64_MAX / 2000)
        return -1;
    return (int64_t)(left * 1000 / j->rate);
}

const char *fleet_view_job_state(const struct row_fleet_job *j)
{
    struct stored_job_entry e = {.job = j->job, .state = j->state, .wanted = j->wanted};

    (void)msg_text_set(e.text, sizeof(e.text), j->text);
    return job_row_state(&e);
}

static unsigned job_lines(const struct page *p, const struct row_fleet_job *j)
{
    return 1 + reason(NULL, p->columns, j->text);
}

static void put_job(struct page *p, const struct row_fleet_job *j, unsigned width)
{
    char name[CELL_SIZE], rate[PROGRESS_RATE_SIZE], eta[PROGRESS_DURATION_SIZE] = "-", done[48];

    if (fleet_view_eta_s(j) >= 0)
        (void)progress_duration(fleet_view_eta_s(j) * 1000, eta);
    (void)snprintf(done, sizeof(done), "%" PRIu64 "/%" PRIu64, j->n_done - j->n_again, j->n_items);
    put(p, "%-6" PRIu64 " %-10s %5u %15s %3u%% %6" PRIu64 " %8s %7s  %s", j->job, fleet_view_job_state(j), j->priority,
        done, j->n_items ? (unsigned)((double)(j->n_done - j->n_again) / (double)j->n_items * 100) : 0, j->n_failed,
        rate_text(j->rate, rate), eta, cell(j->name, width, name));
    (void)reason(p, p->columns, j->text);
}

static void put_jobs(struct page *p, const struct client_fleet *f)
{
    if (f->totals.n_jobs == 0) {
        put(p, "No job is open.");
        return;
    }
    put(p, "%-6s %-10s %5s %15s %4s %6s %8s %7s  %s", "JOB", "STATE", "PRIO", "DONE", "", "FAILED", "ITEMS/S", "ETA",
        "NAME");
    for (size_t i = 0; i < f->n_jobs; i++) {
        if (p->room < job_lines(p, &f->jobs[i]) + (i + 1 < f->n_jobs)) {
            put(p, "... and %zu more", f->n_jobs - i);
            return;
        }
        put_job(p, &f->jobs[i], rest(p, 70, 8, 40));
    }
    if (f->totals.n_other_jobs)
        put(p, "%u job%s of others", f->totals.n_other_jobs, cli_s(f->totals.n_other_jobs));
}

/* -- workers -- */

static int rank(enum msg_worker_state s)
{
    return s == MSG_WORKER_BENCHED ? 0 : s == MSG_WORKER_SILENT ? 1 : s == MSG_WORKER_DRAINING ? 2 : 3;
}

static int by_trouble(const void *a, const void *b)
{
    const struct row_fleet_worker *x = a, *y = b;
    const int hosts = strcmp(x->host, y->host);

    if (rank(x->state) != rank(y->state))
        return rank(x->state) - rank(y->state);
    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    return hosts ? hosts : x->number < y->number ? -1 : x->number > y->number;
}

static const char *bench_text(const struct row_fleet_worker *w, char *ret, size_t size)
{
    ret[0] = '\0';
    if (w->state == MSG_WORKER_BENCHED)
        (void)snprintf(ret, size, "%u failures in a row, the last: %s", w->n_bad, w->text);
    return ret;
}

static void put_worker(struct page *p, const struct row_fleet_worker *w, bool wide, unsigned width)
{
    char host[CELL_SIZE], model[CELL_SIZE], device[CELL_SIZE], text[TEXT_SIZE];
    char rate[PROGRESS_RATE_SIZE], since[PROGRESS_DURATION_SIZE], heard[PROGRESS_DURATION_SIZE], state[48], held[32];

    (void)snprintf(state, sizeof(state), "%s %s", msg_worker_state_name(w->state),
                   progress_duration((int64_t)w->state_ms, since));
    (void)snprintf(held, sizeof(held), "%u/%u", w->held_items, w->window_items);
    (void)snprintf(text, sizeof(text), "%s %-7u %-7s %s %-15s %8s %4u%% %9s", cell(w->host, 12, host), w->pid,
                   stage_name(w->stage), cell(w->model, width, model), state, rate_text(w->rate, rate),
                   percent(w->busy_per_mille), held);
    if (wide)
        put(p, "%s %s %-5s %8s %10" PRIu64, text, cell(w->device, 8, device), type_word(w->dtype),
            progress_duration((int64_t)w->heard_ms, heard), w->n_items);
    else
        put_line(p, text);
    (void)reason(p, p->columns, bench_text(w, text, sizeof(text)));
}

static void put_workers(struct page *p, struct client_fleet *f)
{
    const bool wide = p->columns == 0 || p->columns >= WIDE - 12;
    const unsigned width = rest(p, wide ? 107 : 71, 8, 40);
    char model[CELL_SIZE], text[TEXT_SIZE];

    if (f->n_workers == 0) {
        put(p, "No worker is connected.");
        return;
    }
    (void)snprintf(text, sizeof(text), "%-12s %-7s %-7s %s %-15s %8s %5s %9s%s", "HOST", "PID", "STAGE",
                   cell("MODEL", width, model), "STATE", "ITEMS/S", "BUSY", "CREDITS",
                   wide ? " DEVICE   TYPE     HEARD      ITEMS" : "");
    put_line(p, text);
    qsort(f->workers, f->n_workers, sizeof(f->workers[0]), by_trouble);
    for (size_t i = 0; i < f->n_workers; i++) {
        const unsigned n = 1 + reason(NULL, p->columns, bench_text(&f->workers[i], text, sizeof(text)));

        if (p->room < n + (i + 1 < f->n_workers)) {
            put(p, "... and %zu more", f->n_workers - i);
            return;
        }
        put_worker(p, &f->workers[i], wide, width);
    }
}

/* -- the page -- */

static void put_head(struct page *p, const struct client_fleet *f, const char *endpoint)
{
    const struct msg_fleet *t = &f->totals;
    char up[PROGRESS_DURATION_SIZE], a[32], b[32], c[32], d[32], text[BOTTLENECK_TEXT_SIZE];
    unsigned n = 0;

    put(p, "%s: up %s, %s of memory, %u worker%s, %u job%s", endpoint, progress_duration((int64_t)t->uptime_ms, up),
        printable_size(t->memory_bytes, a), t->n_workers, cli_s(t->n_workers), t->n_jobs, cli_s(t->n_jobs));
    put(p, "in flight: tensors %s of %s, results %s of %s", printable_size(t->tensor_bytes, a),
        printable_size(t->tensor_limit, b), printable_size(t->row_bytes, c), printable_size(t->row_limit, d));
    for (size_t i = 0; i < f->n_stages && n < MOST_BOTTLENECKS; i++)
        if (bottleneck_is(f->stages, f->n_stages, i)) {
            (void)put_wrapped(p, p->columns, 0, INDENT, bottleneck_text(&f->stages[i], text));
            n++;
        }
    if (n == 0 && t->n_jobs)
        put(p, "no stage is the bottleneck: none is busy all the time while units wait");
}

/* How the lines of the page are shared out. */
struct share {
    unsigned stages, jobs, workers;
};

static unsigned least(size_t a, size_t b)
{
    return (unsigned)(a < b ? a : b);
}

static struct share share_out(const struct page *p, const struct client_fleet *f)
{
    size_t jobs = 1 + (f->totals.n_other_jobs > 0), workers = 1;
    unsigned left = p->room > 3 ? p->room - 3 : 0; /* the empty lines between */
    char text[TEXT_SIZE];
    struct share ret;

    for (size_t i = 0; i < f->n_jobs; i++)
        jobs += job_lines(p, &f->jobs[i]);
    for (size_t i = 0; i < f->n_workers; i++)
        workers += 1 + reason(NULL, p->columns, bench_text(&f->workers[i], text, sizeof(text)));
    ret.stages = least(f->n_stages + 1, left / 3 > 2 ? left / 3 : 2);
    left -= least(ret.stages, left);
    ret.jobs = least(jobs, left - least(workers, left / 2));
    ret.workers = left - ret.jobs;
    return ret;
}

/* Begin with an empty line, and leave room for so many lines. Returns how many more there are. */
static unsigned begin_section(struct page *p, unsigned lines)
{
    const unsigned room = p->room;

    put_line(p, "");
    p->room = p->room < lines ? p->room : lines;
    return room > 0 ? room - 1 - p->room : 0;
}

int fleet_view_page(struct client_fleet *f, const char *endpoint, const char *note, unsigned columns, unsigned lines,
                    struct buf *ret)
{
    struct page p = {.out = ret, .columns = columns, .room = lines ? lines : UINT_MAX};
    struct share share;
    unsigned behind;

    if (note) {
        put(&p, "%s", endpoint);
        put(&p, "%s", note);
        return p.rc;
    }
    put_head(&p, f, endpoint);
    share = share_out(&p, f);
    behind = begin_section(&p, share.stages);
    put_stages(&p, f);
    p.room += behind;
    behind = begin_section(&p, share.jobs);
    put_jobs(&p, f);
    p.room += behind;
    (void)begin_section(&p, share.workers);
    put_workers(&p, f);
    return p.rc;
}
