#include "encoder_worker/decoder.h"

#include "base/clock.h"
#include "base/conf.h"
#include "base/log.h"
#include "encoder_worker/decoder_talk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 250,    /* how often a decoder that has not answered is checked */
    IDLE_SHARE = 20,  /* less CPU time than 1/IDLE_SHARE of a tick counts as idle */
    START_MS = 30000, /* for a process to start */
};

struct question {
    const uint8_t *bytes;
    size_t n;
    struct decoder_slot *slot; /* NULL: none was free */
    uint64_t serial;
    int64_t asked_ns;
    bool sent; /* to the current process */
};

struct decoder {
    struct decoder_conf *conf;
    struct decoder_memory memory;
    struct question questions[DECODER_DEPTH]; /* the first n_questions are used, oldest first; sent ones come first */
    int n_questions;
    uint64_t n_asked;
    pid_t pid; /* 0: no process; then the following fields are empty too */
    int socket;
    uint64_t n_done; /* answers of this process */
    bool is_ready, has_turn;
};

/* The outcome of an attempt. */
enum ending {
    ENDED_WELL,    /* with an answer of any kind */
    ENDED_NOT_NOW, /* it could not start: no process or no memory */
    ENDED_DEAD,
    ENDED_NONSENSE,
    ENDED_LATE,
    ENDED_MEMORY, /* the process has ended and has said why */
};

/* -- the process -- */

/* Starts this program again, with the socket and the memory as its descriptors. */
static int spawn(struct decoder *d, int theirs)
{
    static char name[] = "blipline-encoder", argument[] = DECODER_ARGUMENT;
    char *args[] = {name, argument, NULL};
    posix_spawn_file_actions_t actions;
    const int low = DECODER_MEMORY + 1;
    int socket = fcntl(theirs, F_DUPFD_CLOEXEC, low), memory = fcntl(d->memory.fd, F_DUPFD_CLOEXEC, low);
    int rc = socket < 0 || memory < 0 ? EMFILE : posix_spawn_file_actions_init(&actions);

    if (rc == 0) {
        rc = posix_spawn_file_actions_adddup2(&actions, socket, DECODER_SOCKET);
        if (rc == 0)
            rc = posix_spawn_file_actions_adddup2(&actions, memory, DECODER_MEMORY);
        if (rc == 0)
            rc = posix_spawn(&d->pid, "/proc/self/exe", &actions, NULL, args, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    if (rc != 0)
        d->pid = 0;
    if (socket >= 0)
        (void)close(socket);
    if (memory >= 0)
        (void)close(memory);
    return -rc;
}

/* Kills the process and waits for it. Returns its wait status. */
static int stop(struct decoder *d)
{
    int status = 0;

    if (d->pid) {
        (void)kill(d->pid, SIGKILL); /* a process that is already dead keeps its status */
        while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    if (d->has_turn)
        (void)pthread_mutex_unlock(&d->conf->giants);
    if (d->socket >= 0)
        (void)close(d->socket);
    d->pid = 0;
    d->socket = -1;
    d->n_done = 0;
    for (int i = 0; i < d->n_questions; i++)
        d->questions[i].sent = false;
    d->is_ready = d->has_turn = false;
    return status;
}

static int start(struct decoder *d, struct err *err)
{
    const struct decoder_setup setup = {
        .layout = d->memory.layout, .options = d->conf->options, .memory_bytes = d->conf->memory_bytes};
    const struct timeval tick = {.tv_usec = TICK_MS * 1000};
    int ends[2], rc = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 ? -errno : 0;

    if (rc == 0) {
        d->socket = ends[0];
        rc = setsockopt(d->socket, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof(tick)) < 0 ? -errno : spawn(d, ends[1]);
        (void)close(ends[1]);
    }
    if (rc == 0 && send(d->socket, &setup, sizeof(setup), MSG_NOSIGNAL) != (ssize_t)sizeof(setup))
        rc = -errno;
    if (rc == 0)
        return 0;
    (void)stop(d);
    return err_set(err, rc, "cannot start a decoder process: %s", strerror(-rc));
}

/* -- its answers -- */

/* Replaces unprintable bytes: a process that an image has taken over may send anything. */
static void clean_text(struct err *e)
{
    e->text[sizeof(e->text) - 1] = '\0';
    for (char *c = e->text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

static bool is_sound(const struct decoder *d, const struct decoder_answer *a)
{
    switch (a->kind) {
    case DECODER_READY:
        return !d->is_ready;
    case DECODER_GIANT:
        return d->is_ready && !d->has_turn && a->serial == d->questions[0].serial;
    case DECODER_DONE:
        return d->is_ready && a->serial == d->questions[0].serial && a->code < IMAGE_N_ERRORS &&
               (a->code != IMAGE_OK || (a->width && a->height && a->width <= DECODE_MAX_DIMENSION &&
                                        a->height <= DECODE_MAX_DIMENSION && !a->message.text[0])) &&
               (a->code == IMAGE_OK || a->code == IMAGE_NO_MEMORY || a->message.text[0]);
    default:
        return false;
    }
}

static int64_t cpu_ms(pid_t pid)
{
    clockid_t clock;
    struct timespec t;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
        return 0;
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Limits CPU time, so that the kernel ends a runaway decoder even if the encoder dies or is stopped. */
static void limit_cpu(const struct decoder *d, rlim_t seconds)
{
    struct rlimit r;

    if (prlimit(d->pid, RLIMIT_CPU, NULL, &r) < 0)
        return;
    r.rlim_cur = seconds < r.rlim_max ? seconds : r.rlim_max;
    (void)prlimit(d->pid, RLIMIT_CPU, &r, NULL);
}

/* The time spent on an image: CPU time, or wall time while the process is idle. Time in which the process waits for
 * a CPU on a busy machine does not count, nor does time in which the encoder was stopped. */
struct watch {
    int64_t cpu_ms, spent_ms;
};

static void watch_tick(const struct decoder *d, struct watch *w)
{
    const int64_t now = cpu_ms(d->pid), moved = now - w->cpu_ms;

    if (w->spent_ms == 0)
        limit_cpu(d, (rlim_t)((now + d->conf->time_ms) / 1000 + 2));
    w->spent_ms += w->spent_ms == 0 || moved < TICK_MS / IDLE_SHARE ? TICK_MS : moved;
    w->cpu_ms = now;
}

/* Reads the next answer. -ETIMEDOUT; -EPIPE: the process has ended; -EBADMSG: the answer is malformed. */
static int hear(struct decoder *d, int64_t limit_ms, struct watch *w, struct decoder_answer *ret)
{
    for (;;) {
        const ssize_t n = recv(d->socket, ret, sizeof(*ret), MSG_TRUNC);

        if (n == (ssize_t)sizeof(*ret)) {
            clean_text(&ret->message);
            return is_sound(d, ret) ? 0 : -EBADMSG;
        }
        if (n > 0)
            return -EBADMSG;
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return -EPIPE;
        watch_tick(d, w);
        atomic_fetch_add_explicit(&d->conf->ticks, 1, memory_order_relaxed);
        if (w->spent_ms >= limit_ms)
            return -ETIMEDOUT;
    }
}

static int which_file(const struct question *q)
{
    return (int)(q->serial % DECODER_DEPTH);
}

/* If the process has ended, the request is lost; reading the next answer reports it. */
static void request(struct decoder *d, struct question *q)
{
    const struct decoder_request r = {.serial = q->serial, .n_bytes = q->n, .slot = decoder_slot_number(q->slot)};

    (void)send(d->socket, &r, sizeof(r), MSG_NOSIGNAL);
    q->sent = true;
}

static int hand_over(struct decoder *d, struct question *q)
{
    int rc;

    if (!q->slot)
        q->slot = decoder_slot_take(&d->memory);
    rc = q->slot ? decoder_memory_put(&d->memory, which_file(q), q->bytes, q->n) : -ENOMEM;
    if (rc == 0)
        request(d, q);
    return rc;
}

/* Waits for the answer to the oldest question within the limits. */
static int converse(struct decoder *d, struct decoder_answer *ret)
{
    struct watch watch = {0};
    int rc;

    while ((rc = hear(d, d->conf->time_ms, &watch, ret)) == 0 && ret->kind == DECODER_GIANT) {
        (void)pthread_mutex_lock(&d->conf->giants);
        d->has_turn = true;
        request(d, &d->questions[0]);
    }
    if (rc == 0 && d->has_turn) {
        d->has_turn = false;
        (void)pthread_mutex_unlock(&d->conf->giants);
    }
    if (rc == 0 && watch.spent_ms)
        limit_cpu(d, RLIM_INFINITY);
    return rc;
}

static char *death_text(int status, char *ret, size_t size)
{
    const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;

    if (name)
        (void)snprintf(ret, size, "SIG%s", name);
    else if (WIFSIGNALED(status))
        (void)snprintf(ret, size, "signal %d", WTERMSIG(status));
    else
        (void)snprintf(ret, size, "exit code %d", WEXITSTATUS(status));
    return ret;
}

int decoder_await(struct decoder *d, struct err *err)
{
    struct watch watch = {0};
    struct decoder_answer a;
    char how[32];
    int rc;

    if (!d->pid && (rc = start(d, err)) < 0)
        return rc;
    if (d->is_ready)
        return 0;
    rc = hear(d, START_MS, &watch, &a);
    if (rc < 0)
        return err_set(err, rc, "the decoder process did not start (%s)", death_text(stop(d), how, sizeof(how)));
    d->is_ready = true;
    if (watch.spent_ms)
        limit_cpu(d, RLIM_INFINITY);
    if (a.message.text[0] && !atomic_exchange(&d->conf->said, true))
        log_warn("event=decoder_less_confined msg=\"%s; decoding continues without it\"", a.message.text);
    return 0;
}

int decoder_new(struct decoder_conf *conf, struct decoder **ret, struct err *err)
{
    struct decoder *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return err_set(err, -ENOMEM, "no memory");
    d->conf = conf;
    d->socket = -1;
    rc = decoder_memory_init(&d->memory, &(struct decoder_layout){.size_px = conf->size_px,
                                                                  .n_slots = conf->n_slots,
                                                                  .max_file_bytes = conf->options.max_file_bytes});
    if (rc < 0)
        rc = err_set(err, rc, "no memory for decoded pictures: %s", strerror(-rc));
    else
        rc = start(d, err);
    if (rc < 0) {
        decoder_free(d);
        return rc;
    }
    *ret = d;
    return 0;
}

void decoder_free(struct decoder *d)
{
    if (!d)
        return;
    (void)stop(d);
    decoder_memory_release(&d->memory);
    free(d);
}

/* -- a picture -- */

static enum ending attempt(struct decoder *d, struct decoder_answer *ret, int *ret_status)
{
    struct err err;
    int rc = decoder_await(d, &err);

    ret->code = IMAGE_NO_MEMORY;
    for (int i = 0; rc == 0 && i < d->n_questions; i++) {
        rc = d->questions[i].sent ? 0 : hand_over(d, &d->questions[i]);
        if (rc < 0)
            (void)err_set(&err, rc, "no memory to read the file");
    }
    if (!d->n_questions || !d->questions[0].sent) {
        ret->message = err;
        return ENDED_NOT_NOW;
    }
    rc = converse(d, ret);
    if (rc == 0) {
        d->n_done++;
        return ret->code == IMAGE_NO_MEMORY ? ENDED_MEMORY : ENDED_WELL;
    }
    *ret_status = stop(d);
    if (rc == -EBADMSG)
        return ENDED_NONSENSE;
    if (rc == -ETIMEDOUT || (WIFSIGNALED(*ret_status) && WTERMSIG(*ret_status) == SIGXCPU))
        return ENDED_LATE;
    return ENDED_DEAD;
}

static bool was_killed(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Sets the image's error from the outcome. */
static void blame(const struct decoder *d, enum ending how, int status, struct decoder_answer *ret)
{
    char text[CONF_SIZE_TEXT];

    if (how == ENDED_LATE) {
        ret->code = IMAGE_DECODER_TIMEOUT;
        (void)err_set(&ret->message, -ETIMEDOUT, "decoding took more than %g s (decode_time of the encoder)",
                      (double)d->conf->time_ms / 1000);
    } else if (how == ENDED_MEMORY) {
        ret->code = IMAGE_DECODER_MEMORY;
        (void)err_set(&ret->message, -ENOMEM, "decoding took more memory than %s (decode_memory of the encoder)",
                      conf_size_text(d->conf->memory_bytes, text));
    } else if (how == ENDED_DEAD && was_killed(status)) {
        ret->code = IMAGE_DECODER_MEMORY;
        (void)err_set(&ret->message, -ENOMEM, "the decoder was killed twice, probably because memory ran out");
    } else {
        ret->code = IMAGE_DECODER_CRASHED;
        (void)err_set(&ret->message, -EFAULT, "the decoder crashed (%s)",
                      how == ENDED_NONSENSE ? "it sent a malformed answer" : death_text(status, text, sizeof(text)));
    }
}

/* A failure may be caused by an image decoded earlier in the same process, and a kill by another process that used
 * up the memory. So the image is tried again in a new process, whose outcome counts. */
static void decode(struct decoder *d, struct decoder_answer *ret)
{
    for (int i = 1;; i++) {
        const bool had_others = d->n_done > 0;
        int status = 0;
        const enum ending how = attempt(d, ret, &status);
        const bool again = i == 1 && (had_others || (how == ENDED_DEAD && was_killed(status))) && how != ENDED_LATE;

        if (how == ENDED_MEMORY)
            (void)stop(d);
        if (how == ENDED_WELL || how == ENDED_NOT_NOW)
            return;
        blame(d, how, status, ret);
        log_warn("event=decoder_ended msg=\"%s%s\"", ret->message.text,
                 again ? "; the picture is retried in a new process" : "");
        if (!again)
            return;
    }
}

void decoder_ask(struct decoder *d, const uint8_t *bytes, size_t n)
{
    struct question *q = &d->questions[d->n_questions++];

    assert(d->n_questions <= DECODER_DEPTH);
    *q = (struct question){.bytes = bytes, .n = n, .serial = ++d->n_asked, .asked_ns = clock_mono_ns()};
    if (d->is_ready && (q == d->questions || q[-1].sent))
        (void)hand_over(d, q); /* on failure it is retried when it is waited for */
}

/* Limits a time that the process reports. */
static int64_t within(int64_t ns, int64_t most)
{
    return ns < 0 ? 0 : ns < most ? ns : most;
}

void decoder_answer(struct decoder *d, struct decoder_result *ret)
{
    struct decoder_answer a = {0};
    struct question q;
    int64_t left_ns;

    assert(d->n_questions > 0);
    decode(d, &a);
    q = d->questions[0];
    memmove(d->questions, d->questions + 1, (size_t)--d->n_questions * sizeof(q));
    decoder_memory_shrink(&d->memory, which_file(&q));
    *ret = (struct decoder_result){.code = (enum image_error)a.code, .message = a.message};
    left_ns = clock_mono_ns() - q.asked_ns;
    ret->decode_ns = within(a.decode_ns, left_ns);
    ret->resize_ns = within(a.resize_ns, left_ns - ret->decode_ns);
    if (a.code == IMAGE_OK) {
        ret->slot = q.slot;
        ret->width = a.width;
        ret->height = a.height;
    } else {
        decoder_slot_free(q.slot);
    }
}
