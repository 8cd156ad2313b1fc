/* jumping_clock.c - a library to preload: the wall clock jumps by a day, forward and back, at every look at it. */
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ret)
{
    static atomic_uint n_looks;
    long rc = syscall(SYS_clock_gettime, clock, ret);

    if (rc == 0 && clock == CLOCK_REALTIME)
        ret->tv_sec += atomic_fetch_add(&n_looks, 1) % 2 ? 86400 : -86400;
    return (int)rc;
}
