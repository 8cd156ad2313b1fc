/* bench_wire.c - what our relay costs: DEALER -> ROUTER -> DEALER with bare ZeroMQ frames, and with envelopes, rows,
 * tensors and queues around the same bytes. Alternating, the median of five.
 *
 * usage: bench_wire [tensor bytes a message ...] (default: 64 KiB, 6 MB, 46 MB: 64 items of Q-Former and ViT
 * outputs). */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/broker_socket.h"
#include "wire/context.h"

enum { N_ROUNDS = 5, ITEMS = 64, WINDOW = 8 };
#define FRAME_BYTES ((size_t)8 << 20)

static const char endpoint[] = "ipc:///tmp/blipline-bench-wire.sock";

struct side {
    size_t bytes; /* of tensor, a message */
    int n_messages;
    bool bare;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_wire: %s: %s\n", what, zmq_strerror(errno));
    exit(1);
}

static void *dealer_open(void)
{
    void *d = zmq_socket(wire_context(), ZMQ_DEALER);
    int hwm = 16, linger = 5000;

    if (!d || zmq_setsockopt(d, ZMQ_SNDHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(d, ZMQ_RCVHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(d, ZMQ_LINGER, &linger, sizeof(linger)) < 0 || zmq_connect(d, endpoint) < 0)
        die("connect");
    return d;
}

static void send_bytes(void *d, const void *data, size_t n, int flags)
{
    if (zmq_send(d, data, n, flags) < 0)
        die("send");
}

static void keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

/* A message as a worker sends it; the tensor's bytes are `data`, not copied and, as in a relay, hashed beforehand. */
static struct wire_message *message_of(const struct wire_tensor *t)
{
    struct wire_message *m;
    struct buf rows;

    if (wire_message_new(MSG_RESULT, &m) < 0)
        die("message");
    wire_message_envelope(m)->result.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = ITEMS};
    buf_init(&rows, 0);
    for (uint64_t i = 0; i < ITEMS; i++) {
        struct row_record r = {.item = i};

        if (row_record_append(&rows, &r) < 0)
            die("row");
    }
    if (wire_message_add_rows(m, &rows, ITEMS) < 0 || wire_message_add_tensor(m, t) < 0)
        die("message");
    return m;
}

static void send_ours(void *d, const struct wire_tensor *t)
{
    struct wire_message *m = message_of(t);
    zmq_pollitem_t item = {.socket = d, .events = ZMQ_POLLOUT};
    struct err err;
    int rc;

    while ((rc = wire_message_send(d, NULL, m, &err)) == -EAGAIN)
        (void)zmq_poll(&item, 1, -1);
    if (rc < 0)
        die("send");
    wire_message_free(m);
}

static void send_bare(void *d, uint8_t *data, size_t bytes)
{
    send_bytes(d, "header", 6, ZMQ_SNDMORE);
    for (size_t at = 0; at < bytes; at += FRAME_BYTES) {
        size_t n = bytes - at < FRAME_BYTES ? bytes - at : FRAME_BYTES;
        zmq_msg_t frame;

        if (zmq_msg_init_data(&frame, data + at, n, keep, NULL) < 0 ||
            zmq_msg_send(&frame, d, at + n < bytes ? ZMQ_SNDMORE : 0) < 0)
            die("send");
    }
}

/* The consumer grants the producer one more for each message it has read, through the relay: queues stay short. */
static void *producer_main(void *arg)
{
    const struct side *s = arg;
    uint32_t shape[2] = {ITEMS, (uint32_t)(s->bytes / ITEMS)};
    uint8_t *data = calloc(1, s->bytes);
    struct wire_tensor *t;
    void *d = dealer_open();
    char byte;

    if (!data || wire_tensor_new(DTYPE_U8, shape, 2, data, free, data, &t, NULL) < 0)
        die("tensor");
    for (int i = 0; i < s->n_messages; i++) {
        if (i >= WINDOW && zmq_recv(d, &byte, 1, 0) < 0)
            die("grant");
        if (s->bare)
            send_bare(d, data, s->bytes);
        else
            send_ours(d, t);
    }
    for (int i = 0; i < WINDOW; i++) /* the last ones: nobody reads `data` any more */
        if (zmq_recv(d, &byte, 1, 0) < 0)
            die("grant");
    (void)zmq_close(d);
    wire_tensor_free(t);
    return NULL;
}

static void *consumer_main(void *arg)
{
    const struct side *s = arg;
    void *d = dealer_open();
    struct buf grant;
    struct msg m;
    int n = 0;

    msg_init(&m, MSG_DRAIN); /* any small message */
    buf_init(&grant, 0);
    if (msg_pack(&m, &grant, NULL) < 0)
        die("grant");
    send_bytes(d, "ready", 5, 0);
    while (n < s->n_messages) {
        zmq_msg_t frame;

        (void)zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, d, 0) < 0)
            die("receive");
        if (!zmq_msg_more(&frame)) {
            send_bytes(d, grant.data, grant.size_bytes, 0);
            n++;
        }
        (void)zmq_msg_close(&frame);
    }
    (void)zmq_close(d);
    buf_release(&grant);
    return NULL;
}

/* -- the bare relay: frames go from one peer to the other as they come */

static void relay_bare(void *router, const uint8_t *consumer, size_t n_consumer, int n_messages)
{
    uint8_t from[256], producer[256];
    size_t n_producer = 0;
    int n_grants = 0;

    while (n_grants < n_messages) {
        int more = 1, n = zmq_recv(router, from, sizeof(from), 0);
        bool granted = n == (int)n_consumer && memcmp(from, consumer, n_consumer) == 0;
        zmq_msg_t frame;

        if (n < 0)
            die("receive");
        if (!granted)
            memcpy(producer, from, n_producer = (size_t)n);
        send_bytes(router, granted ? producer : consumer, granted ? n_producer : n_consumer, ZMQ_SNDMORE);
        while (more) {
            (void)zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, router, 0) < 0)
                die("receive");
            more = zmq_msg_more(&frame);
            if (zmq_msg_send(&frame, router, more ? ZMQ_SNDMORE : 0) < 0)
                die("send");
        }
        n_grants += granted;
    }
}

static void start(pthread_t *thread, void *(*body)(void *), struct side *s)
{
    if (pthread_create(thread, NULL, body, s))
        die("thread");
}

/* The relay is bound first, then the consumer says "ready", then the producer begins, then the clock runs. */
static int64_t run_bare(struct side *side)
{
    void *router = zmq_socket(wire_context(), ZMQ_ROUTER);
    int on = 1, hwm = 16, linger = 5000, n_consumer;
    pthread_t producer, consumer;
    uint8_t consumer_id[256];
    int64_t begin;

    if (zmq_setsockopt(router, ZMQ_ROUTER_MANDATORY, &on, sizeof(on)) < 0 ||
        zmq_setsockopt(router, ZMQ_SNDHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(router, ZMQ_RCVHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(router, ZMQ_LINGER, &linger, sizeof(linger)) < 0 || zmq_bind(router, endpoint) < 0)
        die("bind");
    start(&consumer, consumer_main, side);
    n_consumer = zmq_recv(router, consumer_id, sizeof(consumer_id), 0);
    if (n_consumer < 0 || zmq_recv(router, &on, sizeof(on), 0) < 0)
        die("receive");
    start(&producer, producer_main, side);
    begin = clock_mono_ns();
    relay_bare(router, consumer_id, (size_t)n_consumer, side->n_messages);
    (void)pthread_join(consumer, NULL);
    begin = clock_mono_ns() - begin;
    (void)pthread_join(producer, NULL);
    (void)zmq_close(router);
    return begin;
}

/* -- ours: a Result comes in, its tensor goes out again in a Work, as the broker does it */

static void relay_one(struct broker_socket *s, uint64_t consumer, struct wire_message *in)
{
    struct wire_message *out;
    struct wire_tensor *t = wire_message_take_tensor(in, 0);
    struct row_item item = {.key = (const uint8_t *)"key", .key_bytes = 3};
    struct buf rows;
    struct err err;

    if (wire_message_new(MSG_WORK, &out) < 0)
        die("message");
    wire_message_envelope(out)->work.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = ITEMS};
    buf_init(&rows, 0);
    for (int i = 0; i < ITEMS; i++)
        if (row_item_append(&rows, &item) < 0)
            die("row");
    if (wire_message_add_rows(out, &rows, ITEMS) < 0 || wire_message_add_tensor(out, t) < 0)
        die("message");
    wire_tensor_free(t);
    if (broker_socket_send(s, consumer, &out, &err) < 0)
        die(err.text);
}

static uint64_t wait_for_consumer(struct broker_socket *s)
{
    struct broker_socket_event e;

    while (broker_socket_next(s, &e) != 1)
        if (broker_socket_wait(s, NULL, 0, 1000) < 0)
            die("wait");
    return e.peer; /* a BAD event: "ready" is no envelope */
}

static void relay_ours(struct broker_socket *s, uint64_t consumer, int n_messages)
{
    struct broker_socket_event e;
    uint64_t producer = 0;
    struct err err;

    for (int n_grants = 0; n_grants < n_messages;) {
        if (broker_socket_next(s, &e) != 1) {
            if (broker_socket_wait(s, NULL, 0, 1000) < 0)
                die("wait");
        } else if (e.type == BROKER_SOCKET_MESSAGE && e.peer != consumer) {
            producer = e.peer;
            relay_one(s, consumer, e.message);
        } else if (e.type == BROKER_SOCKET_MESSAGE) {
            if (broker_socket_send_msg(s, producer, wire_message_envelope(e.message), &err) < 0)
                die(err.text);
            n_grants++;
        }
        wire_message_free(e.message);
    }
}

static int64_t run_ours(struct side *side)
{
    struct broker_socket_conf conf = {.endpoint = endpoint};
    pthread_t producer, consumer;
    struct broker_socket *s;
    uint64_t consumer_peer;
    int64_t begin;
    struct err err;

    if (broker_socket_open(&conf, &s, &err) < 0)
        die(err.text);
    start(&consumer, consumer_main, side);
    consumer_peer = wait_for_consumer(s);
    start(&producer, producer_main, side);
    begin = clock_mono_ns();
    relay_ours(s, consumer_peer, side->n_messages);
    (void)pthread_join(consumer, NULL);
    begin = clock_mono_ns() - begin;
    (void)pthread_join(producer, NULL);
    broker_socket_close(&s);
    return begin;
}

static double run(struct side s)
{
    int64_t ns;

    (void)unlink(endpoint + 6); /* bare ZeroMQ leaves it behind */
    ns = s.bare ? run_bare(&s) : run_ours(&s);
    return (double)s.n_messages / ((double)ns / 1e9);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(size_t bytes)
{
    double rate[2][N_ROUNDS], share;
    int n_messages = (int)((bytes > 1 << 20 ? (size_t)1 << 30 : (size_t)256 << 20) / bytes);

    if (n_messages < 2 * WINDOW)
        n_messages = 2 * WINDOW;
    if (n_messages > 20000)
        n_messages = 20000;
    for (int i = 0; i < 2 * N_ROUNDS; i++)
        rate[i % 2][i / 2] = run((struct side){.bytes = bytes, .n_messages = n_messages, .bare = i % 2 == 0});
    for (int i = 0; i < 2; i++)
        qsort(rate[i], N_ROUNDS, sizeof(double), by_value);
    share = rate[1][N_ROUNDS / 2] / rate[0][N_ROUNDS / 2];
    printf("%10zu bytes a message: bare %8.0f msg/s %6.2f GB/s, ours %8.0f msg/s %6.2f GB/s: %.0f %%\n", bytes,
           rate[0][N_ROUNDS / 2], rate[0][N_ROUNDS / 2] * (double)bytes / 1e9, rate[1][N_ROUNDS / 2],
           rate[1][N_ROUNDS / 2] * (double)bytes / 1e9, 100 * share);
    printf("CSV,wire,relay_%zu,%.3f,share of bare\n", bytes, share);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {64 * 1024, 64 * 98304, 64 * 723712};
    struct err err;

    if (wire_init(2, &err) < 0)
        die(err.text);
    if (argc > 1)
        for (int i = 1; i < argc; i++)
            measure((size_t)strtoull(argv[i], NULL, 10) / ITEMS * ITEMS);
    else
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            measure(sizes[i]);
    wire_exit();
    (void)unlink(endpoint + 6);
    return 0;
}
