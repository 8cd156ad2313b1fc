/* bench_wire.c - what our relay costs: DEALER -> ROUTER -> DEALER with bare ZeroMQ frames, and with envelopes, rows,
 * tensors and queues around the same bytes; by ipc, and by tcp without and with keys. Relay, producer and consumer are
 * processes. Alternating, the median of five.
 *
 * usage: bench_wire [tensor bytes a message ...] (default: 64 KiB, 6 MB, 46 MB: 64 items of Q-Former and ViT outputs,
 *                                                 by ipc; 49 KiB and 724 kB, one item, by tcp on the loopback device)
 *        bench_wire --hosts ADDRESS RELAY PRODUCER CONSUMER bytes ... (namespaces; the address is the relay's) */
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/broker_socket.h"
#include "wire/context.h"

enum { N_ROUNDS = 5, WINDOW = 8 };
#define FRAME_BYTES ((size_t)8 << 20)

/* What the messages pass through. */
static struct {
    char endpoint[128];
    bool curve;
    uint32_t n_items;                        /* of a message */
    const char *relay, *producer, *consumer; /* namespaces; NULL: that of the caller */
} way = {"ipc:///tmp/blipline-bench-wire.sock", false, 64, NULL, NULL, NULL};
static struct wire_keys relay_keys, peer_keys;
static char folder[] = "/tmp/blipline-bench-keys-XXXXXX"; /* the allow-list */

struct side {
    size_t bytes; /* of tensor, a message */
    int n_messages;
    bool bare;
    int ready[2]; /* a pipe: the relay knows the consumer, the producer may begin */
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_wire: %s: %s\n", what, zmq_strerror(errno));
    exit(1);
}

static void set_int(void *socket, int option, int value)
{
    if (zmq_setsockopt(socket, option, &value, sizeof(value)) < 0)
        die("option");
}

static void set_key(void *socket, int option, const char *key)
{
    if (zmq_setsockopt(socket, option, key, KEY_TEXT_SIZE) < 0)
        die("key");
}

static void *bare_open(int type)
{
    void *socket = zmq_socket(wire_context(), type);

    if (!socket)
        die("socket");
    set_int(socket, ZMQ_SNDHWM, 16);
    set_int(socket, ZMQ_RCVHWM, 16);
    set_int(socket, ZMQ_LINGER, 5000);
    return socket;
}

static void *dealer_open(void)
{
    void *d = bare_open(ZMQ_DEALER);

    if (way.curve) {
        set_key(d, ZMQ_CURVE_SERVERKEY, relay_keys.public_key);
        set_key(d, ZMQ_CURVE_PUBLICKEY, peer_keys.public_key);
        set_key(d, ZMQ_CURVE_SECRETKEY, peer_keys.secret_key);
    }
    if (zmq_connect(d, way.endpoint) < 0)
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
    wire_message_envelope(m)->result.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = way.n_items};
    buf_init(&rows, 0);
    for (uint64_t i = 0; i < way.n_items; i++) {
        struct row_record r = {.item = i};

        if (row_record_append(&rows, &r) < 0)
            die("row");
    }
    if (wire_message_add_rows(m, &rows, way.n_items) < 0 || wire_message_add_tensor(m, t) < 0)
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
static void producer_main(const struct side *s)
{
    uint32_t shape[2] = {way.n_items, (uint32_t)(s->bytes / way.n_items)};
    uint8_t *data = calloc(1, s->bytes);
    struct wire_tensor *t;
    void *d = dealer_open();
    char byte;

    if (!data || wire_tensor_new(DTYPE_U8, shape, 2, data, free, data, &t, NULL) < 0)
        die("tensor");
    if (read(s->ready[0], &byte, 1) != 1)
        die("relay");
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
}

static void consumer_main(const struct side *s)
{
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

static void tell_producer(const struct side *side)
{
    if (write(side->ready[1], "", 1) != 1)
        die("producer");
}

/* The relay is bound first, then the consumer says "ready", then the producer begins, then the clock runs. */
static int64_t run_bare(const struct side *side)
{
    void *router = bare_open(ZMQ_ROUTER);
    uint8_t consumer_id[256];
    char byte[8];
    int n_consumer;
    int64_t begin;

    set_int(router, ZMQ_ROUTER_MANDATORY, 1);
    if (way.curve) {
        set_int(router, ZMQ_CURVE_SERVER, 1);
        set_key(router, ZMQ_CURVE_SECRETKEY, relay_keys.secret_key);
    }
    if (zmq_bind(router, way.endpoint) < 0)
        die("bind");
    n_consumer = zmq_recv(router, consumer_id, sizeof(consumer_id), 0);
    if (n_consumer < 0 || zmq_recv(router, byte, sizeof(byte), 0) < 0)
        die("receive");
    tell_producer(side);
    begin = clock_mono_ns();
    relay_bare(router, consumer_id, (size_t)n_consumer, side->n_messages);
    begin = clock_mono_ns() - begin;
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
    wire_message_envelope(out)->work.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = way.n_items};
    buf_init(&rows, 0);
    for (uint32_t i = 0; i < way.n_items; i++)
        if (row_item_append(&rows, &item) < 0)
            die("row");
    if (wire_message_add_rows(out, &rows, way.n_items) < 0 || wire_message_add_tensor(out, t) < 0)
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

static int64_t run_ours(const struct side *side)
{
    struct broker_socket_conf conf = {.endpoint = way.endpoint, .keys = &relay_keys, .authorized = folder};
    struct broker_socket *s;
    uint64_t consumer;
    int64_t begin;
    struct err err;

    relay_keys.insecure = !way.curve;
    relay_keys.curve = way.curve;
    if (broker_socket_open(&conf, &s, &err) < 0)
        die(err.text);
    consumer = wait_for_consumer(s);
    tell_producer(side);
    begin = clock_mono_ns();
    relay_ours(s, consumer, side->n_messages);
    begin = clock_mono_ns() - begin;
    broker_socket_close(&s);
    return begin;
}

/* The context's threads are in the namespace, too. */
static pid_t start(void (*body)(const struct side *), const struct side *s, const char *netns)
{
    const pid_t pid = fork();
    struct err err;
    char path[256];
    int fd = 0;

    if (pid < 0)
        die("fork");
    (void)snprintf(path, sizeof(path), "/run/netns/%s", netns ? netns : "");
    if (pid > 0)
        return pid;
    if (netns && (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0 && setns(fd, CLONE_NEWNET) < 0)
        die(path);
    if (fd < 0 || wire_init(1, &err) < 0)
        die(fd < 0 ? path : err.text);
    body(s);
    wire_exit();
    _exit(0);
}

static int result[2];

static void relay_main(const struct side *s)
{
    const int64_t ns = s->bare ? run_bare(s) : run_ours(s);

    if (write(result[1], &ns, sizeof(ns)) != sizeof(ns))
        die("result");
}

static double run(struct side s)
{
    const char *path = strncmp(way.endpoint, "ipc://", 6) == 0 ? way.endpoint + 6 : NULL;
    pid_t pids[3];
    int64_t ns;
    int status;

    if (path)
        (void)unlink(path); /* bare ZeroMQ leaves it behind */
    if (pipe(s.ready) < 0 || pipe(result) < 0)
        die("pipe");
    pids[0] = start(relay_main, &s, way.relay);
    pids[1] = start(consumer_main, &s, way.consumer);
    pids[2] = start(producer_main, &s, way.producer);
    for (int i = 0; i < 3; i++)
        if (waitpid(pids[i], &status, 0) < 0 || status != 0)
            die("a process failed");
    if (read(result[0], &ns, sizeof(ns)) != sizeof(ns))
        die("result");
    for (int i = 0; i < 2; i++) {
        (void)close(s.ready[i]);
        (void)close(result[i]);
    }
    if (path)
        (void)unlink(path);
    return (double)s.n_messages / ((double)ns / 1e9);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Bare and ours by this way; the median of each in messages a second. */
static void measure(const char *name, size_t bytes, bool bare_only)
{
    double rate[2][N_ROUNDS] = {{0}};
    int n_messages = (int)((bytes > 1 << 20 ? (size_t)1 << 30 : (size_t)256 << 20) / bytes);

    if (n_messages < 2 * WINDOW)
        n_messages = 2 * WINDOW;
    if (n_messages > 20000)
        n_messages = 20000;
    for (int i = 0; i < 2 * N_ROUNDS; i++)
        if (i % 2 == 0 || !bare_only)
            rate[i % 2][i / 2] = run((struct side){.bytes = bytes, .n_messages = n_messages, .bare = i % 2 == 0});
    for (int i = 0; i < 2; i++)
        qsort(rate[i], N_ROUNDS, sizeof(double), by_value);
    for (int i = 0; i < (bare_only ? 1 : 2); i++) {
        const double median = rate[i][N_ROUNDS / 2];

        printf("%-9s %9zu bytes a message, %-7s %8.0f msg/s %8.0f MB/s", name, bytes, i ? "ours:" : "bare:", median,
               median * (double)bytes / 1e6);
        if (i)
            printf(", %.0f %% of bare", 100 * median / rate[0][N_ROUNDS / 2]);
        printf("\nCSV,wire,%s_%s_%zu,%.1f,MB/s\n", name, i ? "ours" : "bare", bytes, median * (double)bytes / 1e6);
    }
}

static void make_keys(void)
{
    char path[128];
    FILE *f;

    if (!mkdtemp(folder) || zmq_curve_keypair(relay_keys.public_key, relay_keys.secret_key) < 0 ||
        zmq_curve_keypair(peer_keys.public_key, peer_keys.secret_key) < 0)
        die("keys");
    (void)snprintf(path, sizeof(path), "%s/workers", folder);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof(path), "%s/workers/peer.pub", folder);
    f = fopen(path, "w");
    if (!f || fprintf(f, "%s\n", peer_keys.public_key) < 0 || fclose(f) != 0)
        die(path);
}

static void remove_keys(void)
{
    char path[128];

    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s%s", folder, (const char *[]){"/workers/peer.pub", "/workers", ""}[i]);
        (void)remove(path);
    }
}

/* Without keys our broker listens on loopback addresses only. */
static void measure_tcp(const char *address, int n_sizes, const size_t *sizes)
{
    (void)snprintf(way.endpoint, sizeof(way.endpoint), "tcp://%s:5551", address);
    way.n_items = 1;
    for (int i = 0; i < 2 * n_sizes; i++) {
        way.curve = i % 2;
        measure(way.curve ? "tcp+keys" : "tcp", sizes[i / 2], !way.curve && way.relay);
    }
}

int main(int argc, char **argv)
{
    static const size_t by_ipc[] = {64 * 1024, 64 * 98304, 64 * 723712}, by_tcp[] = {49152, 723712};
    const bool hosts = argc > 6 && strcmp(argv[1], "--hosts") == 0;
    size_t sizes[16];
    int n = 0;

    for (int i = hosts ? 6 : 1; i < argc && n < 16; i++)
        sizes[n++] = (size_t)strtoull(argv[i], NULL, 10) / way.n_items * way.n_items;
    make_keys();
    if (hosts) {
        way.relay = argv[3];
        way.producer = argv[4];
        way.consumer = argv[5];
        measure_tcp(argv[2], n, sizes);
    } else {
        for (int i = 0; i < (n ? n : 3); i++)
            measure("ipc", n ? sizes[i] : by_ipc[i], false);
        measure_tcp("127.0.0.1", n ? n : 2, n ? sizes : by_tcp);
    }
    remove_keys();
    return 0;
}
