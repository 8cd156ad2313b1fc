/* mailbox.h - a bounded queue of pointers between threads, with a descriptor to poll.
 *
 * The thread that takes a message owns it; the thread that posted it must not touch it again.
 * The descriptor is readable while messages wait, so that a thread can poll sockets and mailboxes together.
 * Errors: mailbox_post returns -EAGAIN when full and -EPIPE once closed; then the caller keeps the message. */
#ifndef BLIPLINE_BASE_MAILBOX_H
#define BLIPLINE_BASE_MAILBOX_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct mailbox;

int mailbox_new(size_t capacity, struct mailbox **ret) CHECK_RESULT;
/* No thread may be inside a call. Messages still waiting are passed to `dispose` (NULL: dropped). */
void mailbox_free(struct mailbox *m, void (*dispose)(void *));

int mailbox_fd(const struct mailbox *m);
int mailbox_post(struct mailbox *m, void *message) CHECK_RESULT;
/* Wait for room up to timeout_ms (-1: forever). -ETIMEDOUT, -EPIPE. */
int mailbox_post_wait(struct mailbox *m, void *message, int64_t timeout_ms) CHECK_RESULT;
/* The oldest message, or NULL if the mailbox is empty. */
void *mailbox_take(struct mailbox *m);
/* Wait up to timeout_ms (-1: forever); NULL on time-out, or when closed and empty. */
void *mailbox_take_wait(struct mailbox *m, int64_t timeout_ms);
/* Refuse further posts and wake all waiting threads. Messages in the queue can still be taken. */
void mailbox_close(struct mailbox *m);
size_t mailbox_length(struct mailbox *m);

#endif
