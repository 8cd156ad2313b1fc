#include "tensor/cpu_pool.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One 64-bit word describes a call: its number (32 bits), its pieces, and how many are claimed (16 bits each). So a
 * thread can claim a piece only of the call it has read. The call cannot end before a claimed piece is done, so `fn`
 * and `arg` stay valid until then. */

enum {
    SPINS = 4000 /* pause instructions: 50 to 100 us, a few products of a decode step */
};

struct helper {
    struct cpu_pool *pool;
    pthread_t thread;
    int number; /* 1 .. */
};

struct cpu_pool {
    _Alignas(64) _Atomic uint64_t call;
    _Alignas(64) _Atomic uint32_t n_done;
    _Atomic bool caller_sleeps;
    _Alignas(64) _Atomic uint32_t bell; /* the number of the last call; sleeping threads wait for it to change */
    _Atomic int n_sleeping;
    _Alignas(64) cpu_pool_fn *fn;
    void *arg;
    _Atomic bool ends;
    int n_helpers;
    struct helper helpers[];
};

static uint32_t call_number(uint64_t call)
{
    return (uint32_t)(call >> 32);
}

static uint32_t call_pieces(uint64_t call)
{
    return (uint32_t)(call >> 16) & 0xffff;
}

static uint32_t call_claimed(uint64_t call)
{
    return (uint32_t)call & 0xffff;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Runs pieces until the current call has none left. */
static void work(struct cpu_pool *p, int thread)
{
    uint64_t call = atomic_load(&p->call);

    while (call_claimed(call) < call_pieces(call)) {
        if (!atomic_compare_exchange_weak(&p->call, &call, call + 1))
            continue;
        p->fn(p->arg, call_claimed(call), thread);
        if (atomic_fetch_add(&p->n_done, 1) + 1 == call_pieces(call) && atomic_load(&p->caller_sleeps))
            futex_wake(&p->n_done, 1);
        call = atomic_load(&p->call);
    }
}

/* Waits until the call number changes. */
static void await_call(struct cpu_pool *p, uint32_t number)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->bell, memory_order_relaxed) != number)
            return;
        pause_briefly();
    }
    atomic_fetch_add(&p->n_sleeping, 1);
    while (atomic_load(&p->bell) == number)
        futex_wait(&p->bell, number);
    atomic_fetch_sub(&p->n_sleeping, 1);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct cpu_pool *p = h->pool;

    for (;;) {
        uint32_t number = atomic_load(&p->bell);

        if (atomic_load(&p->ends))
            return NULL;
        work(p, h->number);
        await_call(p, number);
    }
}

int cpu_pool_new(int n_threads, struct cpu_pool **ret, struct err *err)
{
    const size_t bytes = sizeof(struct cpu_pool) + (size_t)(n_threads - 1) * sizeof(struct helper);
    struct cpu_pool *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    sigset_t all, before;
    int rc = 0;

    assert(n_threads >= 1);
    if (!p)
        return err_set(err, -ENOMEM, "threads: out of memory");
    memset(p, 0, bytes);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* a new thread inherits its creator's mask */
    while (rc == 0 && p->n_helpers < n_threads - 1) {
        struct helper *h = &p->helpers[p->n_helpers];

        *h = (struct helper){.pool = p, .number = p->n_helpers + 1};
        rc = -pthread_create(&h->thread, NULL, helper_main, h);
        if (rc == 0)
            p->n_helpers++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0) {
        cpu_pool_free(p);
        return err_set(err, rc, "threads: cannot start %d: %s", n_threads, strerror(-rc));
    }
    *ret = p;
    return 0;
}

static void ring(struct cpu_pool *p)
{
    atomic_store(&p->bell, call_number(atomic_load(&p->call)));
    if (atomic_load(&p->n_sleeping) > 0)
        futex_wake(&p->bell, p->n_helpers);
}

void cpu_pool_free(struct cpu_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->ends, true);
    atomic_store(&p->call, (uint64_t)(call_number(atomic_load(&p->call)) + 1) << 32);
    ring(p);
    for (int i = 0; i < p->n_helpers; i++)
        (void)pthread_join(p->helpers[i].thread, NULL);
    free(p);
}

void cpu_pool_run(struct cpu_pool *p, int64_t n_pieces, cpu_pool_fn *fn, void *arg)
{
    uint32_t done;

    assert(n_pieces <= CPU_POOL_MAX_PIECES);
    if (n_pieces == 1 || p->n_helpers == 0) {
        for (int64_t i = 0; i < n_pieces; i++)
            fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store(&p->n_done, 0);
    atomic_store(&p->call, (uint64_t)(call_number(atomic_load(&p->call)) + 1) << 32 | (uint64_t)n_pieces << 16);
    ring(p);
    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->n_done) < n_pieces; i++)
        pause_briefly();
    while ((done = atomic_load(&p->n_done)) < n_pieces) {
        atomic_store(&p->caller_sleeps, true);
        futex_wait(&p->n_done, done);
        atomic_store(&p->caller_sleeps, false);
    }
}
