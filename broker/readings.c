#include "broker/readings.h"

#include "base/log.h"
#include "wire/message.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IDLE_MS = 5000, REAP_MS = 100, ROWS_MAX_BYTES = 128 << 20 };

extern char **environ;

int readings_init(struct readings *r, struct answers *answers, bool allow_network_fs, struct err *err)
{
    *r = (struct readings){.answers = answers, .allow_network_fs = allow_network_fs, .end = &r->first};
    for (int i = 0; i < READINGS_MAX; i++)
        r->processes[i].fd = -1;
    r->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    return r->poll_fd < 0 ? err_set(err, -errno, "cannot wait for processes: %s", strerror(errno)) : 0;
}

/* -- processes -- */

/* Starts this program again, with the socket as its descriptor. */
static int spawn(struct reading_process *p, int theirs)
{
    static char name[] = "blipline-broker", argument[] = READING_ARGUMENT;
    char *args[] = {name, argument, NULL};
    posix_spawn_file_actions_t actions;
    const int socket = fcntl(theirs, F_DUPFD_CLOEXEC, READING_SOCKET + 1);
    int rc = socket < 0 ? EMFILE : posix_spawn_file_actions_init(&actions);

    if (rc == 0) {
        rc = posix_spawn_file_actions_adddup2(&actions, socket, READING_SOCKET);
        if (rc == 0)
            rc = posix_spawn(&p->pid, "/proc/self/exe", &actions, NULL, args, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    if (rc != 0)
        p->pid = 0;
    if (socket >= 0)
        (void)close(socket);
    return -rc;
}

static int start(struct readings *r, struct reading_process *p)
{
    struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = p}};
    int fds[2];
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 ? -errno : 0;

    if (rc < 0)
        return rc;
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(r->poll_fd, EPOLL_CTL_ADD, fds[0], &e) < 0)
        rc = -errno;
    if (rc == 0)
        rc = spawn(p, fds[1]);
    (void)close(fds[1]);
    if (rc < 0) {
        (void)close(fds[0]);
        return rc;
    }
    p->fd = fds[0];
    p->path[0] = '\0';
    return 0;
}

/* What it was asked is dropped. A process that waits for a disk may take its time to end. */
static void end(struct reading_process *p)
{
    if (p->fd < 0)
        return;
    if (p->pid)
        (void)kill(p->pid, SIGKILL); /* one that has ended keeps its status */
    (void)close(p->fd);
    p->fd = -1;
    free(p->asks);
    p->asks = NULL;
    p->n_taken = 0;
    buf_release(&p->rows);
}

/* -- answers -- */

static void refuse(const struct readings *r, const struct reading_wait *w, int rc, const char *text)
{
    answer_refuse(r->answers, w->peer, w->seq,
                  rc == -EFBIG    ? MSG_REASON_LIMIT
                  : rc == -EINVAL ? MSG_REASON_BAD_MESSAGE
                                  : MSG_REASON_STORE,
                  "%s", text);
}

static void deliver(const struct readings *r, struct reading_process *p)
{
    const struct reading_wait *w = p->asks;
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc = wire_message_new(MSG_STORE_ROWS, &m);

    if (rc == 0) {
        wire_message_envelope(m)->seq = w->seq;
        wire_message_envelope(m)->store_rows = p->answer.head;
        wire_message_envelope(m)->store_rows.in_progress = w->in_progress;
        rc = wire_message_add_rows(m, &p->rows, p->answer.n_rows);
    }
    if (rc == 0)
        rc = broker_socket_send(r->answers->socket, w->peer, &m, &err);
    wire_message_free(m);
    if (rc < 0 && rc != -EHOSTUNREACH)
        refuse(r, w, -EFBIG, "what the store has cannot be sent");
}

/* All of an answer is there. */
static void on_answer(struct readings *r, struct reading_process *p, int64_t now_ms)
{
    if (p->answer.rc < 0)
        refuse(r, p->asks, p->answer.rc, p->answer.text);
    else
        deliver(r, p);
    buf_release(&p->rows);
    p->n_taken = 0;
    if (p->answer.rc == 0 && p->answer.head.more)
        return;
    free(p->asks);
    p->asks = NULL;
    p->idle_at_ms = now_ms;
}

/* What the client is told of a process that has ended. */
static void say_end(const struct reading_process *p, int status, char text[MSG_TEXT_SIZE])
{
    const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const bool is_damage = number == SIGBUS || number == SIGSEGV;

    (void)snprintf(text, MSG_TEXT_SIZE, "%.512s: the process that read it ended (%s)%s", p->asks->question.path,
                   number ? strsignal(number) : "no signal", is_damage ? ": data.mdb is damaged or was cut short" : "");
}

static void on_death(struct readings *r, struct reading_process *p)
{
    int status = 0;
    char text[MSG_TEXT_SIZE];

    (void)kill(p->pid, SIGKILL);
    if (waitpid(p->pid, &status, 0) == p->pid)
        p->pid = 0;
    if (p->asks) {
        say_end(p, status, text);
        log_err("event=reading_failed job=%" PRIu64 " msg=\"%s\"", p->asks->question.read.job, text);
        refuse(r, p->asks, -EIO, text);
    }
    end(p);
}

/* Read what there is of the answer. 1: it is whole, 0: more will come. */
static int take_bytes(struct reading_process *p)
{
    const size_t head = sizeof(p->answer);

    for (;;) {
        const size_t want = p->n_taken < head ? head - p->n_taken : head + p->answer.rows_bytes - p->n_taken;
        uint8_t *to = p->n_taken < head ? (uint8_t *)&p->answer + p->n_taken : p->rows.data + (p->n_taken - head);
        ssize_t n;

        if (want == 0)
            return 1;
        n = read(p->fd, to, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? 0 : -EIO;
        p->n_taken += (size_t)n;
        if (p->n_taken > head)
            p->rows.size_bytes += (size_t)n;
        if (p->n_taken == head &&
            (p->answer.rows_bytes > ROWS_MAX_BYTES || buf_reserve(&p->rows, (size_t)p->answer.rows_bytes) < 0))
            return -ENOMEM;
    }
}

/* -- questions -- */

static bool is_long(const struct reading_wait *w)
{
    return w->question.read.what == MSG_STORE_VERIFY || w->question.read.what == MSG_STORE_CHECK;
}

/* Long checks take at most half of the processes. */
static struct reading_wait *take_next(struct readings *r)
{
    int n_long = 0;

    for (int i = 0; i < READINGS_MAX; i++)
        n_long += r->processes[i].asks && is_long(r->processes[i].asks);
    for (struct reading_wait **at = &r->first; *at; at = &(*at)->next) {
        struct reading_wait *w = *at;

        if (is_long(w) && n_long >= READINGS_MAX / 2)
            continue;
        *at = w->next;
        if (r->end == &w->next)
            r->end = at;
        w->next = NULL;
        return w;
    }
    return NULL;
}

/* An idle process, if possible one that has this store open; else a slot without one. */
static struct reading_process *find_idle(struct readings *r, const char *path)
{
    struct reading_process *best = NULL;

    for (int i = 0; i < READINGS_MAX; i++) {
        struct reading_process *p = &r->processes[i];

        if (p->asks || (p->fd < 0 && p->pid))
            continue;
        if (p->fd >= 0 && strcmp(p->path, path) == 0)
            return p;
        if (!best || (best->fd < 0 && p->fd >= 0))
            best = p;
    }
    return best;
}

static bool has_idle(const struct readings *r)
{
    for (int i = 0; i < READINGS_MAX; i++)
        if (!r->processes[i].asks && (r->processes[i].fd >= 0 || !r->processes[i].pid))
            return true;
    return false;
}

static int put_question(struct readings *r, struct reading_wait *w)
{
    struct reading_process *p = find_idle(r, w->question.path);
    int rc = p->fd < 0 ? start(r, p) : 0;

    if (rc < 0)
        return rc;
    if (send(p->fd, &w->question, sizeof(w->question), MSG_NOSIGNAL) != (ssize_t)sizeof(w->question)) {
        end(p);
        return -EIO;
    }
    p->asks = w;
    p->n_taken = 0;
    memcpy(p->path, w->question.path, sizeof(p->path));
    return 0;
}

static void put_questions(struct readings *r)
{
    struct reading_wait *w;

    while (r->first && has_idle(r) && (w = take_next(r))) {
        int rc = put_question(r, w);

        if (rc == 0)
            continue;
        log_err("event=reading_failed job=%" PRIu64 " msg=\"no process can be started: %s\"", w->question.read.job,
                strerror(-rc));
        answer_refuse(r->answers, w->peer, w->seq, MSG_REASON_BUSY, "no process to read stores can be started: %s",
                      strerror(-rc));
        free(w);
    }
}

static bool has_question(const struct readings *r, uint64_t peer)
{
    for (const struct reading_wait *w = r->first; w; w = w->next)
        if (w->peer == peer)
            return true;
    for (int i = 0; i < READINGS_MAX; i++)
        if (r->processes[i].asks && r->processes[i].asks->peer == peer)
            return true;
    return false;
}

void readings_ask(struct readings *r, uint64_t peer, const struct msg *m, const char *path, bool in_progress)
{
    struct reading_wait *w;

    if (has_question(r, peer)) {
        answer_refuse(r->answers, peer, m->seq, MSG_REASON_LIMIT, "the last store_read is not answered yet");
        return;
    }
    w = calloc(1, sizeof(*w));
    if (!w || !msg_text_set(w->question.path, sizeof(w->question.path), path)) {
        free(w);
        answer_refuse(r->answers, peer, m->seq, MSG_REASON_LIMIT, "no memory for a question");
        return;
    }
    w->peer = peer;
    w->seq = m->seq;
    w->in_progress = in_progress;
    w->question.allow_network_fs = r->allow_network_fs;
    w->question.read = m->store_read;
    *r->end = w;
    r->end = &w->next;
    put_questions(r);
}

/* -- the loop -- */

static void take_from(struct readings *r, struct reading_process *p, int64_t now_ms)
{
    int rc = p->fd < 0 ? 0 : take_bytes(p);

    if (rc < 0 || (rc > 0 && !p->asks))
        on_death(r, p);
    else if (rc > 0)
        on_answer(r, p, now_ms);
}

/* Returns when to look at it again. */
static int64_t tend(struct reading_process *p, int64_t now_ms)
{
    if (p->fd >= 0 && !p->asks && now_ms >= p->idle_at_ms + IDLE_MS)
        end(p);
    if (p->fd < 0 && p->pid && waitpid(p->pid, NULL, WNOHANG) != 0)
        p->pid = 0;
    if (p->fd < 0)
        return p->pid ? now_ms + REAP_MS : INT64_MAX;
    return p->asks ? INT64_MAX : p->idle_at_ms + IDLE_MS;
}

int64_t readings_take(struct readings *r, int64_t now_ms)
{
    struct epoll_event events[READINGS_MAX];
    const int n = epoll_wait(r->poll_fd, events, READINGS_MAX, 0);
    int64_t again_ms = INT64_MAX;

    for (int i = 0; i < n; i++)
        take_from(r, events[i].data.ptr, now_ms);
    for (int i = 0; i < READINGS_MAX; i++) {
        const int64_t at_ms = tend(&r->processes[i], now_ms);

        again_ms = at_ms < again_ms ? at_ms : again_ms;
    }
    put_questions(r);
    return again_ms;
}

void readings_let_go(struct readings *r, uint64_t peer)
{
    for (struct reading_wait **at = &r->first; *at;) {
        struct reading_wait *w = *at;

        if (w->peer != peer) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        if (r->end == &w->next)
            r->end = at;
        free(w);
    }
    for (int i = 0; i < READINGS_MAX; i++)
        if (r->processes[i].asks && r->processes[i].asks->peer == peer)
            end(&r->processes[i]);
}

void readings_release(struct readings *r)
{
    while (r->first) {
        struct reading_wait *w = r->first;

        r->first = w->next;
        free(w);
    }
    for (int i = 0; i < READINGS_MAX; i++) {
        end(&r->processes[i]);
        if (r->processes[i].pid)
            (void)waitpid(r->processes[i].pid, NULL, 0);
    }
    if (r->poll_fd > 0)
        (void)close(r->poll_fd);
}
