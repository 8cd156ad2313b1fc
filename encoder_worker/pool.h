/* pool.h - fetches, decodes and resizes pictures ahead of the compute thread.
 *
 * Threads read the files; each has a decoder process (decoder.h). main() of a program with a pool must begin with
 * decoder_is_asked_for.
 * Who may call: the thread that made the pool. Requests and results are exchanged with the pool's threads through
 * mailboxes.
 * Units: times nanoseconds, sizes bytes, sides pixels.
 * Memory: paths are copied. The caller frees a result's pixels with decoder_slot_free, before pool_free.
 * Errors: negative errno for misuse and full queues; an image that fails is a result with a code. Results come in
 * any order. At most `capacity` requests may be pending, and at most `capacity` images held. */
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
    int capacity;     /* requests in the pool, 1 .. POOL_MAX_CAPACITY; about 5 KiB each plus the pixels */
    uint32_t size_px; /* S, the side of the images */
    struct decode_options options;
    uint64_t memory_bytes; /* limit of a process's allocations */
    int64_t time_ms;       /* limit per image, of CPU time or of idle time */
};

struct pool_result {
    uint64_t index;            /* for the caller */
    struct decoder_slot *slot; /* (S, S, 3) RGB if code is IMAGE_OK, else NULL */
    enum image_error code;     /* IMAGE_OK or the reason */
    struct err message;        /* ASCII, without the path; "" when ok */
    uint64_t file_bytes;
    uint32_t width, height; /* before the resize; 0 if not decoded */
    int64_t fetch_ns, decode_ns, resize_ns;
};

int pool_new(const struct pool_conf *conf, struct pool **ret, struct err *err) CHECK_RESULT;
/* Drops queued requests, waits for running ones, ends the threads and processes. */
void pool_free(struct pool *p); /* NULL is fine, as for the next */
/* The first half of it: results stay valid. */
void pool_stop(struct pool *p);

/* `path` need not be NUL-terminated. -EAGAIN: `capacity` requests are in the pool. -EINVAL: empty or contains a NUL.
 * -ENAMETOOLONG: more than POOL_MAX_PATH_BYTES. */
int pool_submit(struct pool *p, uint64_t index, const char *path, size_t path_bytes) CHECK_RESULT;
/* The same with a picture in memory, which stays as it is until its result is taken, or pool_stop has returned. */
int pool_submit_bytes(struct pool *p, uint64_t index, const void *data, size_t n_bytes) CHECK_RESULT;
/* 1: *ret is filled. 0: none finished within timeout_ms (0: do not wait, -1: no limit), or the pool is empty. */
int pool_take(struct pool *p, int64_t timeout_ms, struct pool_result *ret) CHECK_RESULT;
/* True if a decoder has worked on an unfinished image, within its limits, since the last call. */
bool pool_moves(struct pool *p);

#endif
