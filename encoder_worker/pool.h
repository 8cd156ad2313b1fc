/* pool.h - fetches, decodes and resizes pictures ahead of the compute thread.
 *
 * Threads read the files; each has a process that decodes (decoder.h). main() of a program that makes a pool begins
 * with decoder_is_asked_for.
 * Who may call: one thread, the one that made the pool. Requests and results cross to the pool's threads by mailbox.
 * Units: times nanoseconds, sizes bytes, sides pixels.
 * Memory: paths are copied in; the pixels of a result are the caller's until decoder_slot_free, which comes before
 *         pool_free.
 * Errors: negative errno for misuse and full queues; a picture that fails is a result with a code, never an error here.
 *         Results come in any order. At most `capacity` requests are between submit and take, or pictures between that
 *         and decoder_slot_free. */
#ifndef BLIPLINE_ENCODER_WORKER_POOL_H
#define BLIPLINE_ENCODER_WORKER_POOL_H

#include "base/err.h"
#include "encoder_worker/decoder.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { POOL_MAX_PATH_BYTES = 4096, POOL_MAX_CAPACITY = 65536 };

struct pool;

struct pool_conf {
    int n_threads;    /* 1 .. 256 */
    int capacity;     /* requests in the pool, 1 .. POOL_MAX_CAPACITY; some 5 KiB each, and the pictures */
    uint32_t size_px; /* S of the pictures */
    struct decode_options options;
    uint64_t memory_bytes; /* what a process may allocate */
    int64_t time_ms;       /* what a picture may take: of CPU time, or of standing still */
};

struct pool_result {
    uint64_t index;            /* the caller's, untouched */
    struct decoder_slot *slot; /* (S, S, 3) RGB when code is IMAGE_OK, else NULL */
    enum image_error code;     /* IMAGE_OK or the reason */
    struct err message;        /* ASCII, without the path; "" when ok */
    uint64_t file_bytes;
    uint32_t width, height; /* before the resize; 0 when not decoded */
    int64_t fetch_ns, decode_ns, resize_ns;
};

int pool_new(const struct pool_conf *conf, struct pool **ret, struct err *err) CHECK_RESULT;
/* Drops what is queued, waits for what is being decoded, ends the threads and processes. */
void pool_free(struct pool *p);

/* `path` need not be NUL-terminated. -EAGAIN: `capacity` requests are in the pool. -EINVAL: empty, or holds a NUL.
 * -ENAMETOOLONG: more than POOL_MAX_PATH_BYTES. */
int pool_submit(struct pool *p, uint64_t index, const char *path, size_t path_bytes) CHECK_RESULT;
/* 1: *ret is filled. 0: none finished within timeout_ms (0: do not wait, -1: for ever), or none in the pool. */
int pool_take(struct pool *p, int64_t timeout_ms, struct pool_result *ret) CHECK_RESULT;
/* Has a decoder that has no result yet been at work, within its limits, since this was asked last? */
bool pool_moves(struct pool *p);

#endif
