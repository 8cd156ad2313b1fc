#include "encoder_worker/pool.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mailbox.h"
#include "source/fetch.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 256 };

/* Buffers above this size are freed after the file has been decoded. */
#define KEEP_FILE_BYTES ((size_t)16 << 20)

/* A request for a thread, which returns it with the result; unused ones are in `spare`. */
struct job {
    struct job *next_spare;
    struct pool_result result;
    const void *data; /* a picture in memory; NULL: in the file `path` */
    size_t n_bytes;
    char path[POOL_MAX_PATH_BYTES + 1];
};

/* The data of a thread: its decoder, the two mailboxes, and constants. */
struct fetcher {
    struct mailbox *requests, *results;
    size_t max_file_bytes;
    struct decoder *decoder;
    struct job *jobs[DECODER_DEPTH]; /* the first n_jobs are being decoded, oldest first */
    struct buf bytes[DECODER_DEPTH]; /* contents of their files, in no order */
    int n_jobs;
    uint64_t n_fetched;
    size_t n_fetchers;
    pthread_t thread;
};

struct pool {
    struct mailbox *requests, *results; /* each has room for every job, so a post never blocks */
    struct job *jobs, *spare;           /* spare: used by the caller's thread only */
    size_t n_in_flight;
    unsigned ticks; /* of the decoders at the last call of pool_moves */
    struct decoder_conf decoding;
    int n_started;
    int n_fetchers;
    struct fetcher fetchers[];
};

static void give_back(struct fetcher *f, struct job *job)
{
    int rc = mailbox_post(f->results, job);

    assert(rc == 0); /* it has room for every job and is never closed */
    (void)rc;
}

static void read_file(struct fetcher *f, struct job *job)
{
    struct buf *bytes = &f->bytes[f->n_fetched % DECODER_DEPTH];

    if (bytes->capacity_bytes > KEEP_FILE_BYTES)
        buf_release(bytes);
    job->result.code = source_fetch(job->path, f->max_file_bytes, bytes, &job->result.message);
    job->data = bytes->data;
    job->n_bytes = bytes->size_bytes;
}

/* Reads the file, if it is one, and sends it to the decoder. */
static void fetch(struct fetcher *f, struct job *job)
{
    struct pool_result *r = &job->result;
    int64_t t0 = clock_mono_ns();

    if (job->data)
        r->code = source_fetched(job->n_bytes, f->max_file_bytes, &r->message);
    else
        read_file(f, job);
    r->file_bytes = job->n_bytes;
    r->fetch_ns = clock_mono_ns() - t0;
    if (r->code != IMAGE_OK) {
        give_back(f, job);
        return;
    }
    decoder_ask(f->decoder, job->data, job->n_bytes);
    f->jobs[f->n_jobs++] = job;
    f->n_fetched++;
}

/* Waits for the oldest image. */
static void finish(struct fetcher *f)
{
    struct job *job = f->jobs[0];
    struct pool_result *r = &job->result;
    struct decoder_result decoded;

    decoder_answer(f->decoder, &decoded);
    memmove(f->jobs, f->jobs + 1, (size_t)--f->n_jobs * sizeof(job));
    r->code = decoded.code;
    r->message = decoded.message;
    r->slot = decoded.slot;
    r->width = decoded.width;
    r->height = decoded.height;
    r->decode_ns = decoded.decode_ns;
    r->resize_ns = decoded.resize_ns;
    give_back(f, job);
}

/* Takes the next job. Waits for one if the decoder is idle; takes a second only if there are enough for all. */
static struct job *next_job(struct fetcher *f)
{
    if (f->n_jobs == 0)
        return mailbox_take_wait(f->requests, -1);
    return f->n_jobs < DECODER_DEPTH && mailbox_length(f->requests) >= f->n_fetchers ? mailbox_take(f->requests) : NULL;
}

static void *fetcher_main(void *arg)
{
    struct fetcher *f = arg;

    for (;;) {
        struct job *job = next_job(f);

        if (job)
            fetch(f, job);
        else if (f->n_jobs)
            finish(f);
        else
            return NULL;
    }
}

/* Starts the processes in parallel, before any threads exist. */
static int start_decoders(struct pool *p, struct err *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < p->n_fetchers; i++)
        rc = decoder_new(&p->decoding, &p->fetchers[i].decoder, err);
    for (int i = 0; rc == 0 && i < p->n_fetchers; i++)
        rc = decoder_await(p->fetchers[i].decoder, err);
    return rc;
}

static int fetcher_start(struct pool *p, struct fetcher *f, struct err *err)
{
    int rc;

    f->requests = p->requests;
    f->results = p->results;
    f->max_file_bytes = p->decoding.options.max_file_bytes;
    f->n_fetchers = (size_t)p->n_fetchers;
    for (int i = 0; i < DECODER_DEPTH; i++)
        buf_init(&f->bytes[i], 0);
    rc = -pthread_create(&f->thread, NULL, fetcher_main, f);
    if (rc < 0)
        return err_set(err, rc, "decode pool: cannot start a thread: %s", strerror(-rc));
    (void)pthread_setname_np(f->thread, "fetch");
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
    p = calloc(1, sizeof(*p) + (size_t)conf->n_threads * sizeof(p->fetchers[0]));
    if (!p)
        return err_set(err, -ENOMEM, "decode pool: no memory");
    p->n_fetchers = conf->n_threads;
    p->decoding = (struct decoder_conf){.size_px = conf->size_px,
                                        .n_slots = (uint32_t)conf->capacity,
                                        .options = conf->options,
                                        .memory_bytes = conf->memory_bytes,
                                        .time_ms = conf->time_ms,
                                        .giants = PTHREAD_MUTEX_INITIALIZER};
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
    if (rc == 0)
        rc = start_decoders(p, err);
    for (int i = 0; rc == 0 && i < p->n_fetchers; i++)
        rc = fetcher_start(p, &p->fetchers[i], err);
    if (rc < 0) {
        pool_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pool_stop(struct pool *p)
{
    if (!p)
        return;
    if (p->requests) {
        mailbox_close(p->requests);
        while (mailbox_take(p->requests)) /* drop what no thread has taken */
            ;
    }
    for (int i = 0; i < p->n_started; i++) {
        (void)pthread_join(p->fetchers[i].thread, NULL);
        for (int k = 0; k < DECODER_DEPTH; k++)
            buf_release(&p->fetchers[i].bytes[k]);
    }
    p->n_started = 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pool_stop(p);
    for (int i = 0; i < p->n_fetchers; i++)
        decoder_free(p->fetchers[i].decoder);
    (void)pthread_mutex_destroy(&p->decoding.giants);
    mailbox_free(p->requests, NULL);
    mailbox_free(p->results, NULL);
    free(p->jobs);
    free(p);
}

static int submit(struct pool *p, struct job *job, uint64_t index)
{
    int rc;

    job->result = (struct pool_result){.index = index};
    p->spare = job->next_spare;
    rc = mailbox_post(p->requests, job);
    assert(rc == 0);
    (void)rc;
    p->n_in_flight++;
    return 0;
}

int pool_submit(struct pool *p, uint64_t index, const char *path, size_t path_bytes)
{
    struct job *job = p->spare;

    if (path_bytes > POOL_MAX_PATH_BYTES)
        return -ENAMETOOLONG;
    if (path_bytes == 0 || memchr(path, '\0', path_bytes))
        return -EINVAL;
    if (!job)
        return -EAGAIN;
    job->data = NULL;
    memcpy(job->path, path, path_bytes);
    job->path[path_bytes] = '\0';
    return submit(p, job, index);
}

int pool_submit_bytes(struct pool *p, uint64_t index, const void *data, size_t n_bytes)
{
    struct job *job = p->spare;

    if (!job)
        return -EAGAIN;
    job->data = n_bytes ? data : "";
    job->n_bytes = n_bytes;
    return submit(p, job, index);
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

bool pool_moves(struct pool *p)
{
    const unsigned before = p->ticks;

    p->ticks = atomic_load_explicit(&p->decoding.ticks, memory_order_relaxed);
    return p->ticks != before;
}
