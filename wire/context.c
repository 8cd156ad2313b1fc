#include "wire/context.h"

#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <zmq.h>

#include "wire/accept.h"

static void *the_context; /* one per process: libzmq 4.3.4 may crash when a second one is made */

int wire_init(int n_io_threads, struct err *err)
{
    if (the_context)
        return 0;
    the_context = zmq_ctx_new();
    if (!the_context)
        return err_set(err, -errno, "ZeroMQ: %s", zmq_strerror(errno));
    accept_keep_spare();
    (void)zmq_ctx_set(the_context, ZMQ_IO_THREADS, n_io_threads);
    (void)zmq_ctx_set(the_context, ZMQ_MAX_SOCKETS, 8192);
    (void)zmq_ctx_set(the_context, ZMQ_BLOCKY, 0); /* sockets do not linger for ever unless told to */
    /* Tensor frames are a few MiB and come and go at a high rate: from the heap they are recycled, from mmap each costs
     * page faults over its whole length. 32 MiB is the largest threshold that glibc accepts. */
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    return 0;
}

void wire_exit(void)
{
    if (!the_context)
        return;
    while (zmq_ctx_term(the_context) < 0 && errno == EINTR)
        ;
    the_context = NULL;
}

void *wire_context(void)
{
    return the_context;
}
