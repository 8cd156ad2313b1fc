#include "local/daemons.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "local/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* True for exit codes (base/log.h) that a restart cannot change. */
static bool is_hopeless(int status)
{
    return WIFEXITED(status) &&
           (WEXITSTATUS(status) == EXIT_USAGE || WEXITSTATUS(status) == EXIT_CONFIG || WEXITSTATUS(status) == 127);
}

static int write_config(const struct daemons_child *c, const struct buf *text, struct err *err)
{
    return file_write_atomic(c->config, text->data, text->size_bytes, err);
}

static int null_text(const struct plan_worker *w, struct buf *ret)
{
    int rc = buf_appendf(ret, "dtype = %s\n", dtype_word(w->dtype ? w->dtype : DTYPE_F32));

    if (rc < 0 || w->stage == STAGE_LLM)
        return rc;
    return buf_appendf(ret, "null_shape = %d,%d\n", w->rows, w->width);
}

/* The worker chooses sizes of batches and windows to suit its device. */
static int cuda_text(const struct daemons *d, const struct daemons_child *c, struct buf *ret, struct err *err)
{
    char library[PATH_MAX];
    int rc = buf_appendf(ret, "memory_share = %.3f\ntf32 = no\n", c->place->memory_share);

    if (rc < 0 || !d->conf.placement->devices->library[0])
        return rc;
    rc = rundir_plain_path(d->rundir, d->conf.placement->devices->library, "cuda-library", library, sizeof(library),
                           err);
    return rc < 0 ? rc : buf_appendf(ret, "cuda_library = %s\n", library);
}

static int model_text(const struct daemons *d, const struct daemons_child *c, struct buf *ret, struct err *err)
{
    const struct plan_worker *w = c->place->worker;
    char model[PATH_MAX], link[64];
    int rc;

    (void)snprintf(link, sizeof(link), "%s.model", w->name);
    rc = rundir_plain_path(d->rundir, w->model_dir, link, model, sizeof(model), err);
    if (rc == 0)
        rc = buf_appendf(ret, "model = %s\ndtype = %s\n", model, dtype_word(w->dtype));
    if (rc == 0 && w->stage == STAGE_LLM)
        rc = buf_appendf(ret, "positions = %d\n", w->n_positions);
    return rc;
}

static int encoder_text(const struct daemons *d, const struct daemons_child *c, struct buf *ret)
{
    const struct daemons_conf *conf = &d->conf;
    int rc = buf_appendf(ret, "decode_threads = %d\nexif_orientation = %s\ngrey16_high_byte = %s\n",
                         c->place->n_decode_threads, conf->recipe->exif_orientation ? "yes" : "no",
                         conf->recipe->grey16_high_byte ? "yes" : "no");

    if (rc == 0 && conf->max_pixels)
        rc = buf_appendf(ret, "max_pixels = %" PRId64 "\n", conf->max_pixels);
    if (rc == 0 && conf->max_file_bytes)
        rc = buf_appendf(ret, "max_file_bytes = %" PRId64 "\n", conf->max_file_bytes);
    return rc;
}

static int worker_text(const struct daemons *d, const struct daemons_child *c, struct buf *ret, struct err *err)
{
    const struct place *p = c->place;
    int rc = buf_appendf(ret, "device = %s\nthreads = %d\n", p->device, p->n_threads);

    if (rc == 0 && d->conf.placement->devices->cpu_isa != CPU_ISA_AUTO)
        rc = buf_appendf(ret, "cpu_isa = %s\n", cpu_isa_name(d->conf.placement->devices->cpu_isa));
    if (rc == 0 && p->worker->stage == STAGE_ENCODE)
        rc = encoder_text(d, c, ret);
    if (rc == 0)
        rc = p->worker->model_dir[0] ? model_text(d, c, ret, err) : null_text(p->worker, ret);
    if (rc == 0 && p->memory_share > 0)
        rc = cuda_text(d, c, ret, err);
    return rc;
}

static int config_text(const struct daemons *d, const struct daemons_child *c, struct buf *ret, struct err *err)
{
    int rc = buf_appendf(ret, "endpoint = ipc://%s/broker\nlog_level = %s\n", d->rundir->path,
                         d->conf.verbose ? "debug" : "info");

    return rc < 0 || !c->place ? rc : worker_text(d, c, ret, err);
}

static const char *program_name(const struct daemons_child *c)
{
    return c->place ? place_program(c->place->worker->stage) : "blipline-broker";
}

static int prepare(struct daemons *d, struct daemons_child *c, struct err *err)
{
    char name[64];
    struct buf text;
    int rc;

    rc = spawn_find(program_name(c), c->program, sizeof(c->program), err);
    if (rc < 0)
        return rc;
    (void)snprintf(name, sizeof(name), "%s.conf", c->name);
    (void)rundir_file(d->rundir, name, c->config, sizeof(c->config));
    (void)snprintf(name, sizeof(name), "%s.log", c->name);
    (void)rundir_file(d->rundir, name, c->log, sizeof(c->log));
    c->log_fd = open(c->log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (c->log_fd < 0)
        return err_set(err, -errno, "%s: %s", c->log, strerror(errno));
    buf_init(&text, 1 << 16);
    rc = config_text(d, c, &text, err);
    if (rc == 0)
        rc = write_config(c, &text, err);
    buf_release(&text);
    return rc;
}

int daemons_init(struct daemons *d, const struct rundir *r, const struct daemons_conf *conf, struct terminal *terminal,
                 struct err *err)
{
    *d = (struct daemons){.rundir = r, .terminal = terminal, .conf = *conf};
    d->children[d->n_children++] = (struct daemons_child){.name = "broker", .log_fd = -1};
    for (int i = 0; i < conf->placement->n; i++)
        d->children[d->n_children++] = (struct daemons_child){
            .name = conf->placement->list[i].name, .place = &conf->placement->list[i], .log_fd = -1};
    for (int i = 0; i < d->n_children; i++) {
        int rc = prepare(d, &d->children[i], err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int start_one(struct daemons_child *c, struct err *err)
{
    const char *args[] = {c->program, "-f", c->config, NULL};
    struct spawn s = {.program = c->program, .args = args, .out_fd = -1, .log_fd = c->log_fd};
    int rc = spawn_start(&s, &c->pid, err);

    if (rc < 0)
        return rc;
    c->n_starts++;
    c->killed = false;
    return 0;
}

int daemons_start_broker(struct daemons *d, struct err *err)
{
    return d->children[0].n_starts ? 0 : start_one(&d->children[0], err);
}

int daemons_start_workers(struct daemons *d, struct err *err)
{
    int rc = 0;

    for (int i = 1; rc == 0 && i < d->n_children; i++)
        rc = d->children[i].n_starts ? 0 : start_one(&d->children[i], err);
    return rc;
}

/* The last `max_lines` lines of the log. */
static void show_log_end(struct daemons *d, const struct daemons_child *c, int max_lines)
{
    char tail[4096];
    struct stat st;
    off_t from;
    ssize_t n;
    char *start;

    if (c->log_fd < 0 || fstat(c->log_fd, &st) < 0)
        return;
    from = st.st_size > (off_t)sizeof(tail) - 1 ? st.st_size - (off_t)sizeof(tail) + 1 : 0;
    n = pread(c->log_fd, tail, sizeof(tail) - 1, from);
    if (n <= 0)
        return;
    if (tail[n - 1] != '\n')
        tail[n++] = '\n';
    start = tail + n - 1;
    while (start > tail && max_lines > 0) {
        start--;
        if (*start == '\n')
            max_lines--;
    }
    if (*start == '\n' && start < tail + n - 1)
        start++;
    terminal_copy(d->terminal, start, (size_t)(tail + n - start));
}

static unsigned recent_deaths(const struct daemons_child *c, int64_t now_ms)
{
    unsigned n = 0;

    for (unsigned i = 0; i < DAEMONS_MAX_DEATHS && i < c->n_deaths; i++)
        n += c->deaths_ms[i] > now_ms - DAEMONS_DEATH_WINDOW_MS;
    return n;
}

/* The latest death that counts; false if none does. */
static bool forgive_one(struct daemons_child *c)
{
    int64_t *latest = &c->deaths_ms[0];

    for (int i = 1; i < DAEMONS_MAX_DEATHS; i++)
        latest = c->deaths_ms[i] > *latest ? &c->deaths_ms[i] : latest;
    if (*latest <= 0)
        return false;
    *latest = INT64_MIN;
    return true;
}

/* The broker may report a death before it is reaped here. */
static void forgive_deaths(struct daemons *d, enum stage stage)
{
    for (int i = 1; i < d->n_children; i++)
        while (d->children[i].place->worker->stage == stage && d->n_to_forgive[stage] > 0 &&
               forgive_one(&d->children[i]))
            d->n_to_forgive[stage]--;
}

/* Decide whether to restart it. */
static bool has_hope(const struct daemons_child *c, int status, unsigned n_recent)
{
    return n_recent < DAEMONS_MAX_DEATHS && c->n_failed_starts < DAEMONS_MAX_FAILED_STARTS && !is_hopeless(status);
}

static int note_death(struct daemons *d, struct daemons_child *c, int status, int64_t now_ms, struct err *err)
{
    char how[64];
    unsigned n;
    int64_t wait_ms;

    c->pid = 0;
    if (d->stopping || c->dismissed)
        return 0;
    (void)spawn_status_text(status, how, sizeof(how));
    c->deaths_ms[c->n_deaths++ % DAEMONS_MAX_DEATHS] = now_ms;
    c->n_failed_starts = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_INIT ? c->n_failed_starts + 1 : 0;
    if (c->place)
        forgive_deaths(d, c->place->worker->stage);
    n = recent_deaths(c, now_ms);
    if (!has_hope(c, status, n)) {
        d->gave_up = true;
        terminal_note(d->terminal, "the %s %s; the end of its log, %s (kept until the next run):", c->name, how,
                      c->log);
        show_log_end(d, c, 12);
        if (is_hopeless(status) || c->n_failed_starts == DAEMONS_MAX_FAILED_STARTS)
            return err_set(err, -EIO, "the %s does not start", c->name);
        return err_set(err, -EIO, "the %s died %u times in %d s", c->name, n, DAEMONS_DEATH_WINDOW_MS / 1000);
    }
    wait_ms = 100 << n;
    c->restart_ms = now_ms + wait_ms;
    terminal_note(d->terminal, "the %s %s; starting another one, nothing is lost", c->name, how);
    return 0;
}

int daemons_reap(struct daemons *d, int64_t now_ms, struct err *err)
{
    for (int i = 0; i < d->n_children; i++) {
        struct daemons_child *c = &d->children[i];
        int status, rc;

        if (c->pid <= 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
            continue;
        rc = note_death(d, c, status, now_ms, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void copy_log(struct daemons *d, struct daemons_child *c)
{
    char text[4096];
    ssize_t n;

    /* Whole lines only, unless a line is longer than the buffer. */
    while ((n = pread(c->log_fd, text, sizeof(text), c->log_read)) > 0) {
        ssize_t end = n;

        while (end > 0 && text[end - 1] != '\n')
            end--;
        if (end == 0 && n < (ssize_t)sizeof(text))
            return;
        if (end == 0)
            end = n;
        terminal_copy(d->terminal, text, (size_t)end);
        c->log_read += end;
    }
}

int daemons_tick(struct daemons *d, int64_t now_ms, int64_t *ret_next_ms, struct err *err)
{
    int64_t next_ms = INT64_MAX;

    for (int i = 0; i < d->n_children; i++) {
        struct daemons_child *c = &d->children[i];

        if (d->conf.verbose && c->log_fd >= 0)
            copy_log(d, c);
        if (c->pid > 0 || c->n_starts == 0 || d->stopping || c->dismissed)
            continue;
        if (c->restart_ms <= now_ms) {
            int rc = start_one(c, err);

            if (rc < 0)
                return rc;
        } else if (c->restart_ms < next_ms) {
            next_ms = c->restart_ms;
        }
    }
    *ret_next_ms = next_ms;
    return 0;
}

void daemons_dismiss_encoders(struct daemons *d)
{
    for (int i = 1; i < d->n_children; i++) {
        struct daemons_child *c = &d->children[i];

        if (c->place->worker->stage != STAGE_ENCODE)
            continue;
        c->dismissed = true;
        if (c->pid > 0)
            (void)kill(c->pid, SIGTERM);
    }
}

void daemons_forgive(struct daemons *d, enum stage stage, uint64_t n_isolations)
{
    if (n_isolations > d->n_isolations[stage])
        d->n_to_forgive[stage] += n_isolations - d->n_isolations[stage];
    d->n_isolations[stage] = n_isolations; /* a new broker counts from 0 */
    forgive_deaths(d, stage);
}

void daemons_kill_hung(struct daemons *d, const struct msg_hung_worker *hung, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (int k = 1; k < d->n_children; k++) {
            struct daemons_child *c = &d->children[k];

            if (c->pid <= 0 || c->killed || (uint32_t)c->pid != hung[i].pid)
                continue;
            terminal_note(d->terminal, "the %s hangs (%s); ending it", c->name, hung[i].text);
            c->killed = true;
            (void)kill(c->pid, SIGKILL);
        }
}

void daemons_expect_end(struct daemons *d)
{
    d->stopping = true;
}

unsigned daemons_running(const struct daemons *d)
{
    unsigned n = 0;

    for (int i = 0; i < d->n_children; i++)
        n += d->children[i].pid > 0;
    return n;
}

void daemons_signal(const struct daemons *d, bool broker_too, int signal_number)
{
    for (int i = broker_too ? 0 : 1; i < d->n_children; i++) {
        if (d->children[i].pid > 0)
            (void)kill(d->children[i].pid, signal_number);
    }
}

void daemons_release(struct daemons *d)
{
    d->stopping = true;
    daemons_signal(d, true, SIGKILL);
    for (int i = 0; i < d->n_children; i++) {
        struct daemons_child *c = &d->children[i];

        if (c->pid > 0)
            (void)waitpid(c->pid, NULL, 0);
        c->pid = 0;
        if (d->conf.verbose && c->log_fd >= 0)
            copy_log(d, c);
        if (c->log_fd >= 0)
            (void)close(c->log_fd);
        c->log_fd = -1;
    }
}

unsigned daemons_broker_starts(const struct daemons *d)
{
    return d->children[0].n_starts;
}
