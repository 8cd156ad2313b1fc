/* Replaces the C library's accept4, which ZeroMQ calls. ZeroMQ's ipc listener aborts the process when accept fails
 * because no descriptors are left (libzmq 4.3.4, ipc_listener.cpp). Instead, a spare descriptor is kept in reserve:
 * the connection is accepted with it and closed at once. The peer may try again. */
#include "wire/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int spare = -1;

static int real_accept(int fd, struct sockaddr *address, socklen_t *n_bytes, int flags)
{
    return (int)syscall(SYS_accept4, fd, address, n_bytes, flags);
}

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void accept_keep_spare(void)
{
    const int kept = atomic_exchange(&spare, open_spare());

    if (kept >= 0)
        (void)close(kept);
}

/* Visible, or libzmq would call the C library's. */
__attribute__((visibility("default"))) int accept4(int fd, struct sockaddr *address, socklen_t *n_bytes, int flags)
{
    int kept = atomic_exchange(&spare, -1), rc;

    if (kept < 0)
        kept = open_spare();
    rc = real_accept(fd, address, n_bytes, flags);
    if (rc < 0 && (errno == EMFILE || errno == ENFILE)) {
        if (kept >= 0)
            (void)close(kept);
        rc = real_accept(fd, NULL, NULL, SOCK_CLOEXEC);
        if (rc >= 0)
            (void)close(rc);
        kept = open_spare();
        errno = EAGAIN;
        rc = -1;
    }
    if (kept >= 0) {
        const int keep_errno = errno;

        kept = atomic_exchange(&spare, kept);
        if (kept >= 0)
            (void)close(kept); /* another thread has kept one meanwhile */
        errno = keep_errno;
    }
    return rc;
}
