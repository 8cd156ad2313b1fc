/* late_private.h - what the two halves of late_ops share: late_ops.c has memory, transfers, passes and life, late_calls.c the
 * operators. */
#ifndef BLIPLINE_TESTS_UNIT_LATE_PRIVATE_H
#define BLIPLINE_TESTS_UNIT_LATE_PRIVATE_H

#include "tests/unit/late_ops.h"

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

struct late {
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

#define PROMISE(ok, ...)                                     \
    do {                                                     \
        if (!(ok)) {                                         \
            (void)fprintf(stderr, "late_ops: " __VA_ARGS__); \
            (void)fputc('\n', stderr);                       \
            abort();                                         \
        }                                                    \
    } while (0)

static inline struct late *late_of(const struct ops *o)
{
    return (struct late *)(uintptr_t)o;
}

/* Every call passes here. */
int late_enter(struct late *l, const char *what, bool in_pass_too);
/* A call of a pass: the same pointers and numbers every time. */
void late_note(struct late *l, const char *what, const uint64_t *args, size_t n);
/* A host array of a call of a pass: its contents may be others the next time, but not before graph_end. */
void late_note_array(struct late *l, const void *at, size_t n_bytes);

#define NOTE(l, what, ...) \
    late_note(l, what, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
#define AT(p) ((uint64_t)(uintptr_t)(p))
#define BITS(f)         \
    (((const union {    \
         float value;   \
         uint32_t bits; \
     }){f})             \
         .bits)

/* Fill in the operators. */
void late_calls(struct ops_funcs *f);

#endif
