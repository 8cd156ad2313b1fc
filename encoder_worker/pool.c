#include "encoder_worker/pool.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mailbox.h"
#include "encoder_worker/resize.h"
#include "source/fetch.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 256 };

/* The bytes of a file above this are given back after it has been decoded. */
#define KEEP_FILE_BYTES ((size_t)16 << 20)

/* Travels to a thread, comes back with its result, waits among the spare ones. */
struct job {
    struct job *next_spare;
    struct pool_result result;
    char path[POOL_MAX_PATH_BYTES + 1];
};

/* What a thread may touch: its own scratch, the two mailboxes, and constants. */
struct decoder {
    struct mailbox *requests, *results;
    uint32_t size_px;
    struct decode_options options;
    struct resize *resize;
    struct picture picture;
    struct buf bytes;
    pthread_t thread;
};

struct pool {
    struct mailbox *requests, *results; /* each has room for every job: a post never waits */
    struct job *jobs, *spare;           /* spare: the caller's thread only */
    size_t n_in_flight;
    int n_started;
    int n_decoders;
    pthread_mutex_t giants; /* see struct picture */
    struct decoder decoders[];
};

/* A file that has no pixels leaves zeros, never the picture that was in the slot before. */
static void decode_into_slot(struct decoder *d, const char *path, struct pool_result *r)
{
    size_t slot_bytes = (size_t)d->size_px * d->size_px * 3;
    int64_t t0 = clock_mono_ns(), t1, t2;

    r->code = source_fetch(path, d->options.max_file_bytes, &d->bytes, &r->message);
    r->file_bytes = d->bytes.size_bytes;
    t1 = clock_mono_ns();
    r->fetch_ns = t1 - t0;
    if (r->code == IMAGE_OK) {
        r->code = decode_picture(d->bytes.data, d->bytes.size_bytes, &d->options, &d->picture, &r->message);
        r->width = d->picture.width;
        r->height = d->picture.height;
        t2 = clock_mono_ns();
        r->decode_ns = t2 - t1;
        if (r->code == IMAGE_OK) {
            if (resize_rgb(d->resize, d->picture.rgb, r->width, r->height, r->slot, d->size_px, d->size_px) < 0) {
                r->code = IMAGE_NO_MEMORY;
                (void)err_set(&r->message, -ENOMEM, "no memory to resize the picture");
            }
            r->resize_ns = clock_mono_ns() - t2;
        }
    }
    picture_done(&d->picture);
    if (r->code != IMAGE_OK)
        memset(r->slot, 0, slot_bytes);
    if (d->bytes.capacity_bytes > KEEP_FILE_BYTES)
        buf_release(&d->bytes);
}

static void *decoder_main(void *arg)
{
    struct decoder *d = arg;
    struct job *job;

    while ((job = mailbox_take_wait(d->requests, -1))) {
        int rc;

        decode_into_slot(d, job->path, &job->result);
        rc = mailbox_post(d->results, job);
        assert(rc == 0); /* room for every job, and closed by nobody */
        (void)rc;
    }
    return NULL;
}

static int decoder_start(struct pool *p, struct decoder *d, const struct pool_conf *conf, struct err *err)
{
    sigset_t all, before;
    int rc;

    d->requests = p->requests;
    d->results = p->results;
    d->size_px = conf->size_px;
    d->options = conf->options;
    picture_init(&d->picture, &p->giants);
    buf_init(&d->bytes, 0);
    rc = resize_new(&d->resize);
    if (rc < 0)
        return err_set(err, rc, "decode pool: no memory");
    (void)sigfillset(&all); /* signals are the loop thread's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = -pthread_create(&d->thread, NULL, decoder_main, d);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0) {
        resize_free(d->resize);
        return err_set(err, rc, "decode pool: cannot start a thread: %s", strerror(-rc));
    }
    (void)pthread_setname_np(d->thread, "decode");
    p->n_started++;
    return 0;
}

int pool_new(const struct pool_conf *conf, struct pool **ret, struct err *err)
{
    struct pool *p;
    int rc;

    if (conf->n_threads < 1 || conf->n_threads > MAX_THREADS || conf->capacity < 1 ||
        conf->capacity > POOL_MAX_CAPACITY || conf->size_px < 1 || conf->size_px > 4096)
        return err_set(err, -EINVAL, "decode pool: %d threads, %d requests, %u pixels: out of range", conf->n_threads,
                       conf->capacity, conf->size_px);
    p = calloc(1, sizeof(*p) + (size_t)conf->n_threads * sizeof(p->decoders[0]));
    if (!p)
        return err_set(err, -ENOMEM, "decode pool: no memory");
    p->n_decoders = conf->n_threads;
    (void)pthread_mutex_init(&p->giants, NULL);
    rc = mailbox_new((size_t)conf->capacity, &p->requests);
    if (rc == 0)
        rc = mailbox_new((size_t)conf->capacity, &p->results);
    p->jobs = calloc((size_t)conf->capacity, sizeof(*p->jobs));
    if (rc == 0 && !p->jobs)
        rc = -ENOMEM;
    if (rc < 0)
        rc = err_set(err, rc, "decode pool: cannot make the queues: %s", strerror(-rc));
    for (int i = 0; rc == 0 && i < conf->capacity; i++) {
        p->jobs[i].next_spare = p->spare;
        p->spare = &p->jobs[i];
    }
    for (int i = 0; rc == 0 && i < p->n_decoders; i++)
        rc = decoder_start(p, &p->decoders[i], conf, err);
    if (rc < 0) {
        pool_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    if (p->requests) {
        mailbox_close(p->requests);
        while (mailbox_take(p->requests)) /* what no thread has taken yet is not begun */
            ;
    }
    for (int i = 0; i < p->n_started; i++) {
        struct decoder *d = &p->decoders[i];

        (void)pthread_join(d->thread, NULL);
        resize_free(d->resize);
        picture_release(&d->picture);
        buf_release(&d->bytes);
    }
    (void)pthread_mutex_destroy(&p->giants);
    mailbox_free(p->requests, NULL);
    mailbox_free(p->results, NULL);
    free(p->jobs);
    free(p);
}

int pool_submit(struct pool *p, uint64_t index, const char *path, size_t path_bytes, uint8_t *slot)
{
    struct job *job = p->spare;
    int rc;

    if (path_bytes > POOL_MAX_PATH_BYTES)
        return -ENAMETOOLONG;
    if (path_bytes == 0 || memchr(path, '\0', path_bytes))
        return -EINVAL;
    if (!job)
        return -EAGAIN;
    job->result = (struct pool_result){.index = index, .slot = slot};
    memcpy(job->path, path, path_bytes);
    job->path[path_bytes] = '\0';
    p->spare = job->next_spare;
    rc = mailbox_post(p->requests, job);
    assert(rc == 0);
    (void)rc;
    p->n_in_flight++;
    return 0;
}

int pool_take(struct pool *p, int64_t timeout_ms, struct pool_result *ret)
{
    struct job *job;

    if (p->n_in_flight == 0)
        return 0;
    job = timeout_ms ? mailbox_take_wait(p->results, timeout_ms) : mailbox_take(p->results);
    if (!job)
        return 0;
    *ret = job->result;
    job->next_spare = p->spare;
    p->spare = job;
    p->n_in_flight--;
    return 1;
}

int pool_fd(const struct pool *p)
{
    return mailbox_fd(p->results);
}

size_t pool_in_flight(const struct pool *p)
{
    return p->n_in_flight;
}
