#include "base/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t readable, writable;
    int fd;
    bool closed;
    size_t capacity, head, length;
    void *slots[];
};

static void cond_init_monotonic(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(c, &attr);
    (void)pthread_condattr_destroy(&attr);
}

int mailbox_new(size_t capacity, struct mailbox **ret)
{
    struct mailbox *m;

    if (capacity == 0 || capacity > (1U << 24))
        return -EINVAL;
    m = calloc(1, sizeof(*m) + capacity * sizeof(void *));
    if (!m)
        return -ENOMEM;
    m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->fd < 0) {
        int rc = -errno;

        free(m);
        return rc;
    }
    m->capacity = capacity;
    (void)pthread_mutex_init(&m->lock, NULL);
    cond_init_monotonic(&m->readable);
    cond_init_monotonic(&m->writable);
    *ret = m;
    return 0;
}

void mailbox_free(struct mailbox *m, void (*dispose)(void *))
{
    if (!m)
        return;
    while (m->length) {
        void *message = mailbox_take(m);

        if (dispose)
            dispose(message);
    }
    (void)close(m->fd);
    (void)pthread_cond_destroy(&m->readable);
    (void)pthread_cond_destroy(&m->writable);
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

int mailbox_fd(const struct mailbox *m)
{
    return m->fd;
}

static void fd_signal(struct mailbox *m)
{
    (void)eventfd_write(m->fd, 1); /* cannot overflow: written only when the queue was empty */
}

static void push(struct mailbox *m, void *message)
{
    m->slots[(m->head + m->length) % m->capacity] = message;
    if (m->length++ == 0)
        fd_signal(m);
    (void)pthread_cond_signal(&m->readable);
}

static void *pop(struct mailbox *m)
{
    void *message = m->slots[m->head];
    eventfd_t unused;

    m->head = (m->head + 1) % m->capacity;
    if (--m->length == 0 && !m->closed)
        (void)eventfd_read(m->fd, &unused);
    (void)pthread_cond_signal(&m->writable);
    return message;
}

static struct timespec deadline_after(int64_t timeout_ms)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += timeout_ms / 1000;
    ts.tv_nsec += timeout_ms % 1000 * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

/* False on time-out. */
static bool wait_for(struct mailbox *m, pthread_cond_t *c, int64_t timeout_ms, const struct timespec *deadline)
{
    if (timeout_ms < 0)
        return pthread_cond_wait(c, &m->lock) == 0;
    return pthread_cond_timedwait(c, &m->lock, deadline) == 0;
}

int mailbox_post_wait(struct mailbox *m, void *message, int64_t timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms < 0 ? 0 : timeout_ms);
    int rc = 0;

    (void)pthread_mutex_lock(&m->lock);
    while (m->length == m->capacity && !m->closed && rc == 0)
        if (!wait_for(m, &m->writable, timeout_ms, &deadline))
            rc = -ETIMEDOUT;
    if (m->closed)
        rc = -EPIPE;
    else if (m->length < m->capacity) {
        push(m, message);
        rc = 0;
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

int mailbox_post(struct mailbox *m, void *message)
{
    int rc = 0;

    (void)pthread_mutex_lock(&m->lock);
    if (m->closed)
        rc = -EPIPE;
    else if (m->length == m->capacity)
        rc = -EAGAIN;
    else
        push(m, message);
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

void *mailbox_take(struct mailbox *m)
{
    void *message = NULL;

    (void)pthread_mutex_lock(&m->lock);
    if (m->length)
        message = pop(m);
    (void)pthread_mutex_unlock(&m->lock);
    return message;
}

void *mailbox_take_wait(struct mailbox *m, int64_t timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms < 0 ? 0 : timeout_ms);
    void *message = NULL;

    (void)pthread_mutex_lock(&m->lock);
    while (m->length == 0 && !m->closed)
        if (!wait_for(m, &m->readable, timeout_ms, &deadline))
            break;
    if (m->length)
        message = pop(m);
    (void)pthread_mutex_unlock(&m->lock);
    return message;
}

void mailbox_close(struct mailbox *m)
{
    (void)pthread_mutex_lock(&m->lock);
    if (!m->closed) {
        m->closed = true;
        fd_signal(m); /* stays readable from now on */
    }
    (void)pthread_cond_broadcast(&m->readable);
    (void)pthread_cond_broadcast(&m->writable);
    (void)pthread_mutex_unlock(&m->lock);
}

size_t mailbox_length(struct mailbox *m)
{
    size_t n;

    (void)pthread_mutex_lock(&m->lock);
    n = m->length;
    (void)pthread_mutex_unlock(&m->lock);
    return n;
}
