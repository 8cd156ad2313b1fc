#include "wire/zap.h"

#include "base/mailbox.h"
#include "wire/context.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { MAX_FRAMES = 8, FRAME_SIZE = 256, LISTS = 16, DENIALS = 64 };

struct zap {
    void *socket; /* the thread's */
    struct allowed *allowed;
    struct mailbox *lists;   /* struct allowed *, or the zap itself: stop */
    struct mailbox *denials; /* struct zap_denial * */
    pthread_t thread;
    atomic_uint_fast64_t n_accepted, n_denied;
};

/* -- the thread */

/* version, request id, domain, address, routing id, mechanism, credentials */
enum request_frame { VERSION, REQUEST_ID, DOMAIN, ADDRESS, ROUTING_ID, MECHANISM, CREDENTIALS, N_FRAMES };

struct request {
    int n_frames;
    size_t n_bytes[MAX_FRAMES];
    uint8_t data[MAX_FRAMES][FRAME_SIZE];
};

static bool receive(void *socket, struct request *r)
{
    int more = 1, n;
    size_t size = sizeof(more);

    r->n_frames = 0;
    while (more) {
        uint8_t rest[FRAME_SIZE];
        const int i = r->n_frames;

        n = zmq_recv(socket, i < MAX_FRAMES ? r->data[i] : rest, FRAME_SIZE, ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        if (i < MAX_FRAMES)
            r->n_bytes[i] = (size_t)n;
        r->n_frames++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) < 0)
            return false;
    }
    return true;
}

static bool frame_is(const struct request *r, enum request_frame i, const char *text)
{
    return r->n_bytes[i] == strlen(text) && memcmp(r->data[i], text, r->n_bytes[i]) == 0;
}

static const struct allowed_key *decide(const struct zap *z, const struct request *r)
{
    if (r->n_frames != N_FRAMES || !frame_is(r, VERSION, "1.0") || !frame_is(r, DOMAIN, ZAP_DOMAIN) ||
        !frame_is(r, MECHANISM, "CURVE") || r->n_bytes[CREDENTIALS] != KEY_BYTES)
        return NULL;
    return allowed_find(z->allowed, r->data[CREDENTIALS]);
}

static void send_part(void *socket, const void *data, size_t n_bytes, int more)
{
    (void)zmq_send(socket, data, n_bytes, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)); /* an inproc peer always has room */
}

static void answer(struct zap *z, const struct request *r, const struct allowed_key *key)
{
    const char *id = key ? key->id : "";

    send_part(z->socket, "1.0", 3, 1);
    send_part(z->socket, r->data[REQUEST_ID], r->n_frames > REQUEST_ID ? r->n_bytes[REQUEST_ID] : 0, 1);
    send_part(z->socket, key ? "200" : "400", 3, 1);
    send_part(z->socket, "", 0, 1);
    send_part(z->socket, id, strlen(id), 1);
    send_part(z->socket, "", 0, 0);
}

static void note_denial(struct zap *z, const struct request *r)
{
    struct zap_denial *d = calloc(1, sizeof(*d));
    size_t n;

    if (!d)
        return;
    if (r->n_frames > ADDRESS) {
        n = r->n_bytes[ADDRESS] < sizeof(d->address) ? r->n_bytes[ADDRESS] : sizeof(d->address) - 1;
        memcpy(d->address, r->data[ADDRESS], n);
    }
    if (r->n_frames == N_FRAMES && r->n_bytes[CREDENTIALS] == KEY_BYTES)
        (void)zmq_z85_encode(d->key, r->data[CREDENTIALS], KEY_BYTES);
    if (mailbox_post(z->denials, d) < 0)
        free(d);
}

static void answer_all(struct zap *z)
{
    struct request r;

    while (receive(z->socket, &r)) {
        const struct allowed_key *key = decide(z, &r);

        if (key) {
            atomic_fetch_add(&z->n_accepted, 1);
        } else {
            atomic_fetch_add(&z->n_denied, 1);
            note_denial(z, &r);
        }
        answer(z, &r, key);
    }
}

static void *zap_main(void *arg)
{
    struct zap *z = arg;

    (void)pthread_setname_np(pthread_self(), "zap");
    for (;;) {
        zmq_pollitem_t items[] = {{.socket = z->socket, .events = ZMQ_POLLIN},
                                  {.fd = mailbox_fd(z->lists), .events = ZMQ_POLLIN}};
        struct allowed *list;

        (void)zmq_poll(items, 2, -1);
        while ((list = mailbox_take(z->lists))) {
            if ((void *)list == z)
                return NULL;
            allowed_free(z->allowed);
            z->allowed = list;
        }
        answer_all(z);
    }
}

/* -- the owner's side */

static void zap_free(struct zap *z)
{
    if (z->socket)
        (void)zmq_close(z->socket);
    allowed_free(z->allowed);
    mailbox_free(z->lists, free);
    mailbox_free(z->denials, free);
    free(z);
}

int zap_start(struct allowed *allowed, struct zap **ret, struct err *err)
{
    struct zap *z = calloc(1, sizeof(*z));
    int rc, zero = 0;

    if (!z) {
        allowed_free(allowed);
        return err_set(err, -ENOMEM, "no memory for the allow-list");
    }
    z->allowed = allowed;
    z->socket = zmq_socket(wire_context(), ZMQ_REP);
    rc = z->socket ? 0 : -errno;
    if (rc == 0 && (zmq_setsockopt(z->socket, ZMQ_LINGER, &zero, sizeof(zero)) < 0 ||
                    zmq_bind(z->socket, "inproc://zeromq.zap.01") < 0))
        rc = -errno;
    if (rc < 0)
        rc = err_set(err, rc, "ZeroMQ: %s", zmq_strerror(-rc));
    else if ((rc = mailbox_new(LISTS, &z->lists)) < 0 || (rc = mailbox_new(DENIALS, &z->denials)) < 0 ||
             (rc = -pthread_create(&z->thread, NULL, zap_main, z)) < 0)
        rc = err_set(err, rc, "cannot start the thread that checks keys: %s", strerror(-rc));
    if (rc < 0)
        zap_free(z);
    else
        *ret = z;
    return rc;
}

void zap_stop(struct zap **zp)
{
    struct zap *z = *zp;

    if (!z)
        return;
    *zp = NULL;
    if (mailbox_post_wait(z->lists, z, -1) == 0)
        (void)pthread_join(z->thread, NULL);
    zap_free(z);
}

void zap_replace(struct zap *z, struct allowed *allowed)
{
    if (mailbox_post_wait(z->lists, allowed, -1) < 0)
        allowed_free(allowed);
}

struct zap_counters zap_counters(const struct zap *z)
{
    return (struct zap_counters){.accepted = atomic_load(&z->n_accepted), .denied = atomic_load(&z->n_denied)};
}

bool zap_next_denial(struct zap *z, struct zap_denial *ret)
{
    struct zap_denial *d = mailbox_take(z->denials);

    if (!d)
        return false;
    *ret = *d;
    free(d);
    return true;
}
