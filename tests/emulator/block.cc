#include "emulator.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "context.h"

/* The threads of a block are fibers of one host thread. One runs until it must wait: for its warp (emulator_collect) or
 * for its block (emulator_barrier); then another one goes on, drawn at random, of the same warp as long as that has one
 * that can. A thread that never waits is a mere call on the stack of the one before it. */

enum { MAX_THREADS = 1024, LANES = 32, STACK_BYTES = 128 * 1024, PAGE = 4096, SHARED_MAX = 256 * 1024 };

struct warp {
    uint32_t alive;   /* have not returned */
    uint32_t ready;   /* can go on */
    uint32_t waiting; /* in a collective */
    uint32_t blocked; /* in __syncthreads */
    unsigned turn;    /* which of the ready ones is first */
    bool backwards;
};

emulator_thread *emulator_self;
uint3 emulator_block_index;
dim3 emulator_block_dim, emulator_grid_dim;
unsigned char *emulator_shared;
size_t emulator_shared_bytes;
const emulator_site *emulator_site_now;

static struct {
    const emulator_work *body;
    emulator_thread threads[MAX_THREADS];
    struct warp warps[MAX_THREADS / LANES];
    int n_warps;
    uint32_t ready_warps;
    void *host; /* the stack pointer of emulator_run_grid */
    unsigned char *stacks;
    int free_stacks[MAX_THREADS + 1], n_free_stacks;
    int barrier_sum, barrier_result;
    unsigned char *shared_end; /* a guard page follows */
    void *static_shared;
    size_t static_shared_bytes;
} now;

static const char *kind_name(int kind)
{
    static const char *const names[] = {"__syncwarp",           "__shfl_*_sync",     "a vote",
                                        "__reduce_add_sync",    "__reduce_min_sync", "__reduce_max_sync",
                                        "__reduce_min_sync",    "__reduce_max_sync", "__reduce_and_sync",
                                        "__reduce_or_sync",     "__reduce_xor_sync", "__match_any_sync",
                                        "ptx_mma (half)",       "ptx_mma (bf16)",    "ptx_ldmatrix_x4",
                                        "ptx_ldmatrix_x4_trans"};

    return names[kind];
}

/* Nobody can go on: say who waits where, one line for each set of lanes that wait for the same. */
[[noreturn]] static void fail_deadlock(void)
{
    emulator_self = NULL;
    emulator_describe("deadlock: no thread of the block can go on");
    for (int w = 0; w < now.n_warps; w++) {
        const struct warp *p = &now.warps[w];
        uint32_t left = p->waiting;

        fprintf(stderr, "  warp %2d: at __syncthreads %08x, returned %08x", w, p->blocked, ~p->alive);
        while (left) {
            const emulator_thread *t = &now.threads[w * LANES + __builtin_ctz(left)];
            uint32_t same = 0;

            for (int i = 0; i < LANES; i++)
                if (left >> i & 1 && t[i - (int)t->lane].kind == t->kind && t[i - (int)t->lane].mask == t->mask)
                    same |= 1u << i;
            fprintf(stderr, ", at %s with mask %08x: %08x", kind_name(t->kind), t->mask, same);
            left &= ~same;
        }
        fprintf(stderr, "\n");
    }
    abort();
}

/* -- who goes on -- */

static void set_ready(struct warp *w, uint32_t lanes)
{
    const uint32_t r = emulator_random();

    w->ready |= lanes;
    w->turn = r & 31;
    w->backwards = r >> 5 & 1;
    now.ready_warps |= 1u << (w - now.warps);
}

static inline uint32_t rotated(uint32_t x, unsigned n)
{
    return x >> n | x << (-n & 31);
}

static void release_barrier(void)
{
    for (int i = 0; i < now.n_warps; i++) {
        struct warp *w = &now.warps[i];

        if (w->blocked != w->alive)
            fail_deadlock();
        if (w->blocked)
            set_ready(w, w->blocked);
        w->blocked = 0;
    }
    now.barrier_result = now.barrier_sum;
    now.barrier_sum = 0;
}

/* The next thread to run, or NULL: all have returned. `w`: the warp that has just run. */
static emulator_thread *pick(struct warp *w)
{
    unsigned lane;
    uint32_t r;

    if (!w->ready) {
        now.ready_warps &= ~(1u << (w - now.warps));
        if (!now.ready_warps) {
            release_barrier();
            if (!now.ready_warps)
                return NULL;
        }
        const unsigned turn = emulator_random() & 31;
        w = &now.warps[(__builtin_ctz(rotated(now.ready_warps, turn)) + turn) & 31];
    }
    r = rotated(w->ready, w->turn);
    lane = ((w->backwards ? 31 - __builtin_clz(r) : __builtin_ctz(r)) + w->turn) & 31;
    w->ready &= ~(1u << lane);
    return &now.threads[(w - now.warps) * LANES + lane];
}

/* -- collectives of a warp -- */

static void shuffle(emulator_thread *lanes, const struct warp *w, uint32_t mask)
{
    for (uint32_t left = mask & w->alive; left; left &= left - 1) {
        emulator_thread *t = &lanes[__builtin_ctz(left)];

        if (!(mask & w->alive & 1u << t->argument)) {
            emulator_self = t;
            emulator_fail("__shfl_*_sync reads lane %u, which %s", t->argument,
                          mask & 1u << t->argument ? "has returned from the kernel" : "is not in the mask");
        }
        t->result = lanes[t->argument].value;
    }
}

static uint64_t reduce(int kind, uint64_t x, uint64_t y)
{
    switch (kind) {
    case EMULATOR_ADD:
        return (uint32_t)(x + y);
    case EMULATOR_MIN:
        return (int32_t)x < (int32_t)y ? x : y;
    case EMULATOR_MAX:
        return (int32_t)x > (int32_t)y ? x : y;
    case EMULATOR_UMIN:
        return (uint32_t)x < (uint32_t)y ? x : y;
    case EMULATOR_UMAX:
        return (uint32_t)x > (uint32_t)y ? x : y;
    case EMULATOR_AND:
        return x & y;
    case EMULATOR_OR:
        return x | y;
    default:
        return x ^ y;
    }
}

static void reduce_all(emulator_thread *lanes, uint32_t want, int kind)
{
    uint64_t sum = lanes[__builtin_ctz(want)].value;

    for (uint32_t left = want & (want - 1); left; left &= left - 1)
        sum = reduce(kind, sum, lanes[__builtin_ctz(left)].value);
    for (uint32_t left = want; left; left &= left - 1)
        lanes[__builtin_ctz(left)].result = sum;
}

static void match(emulator_thread *lanes, uint32_t want)
{
    for (uint32_t i = want; i; i &= i - 1) {
        emulator_thread *t = &lanes[__builtin_ctz(i)];

        t->result = 0;
        for (uint32_t j = want; j; j &= j - 1)
            t->result |= (uint64_t)(lanes[__builtin_ctz(j)].value == t->value) << __builtin_ctz(j);
    }
}

static void whole_warp(emulator_thread *lanes, const struct warp *w, int kind)
{
    void *of[LANES];

    if (w->alive != ~0u)
        emulator_fail("%s by a warp of which lanes %08x are not there", kind_name(kind), ~w->alive);
    for (int i = 0; i < LANES; i++)
        of[i] = (void *)(uintptr_t)lanes[i].value;
    if (kind == EMULATOR_MMA_HALF || kind == EMULATOR_MMA_BF16)
        emulator_run_mma(kind == EMULATOR_MMA_BF16, (emulator_mma **)of);
    else
        emulator_run_ldmatrix(kind == EMULATOR_LDMATRIX_TRANS, (emulator_ldmatrix **)of);
}

/* All lanes of `mask` have come. */
static void complete(struct warp *w, int kind, uint32_t mask)
{
    emulator_thread *lanes = &now.threads[(w - now.warps) * LANES];
    const uint32_t want = mask & w->alive;
    uint64_t ballot = 0;

    for (uint32_t left = want; left; left &= left - 1) {
        const emulator_thread *t = &lanes[__builtin_ctz(left)];

        if (t->kind != kind || t->mask != mask)
            emulator_fail("a warp's lanes meet in different calls: lane %u in %s with mask %08x, another one in %s "
                          "with mask %08x",
                          t->lane, kind_name(t->kind), t->mask, kind_name(kind), mask);
        ballot |= (t->value & 1) << t->lane;
    }
    if (kind == EMULATOR_SHUFFLE)
        shuffle(lanes, w, mask);
    else if (kind == EMULATOR_BALLOT)
        for (uint32_t left = want; left; left &= left - 1)
            lanes[__builtin_ctz(left)].result = ballot | (uint64_t)want << 32;
    else if (kind == EMULATOR_MATCH)
        match(lanes, want);
    else if (kind >= EMULATOR_MMA_HALF)
        whole_warp(lanes, w, kind);
    else if (kind != EMULATOR_SYNC)
        reduce_all(lanes, want, kind);
    w->waiting &= ~want;
    set_ready(w, want);
}

/* -- fibers -- */

static void fiber_main(void);

/* Another thread goes on; returns when this one does. */
static void suspend(struct warp *w)
{
    emulator_thread *self = emulator_self, *next = pick(w);

    assert(next); /* this one has not returned */
    if (next == self)
        return;
    emulator_self = next;
    if (next->stack < 0) {
        next->stack = now.free_stacks[--now.n_free_stacks];
        /* stack tops lie on different cache lines of the same set */
        context_start(&self->stack_pointer,
                      now.stacks + (size_t)(next->stack + 1) * (STACK_BYTES + PAGE) - (next->stack & 31) * 128,
                      fiber_main);
    } else {
        context_switch(&self->stack_pointer, next->stack_pointer);
    }
}

/* The thread on this stack has returned: who waited for it need not any more. */
static void leave(emulator_thread *t, struct warp *w)
{
    w->alive &= ~(1u << t->lane);
    for (unsigned i = 0; w->waiting && i < LANES; i++) {
        const emulator_thread *other = &now.threads[t->warp * LANES + i];
        const uint32_t want = other->mask & w->alive;

        if (w->waiting >> i & 1 && other->mask >> t->lane & 1 && (w->waiting & want) == want)
            complete(w, other->kind, other->mask);
    }
}

static void fiber_main(void)
{
    for (;;) {
        emulator_thread *self = emulator_self, *next;

        (*now.body)();
        leave(self, &now.warps[self->warp]);
        next = pick(&now.warps[self->warp]);
        emulator_self = next;
        if (next && next->stack < 0) {
            next->stack = self->stack;
            continue;
        }
        now.free_stacks[now.n_free_stacks++] = self->stack;
        context_switch(&self->stack_pointer, next ? next->stack_pointer : now.host);
    }
}

uint64_t emulator_collect(enum emulator_collective kind, unsigned mask, uint64_t value, unsigned argument)
{
    emulator_thread *self = emulator_self;
    struct warp *w = &now.warps[self->warp];
    const uint32_t want = mask & w->alive;

    if (!(mask >> self->lane & 1))
        emulator_fail("%s with mask %08x, in which lane %u itself is not", kind_name(kind), mask, self->lane);
    self->kind = kind;
    self->mask = mask;
    self->value = value;
    self->argument = argument;
    w->waiting |= 1u << self->lane;
    if ((w->waiting & want) == want)
        complete(w, kind, mask);
    suspend(w);
    return self->result;
}

int emulator_barrier(int value)
{
    struct warp *w = &now.warps[emulator_self->warp];

    now.barrier_sum += value;
    w->blocked |= 1u << emulator_self->lane;
    suspend(w);
    return now.barrier_result;
}

/* -- blocks -- */

static void prepare(void)
{
    const size_t n = (size_t)MAX_THREADS * (STACK_BYTES + PAGE);

    if (now.stacks)
        return;
    now.stacks =
        (unsigned char *)mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    now.shared_end =
        (unsigned char *)mmap(NULL, SHARED_MAX + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (now.stacks == MAP_FAILED || now.shared_end == MAP_FAILED)
        emulator_fail("no memory for stacks");
    for (int i = 0; i < MAX_THREADS; i++) {
        mprotect(now.stacks + (size_t)i * (STACK_BYTES + PAGE), PAGE, PROT_NONE);
        now.free_stacks[now.n_free_stacks++] = MAX_THREADS - 1 - i;
    }
    mprotect(now.shared_end, PAGE, PROT_NONE);
    now.shared_end += PAGE + SHARED_MAX;
    mprotect(now.shared_end, PAGE, PROT_NONE);
}

bool emulator_is_shared(const void *p, size_t n_bytes)
{
    const unsigned char *b = (const unsigned char *)p;

    if (b >= emulator_shared && b + n_bytes <= emulator_shared + emulator_shared_bytes)
        return true;
    return b >= now.static_shared && b + n_bytes <= (unsigned char *)now.static_shared + now.static_shared_bytes;
}

static void check_shared(void)
{
    for (const unsigned char *p = emulator_shared + emulator_shared_bytes; p < now.shared_end; p++)
        if (*p != 0xff)
            emulator_fail("a write %d bytes behind the %zu bytes of dynamic shared memory",
                          (int)(p - emulator_shared - emulator_shared_bytes), emulator_shared_bytes);
    for (int i = 1; i <= 128; i++)
        if (emulator_shared[-i] != 0xff)
            emulator_fail("a write %d bytes before the dynamic shared memory", i);
}

static void start_threads(int n_threads)
{
    const dim3 d = emulator_block_dim;

    now.n_warps = (n_threads + LANES - 1) / LANES;
    now.ready_warps = 0;
    now.barrier_sum = 0;
    for (int i = 0; i < n_threads; i++) {
        emulator_thread *t = &now.threads[i];

        t->index = {(unsigned)i % d.x, (unsigned)i / d.x % d.y, (unsigned)i / d.x / d.y};
        t->lane = (unsigned)i % LANES;
        t->warp = (unsigned)i / LANES;
        t->stack = -1;
    }
    for (int i = 0; i < now.n_warps; i++) {
        const int left = n_threads - i * LANES;

        now.warps[i] = {};
        now.warps[i].alive = left >= LANES ? ~0u : (1u << left) - 1;
        set_ready(&now.warps[i], now.warps[i].alive);
    }
}

static void run_block(int n_threads)
{
    memset(emulator_shared - 128, 0xff, (size_t)(now.shared_end - emulator_shared) + 128);
    memset(now.static_shared, 0xff, now.static_shared_bytes);
    emulator_copies_reset();
    start_threads(n_threads);
    emulator_self = pick(&now.warps[emulator_random() % (unsigned)now.n_warps]);
    emulator_self->stack = now.free_stacks[--now.n_free_stacks];
    context_start(&now.host, now.stacks + (size_t)(emulator_self->stack + 1) * (STACK_BYTES + PAGE), fiber_main);
    check_shared();
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    return b ? common_divisor(b, a % b) : a;
}

void emulator_run_grid(const emulator_site &site, dim3 grid, dim3 block, size_t shared_bytes, const emulator_work &body)
{
    const uint64_t n = (uint64_t)grid.x * grid.y * grid.z;
    uint64_t step, at;

    prepare();
    emulator_site_now = &site;
    now.body = &body;
    emulator_shared_bytes = shared_bytes;
    now.static_shared = emulator_static_shared(&now.static_shared_bytes);
    emulator_shared = now.shared_end - (shared_bytes + 127) / 128 * 128;
    emulator_block_dim = block;
    emulator_grid_dim = grid;
    /* blocks in another order each time: every step-th from anywhere */
    step = 1 + emulator_random() % n;
    while (common_divisor(step, n) != 1)
        step++;
    at = emulator_random() % n;
    for (uint64_t i = 0; i < n; i++, at = (at + step) % n) {
        emulator_block_index = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                                (unsigned)(at / grid.x / grid.y)};
        run_block((int)(block.x * block.y * block.z));
    }
    emulator_site_now = NULL;
    emulator_self = NULL;
}
