/* pool.h - threads that fetch, decode and resize pictures ahead of the compute thread.
 *
 * Who may call: one thread, the one that made the pool. Requests and results cross to the pool's threads by mailbox; a
 * request's slot belongs to the pool from pool_submit until its result has been taken. Units:  times nanoseconds, sizes
 * bytes, sides pixels. Memory: paths are copied in; slots are the caller's, size_px * size_px * 3 bytes each, and must
 * outlive the request. Errors: negative errno for misuse and full queues; a picture that fails is a result with a code,
 * never an error here. Results come in any order. At most `capacity` requests are between submit and take. */
#ifndef BLIPLINE_ENCODER_WORKER_POOL_H
#define BLIPLINE_ENCODER_WORKER_POOL_H

#include "base/err.h"
#include "encoder_worker/decode.h"

#include <stddef.h>
#include <stdint.h>

enum { POOL_MAX_PATH_BYTES = 4096, POOL_MAX_CAPACITY = 65536 };

struct pool;

struct pool_conf {
    int n_threads;    /* 1 .. 256 */
    int capacity;     /* requests in the pool, 1 .. POOL_MAX_CAPACITY; some 5 KiB each */
    uint32_t size_px; /* S of the slots */
    struct decode_options options;
};

struct pool_result {
    uint64_t index;        /* the caller's, untouched */
    uint8_t *slot;         /* the caller's; (S, S, 3) RGB when code is IMAGE_OK, else zeros */
    enum image_error code; /* IMAGE_OK or the reason */
    struct err message;    /* ASCII, without the path; "" when ok */
    uint64_t file_bytes;
    uint32_t width, height; /* before the resize; 0 when not decoded */
    int64_t fetch_ns, decode_ns, resize_ns;
};

int pool_new(const struct pool_conf *conf, struct pool **ret, struct err *err) CHECK_RESULT;
/* Drops what is queued, waits for what is being decoded, ends the threads. Slots are not touched afterwards. */
void pool_free(struct pool *p);

/* `path` need not be NUL-terminated. -EAGAIN: `capacity` requests are in the pool. -EINVAL: empty, or holds a NUL.
 * -ENAMETOOLONG: more than POOL_MAX_PATH_BYTES. */
int pool_submit(struct pool *p, uint64_t index, const char *path, size_t path_bytes, uint8_t *slot) CHECK_RESULT;
/* 1: *ret is filled. 0: none finished within timeout_ms (0: do not wait, -1: for ever), or none in the pool. */
int pool_take(struct pool *p, int64_t timeout_ms, struct pool_result *ret) CHECK_RESULT;
/* Readable while results wait. */
int pool_fd(const struct pool *p);
/* Requests between submit and take. */
size_t pool_in_flight(const struct pool *p);

#endif
