/* emulator.h - what the files of the emulator share: a block's threads, device memory, and queued work.
 *
 * Everything runs under one lock (emulator_lock), which every function of the CUDA runtime's interface takes; kernels
 * run in whichever host thread forces them. Errors of the code under test that a GPU would leave undefined end the
 * process with a message (emulator_fail).
 * Who may call: tests/emulator. Memory and errors: as each call says. */
#ifndef BLIPLINE_TESTS_EMULATOR_EMULATOR_H
#define BLIPLINE_TESTS_EMULATOR_EMULATOR_H

#include <cuda_runtime_api.h>

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <mutex>

/* Where a kernel is launched: for messages. */
struct emulator_site {
    const char *text; /* the launch's arguments as written */
    const char *file;
    int line;
};

using emulator_work = std::function<void()>;

/* -- block.cc: the threads of a block -- */

struct emulator_thread {
    uint3 index;
    unsigned lane, warp;
    void *stack_pointer; /* while it waits */
    int stack;           /* its number; -1: not started */
    /* the warp's collective that it waits in */
    int kind;
    unsigned mask;
    unsigned argument;
    uint64_t value;
    uint64_t result;
};

extern emulator_thread *emulator_self;
extern uint3 emulator_block_index;
extern dim3 emulator_block_dim, emulator_grid_dim;
extern unsigned char *emulator_shared; /* the block's dynamic shared memory */
extern size_t emulator_shared_bytes;
extern const emulator_site *emulator_site_now; /* NULL: no kernel runs */

enum emulator_collective {
    EMULATOR_SYNC,
    EMULATOR_SHUFFLE, /* argument: the lane whose value is wanted */
    EMULATOR_BALLOT,  /* value: 0 or 1 */
    EMULATOR_ADD,     /* __reduce_*_sync */
    EMULATOR_MIN,
    EMULATOR_MAX,
    EMULATOR_UMIN,
    EMULATOR_UMAX,
    EMULATOR_AND,
    EMULATOR_OR,
    EMULATOR_XOR,
    EMULATOR_MATCH,
    EMULATOR_MMA_HALF, /* value: of struct emulator_mma */
    EMULATOR_MMA_BF16,
    EMULATOR_LDMATRIX, /* value: of struct emulator_ldmatrix */
    EMULATOR_LDMATRIX_TRANS,
};

/* Wait for all lanes of `mask`; what the collective gives this lane. */
uint64_t emulator_collect(enum emulator_collective kind, unsigned mask, uint64_t value, unsigned argument);
/* __syncthreads; the sum over all threads of `value`. */
int emulator_barrier(int value);
/* Run all blocks of a grid now. */
void emulator_run_grid(const emulator_site &site, dim3 grid, dim3 block, size_t shared_bytes,
                       const emulator_work &body);
bool emulator_is_shared(const void *p, size_t n_bytes);

/* -- mma.cc: instructions of a warp, and copies behind a thread's back -- */

struct emulator_mma {
    float *d;
    const uint32_t *a, *b;
};
struct emulator_ldmatrix {
    uint32_t *r;
    const void *row;
};

void emulator_run_mma(bool bf16, emulator_mma *lanes[32]);
void emulator_run_ldmatrix(bool trans, emulator_ldmatrix *lanes[32]);
void emulator_copy_async(void *shared, const void *global, int n_bytes);
void emulator_copy_async_commit(void);
void emulator_copy_async_wait(int n_groups);
/* A block begins: no copies are under way. */
void emulator_copies_reset(void);

/* -- memory.cc: device memory and pinned memory -- */

enum emulator_place { EMULATOR_PAGEABLE, EMULATOR_PINNED, EMULATOR_DEVICE };

/* Where p points: into an allocation, or a little behind it. */
enum emulator_place emulator_place_of(const void *p);
/* Let the host thread use device memory while it executes queued work; calls nest. The last close looks at what
 * surrounds all allocations, and aborts where that has been written. */
void emulator_memory_open(void);
void emulator_memory_close(void);
/* What lies at p: for messages. */
void emulator_memory_describe(const void *p, char *text, size_t n);
/* Where this host thread has the static __shared__ variables. */
void *emulator_static_shared(size_t *ret_bytes);

/* -- stream.cc: streams, events, graphs -- */

extern std::recursive_mutex emulator_lock;

/* Queue it on the stream, or record it where the stream is capturing. */
cudaError_t emulator_enqueue(cudaStream_t stream, emulator_work work);
/* Is this stream capturing (then a call that must wait is an error, which this returns)? */
cudaError_t emulator_may_wait(cudaStream_t stream);
/* May a call that waits for the whole device, or one that allocates, be made now? */
cudaError_t emulator_may_wait_all(void);
cudaError_t emulator_may_allocate(void);
bool emulator_is_capturing(cudaStream_t stream);
/* Run what has been queued. */
void emulator_finish(cudaStream_t stream);
void emulator_finish_all(void);
/* -- report.cc: what is wrong -- */

/* A message with kernel, block, thread and seed, then abort(). */
[[noreturn]] void emulator_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, from a signal handler: what faulted where. */
void emulator_describe(const char *what);
uint32_t emulator_random(void);
/* The error of a call, kept for cudaGetLastError; an injected one comes first. */
cudaError_t emulator_return(cudaError_t e);
cudaError_t emulator_injected(void);
extern cudaError_t emulator_sticky_error;

/* -- runtime.cc -- */

/* pointers: the kernel's arguments that are pointers. */
cudaError_t emulator_launch(const emulator_site &site, cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes,
                            const void *const *pointers, int n_pointers, emulator_work body);

#endif
