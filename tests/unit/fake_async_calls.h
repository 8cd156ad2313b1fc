/* fake_async_calls.h - shared by fake_async_ops.c (memory, transfers, graphs) and fake_async_calls.c (operators). */
#ifndef BLIPLINE_TESTS_UNIT_FAKE_ASYNC_CALLS_H
#define BLIPLINE_TESTS_UNIT_FAKE_ASYNC_CALLS_H

#include "tests/unit/fake_async_ops.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_KEYS = 4096, MAX_ARRAYS = 256, MAX_BLOCKS = 4096, NOT_A_NUMBER = 0xff };

/* A download that is under way. */
struct landing {
    uint64_t ticket;
    void *dst, *data;
    size_t n_bytes;
};

/* A host array that a pass has been given. */
struct array {
    const void *at;
    void *copy;
    size_t n_bytes;
};

struct fake_async {
    struct ops base;
    struct ops *inner;
    size_t total_bytes, used_bytes;
    struct {
        void *at;
        size_t n_bytes;
    } blocks[MAX_BLOCKS];
    int n_blocks;

    struct landing landings[OPS_MAX_DOWNLOADS];
    int n_landings, most_landings;
    uint64_t next_ticket;

    void *staging, *upload_to; /* staging NULL: no upload is open */
    size_t staging_bytes;

    bool in_pass, refuses, records; /* records: nothing of the open pass is run */
    uint64_t key, calls;            /* of the open pass: what its calls were so far */
    struct array arrays[MAX_ARRAYS];
    int n_arrays;
    struct {
        uint64_t key, calls;
        int n_runs;
    } keys[MAX_KEYS];
    int n_keys, n_replays;

    const struct ops_weight *consumer; /* of the last norm; NULL: none */
    void *consumed, *hidden;           /* what it gave, and where that is kept */
    size_t consumed_bytes;

    int fail_in; /* < 0: never */
    bool failed;
};

#define PROMISE(ok, ...)                                           \
    do {                                                           \
        if (!(ok)) {                                               \
            (void)fprintf(stderr, "fake_async_ops: " __VA_ARGS__); \
            (void)fputc('\n', stderr);                             \
            abort();                                               \
        }                                                          \
    } while (0)

static inline struct fake_async *async_of(const struct ops *o)
{
    return (struct fake_async *)(uintptr_t)o;
}

/* Every call passes here. */
int async_enter(struct fake_async *l, const char *what, bool in_pass_too);
/* A call of a pass: the same pointers and numbers every time. */
void async_note(struct fake_async *l, const char *what, const uint64_t *args, size_t n);
/* A host array of a call of a pass: its contents may be others the next time, but not before graph_end. */
void async_note_array(struct fake_async *l, const void *at, size_t n_bytes);

#define NOTE(l, what, ...) \
    async_note(l, what, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
#define AT(p) ((uint64_t)(uintptr_t)(p))
#define BITS(f)         \
    (((const union {    \
         float value;   \
         uint32_t bits; \
     }){f})             \
         .bits)

/* Fill in the operators. */
void fake_async_calls(struct ops_funcs *f);

#endif
