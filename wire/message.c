#include "wire/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "wire/tensor_zmq.h"

/* A tensor that was taken out is NULL here; the envelope still describes it. */
struct wire_message {
    struct msg envelope;
    size_t size_bytes;
    uint32_t n_row_frames;
    struct wire_tensor *tensors[MSG_MAX_TENSORS];
    struct row_frame views[MSG_MAX_ROW_FRAMES]; /* of row_frames, for cursors */
    zmq_msg_t row_frames[MSG_MAX_ROW_FRAMES];
};

static struct wire_message *message_alloc(void)
{
    struct wire_message *m = malloc(sizeof(*m)); /* 17 KiB: not all of it is worth zeroing */

    if (!m)
        return NULL;
    m->size_bytes = 0;
    m->n_row_frames = 0;
    memset(m->tensors, 0, sizeof(m->tensors));
    m->envelope.n_tensors = 0;
    m->envelope.memory = NULL;
    return m;
}

int wire_message_new(enum msg_type type, struct wire_message **ret)
{
    struct wire_message *m = message_alloc();

    if (!m)
        return -ENOMEM;
    msg_init(&m->envelope, type);
    *ret = m;
    return 0;
}

void wire_message_free(struct wire_message *m)
{
    if (!m)
        return;
    for (uint32_t i = 0; i < m->n_row_frames; i++)
        (void)zmq_msg_close(&m->row_frames[i]);
    for (uint32_t i = 0; i < MSG_MAX_TENSORS; i++)
        wire_tensor_free(m->tensors[i]);
    msg_release(&m->envelope);
    free(m);
}

struct msg *wire_message_envelope(struct wire_message *m)
{
    return &m->envelope;
}

size_t wire_message_size_bytes(const struct wire_message *m)
{
    return m->size_bytes;
}

static void free_rows(void *data, void *hint)
{
    (void)hint;
    free(data);
}

/* Count the frame that was just initialised at row_frames[n_row_frames]. */
static void row_frame_added(struct wire_message *m)
{
    zmq_msg_t *frame = &m->row_frames[m->n_row_frames];

    m->views[m->n_row_frames] = (struct row_frame){.data = zmq_msg_data(frame), .size_bytes = zmq_msg_size(frame)};
    m->size_bytes += zmq_msg_size(frame);
    m->n_row_frames++;
}

static void drop_row_frames(struct wire_message *m, uint32_t from)
{
    while (m->n_row_frames > from) {
        m->size_bytes -= zmq_msg_size(&m->row_frames[--m->n_row_frames]);
        (void)zmq_msg_close(&m->row_frames[m->n_row_frames]);
    }
}

/* Too large for one frame: copy into several, cut between rows. */
static int add_in_frames(struct wire_message *m, struct buf *rows, uint32_t n_rows)
{
    const uint32_t before = m->n_row_frames;
    size_t n;

    for (size_t at = 0; at < rows->size_bytes; at += n) {
        zmq_msg_t *frame = &m->row_frames[m->n_row_frames];
        int rc = 0;

        n = row_frame_cut(rows->data + at, rows->size_bytes - at, MSG_MAX_ROW_FRAME_BYTES);
        if (n == 0)
            rc = -EINVAL;
        else if (m->n_row_frames == MSG_MAX_ROW_FRAMES)
            rc = -EMSGSIZE;
        else if (zmq_msg_init_size(frame, n) < 0)
            rc = -ENOMEM;
        if (rc < 0) {
            drop_row_frames(m, before);
            return rc;
        }
        memcpy(zmq_msg_data(frame), rows->data + at, n);
        row_frame_added(m);
    }
    buf_release(rows);
    m->envelope.n_row_frames = m->n_row_frames;
    m->envelope.n_rows += n_rows;
    return 0;
}

int wire_message_add_rows(struct wire_message *m, struct buf *rows, uint32_t n_rows)
{
    if (rows->size_bytes == 0)
        return n_rows == 0 ? 0 : -EINVAL;
    if (rows->size_bytes > MSG_MAX_ROW_FRAME_BYTES)
        return add_in_frames(m, rows, n_rows);
    if (m->n_row_frames == MSG_MAX_ROW_FRAMES)
        return -EMSGSIZE;
    if (zmq_msg_init_data(&m->row_frames[m->n_row_frames], rows->data, rows->size_bytes, free_rows, NULL) < 0)
        return -ENOMEM;
    rows->data = NULL; /* the frame's now */
    buf_release(rows);
    row_frame_added(m);
    m->envelope.n_row_frames = m->n_row_frames;
    m->envelope.n_rows += n_rows;
    return 0;
}

int wire_message_add_tensor(struct wire_message *m, const struct wire_tensor *t)
{
    uint32_t i = m->envelope.n_tensors;
    int rc;

    if (i == MSG_MAX_TENSORS)
        return -EMSGSIZE;
    rc = wire_tensor_ref(t, &m->tensors[i]);
    if (rc < 0)
        return rc;
    m->envelope.tensors[i] = m->tensors[i]->desc;
    m->envelope.n_tensors++;
    m->size_bytes += t->size_bytes;
    return 0;
}

void wire_message_rows(const struct wire_message *m, struct row_cursor *ret)
{
    row_cursor_init(ret, m->views, m->n_row_frames, m->envelope.n_rows);
}

uint32_t wire_message_n_tensors(const struct wire_message *m)
{
    return m->envelope.n_tensors;
}

const struct wire_tensor *wire_message_tensor(const struct wire_message *m, uint32_t i)
{
    return i < MSG_MAX_TENSORS ? m->tensors[i] : NULL;
}

struct wire_tensor *wire_message_take_tensor(struct wire_message *m, uint32_t i)
{
    struct wire_tensor *t = i < MSG_MAX_TENSORS ? m->tensors[i] : NULL;

    if (t) {
        m->tensors[i] = NULL;
        m->size_bytes -= t->size_bytes;
    }
    return t;
}

/* -- sending */

/* Frames still to come after the one being sent. */
struct sending {
    void *socket;
    uint32_t n_left;
    int rc; /* of the first frame that failed */
};

/* A frame that cannot be sent after the first one means that the connection broke under the message. The rest is still
 * handed over: ZeroMQ drops frames up to the last one, and would take them for a new message otherwise. */
static void send_frame(struct sending *s, zmq_msg_t *frame)
{
    int flags = ZMQ_DONTWAIT | (--s->n_left ? ZMQ_SNDMORE : 0), rc;

    do
        rc = zmq_msg_send(frame, s->socket, flags);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        if (s->rc == 0)
            s->rc = -errno;
        (void)zmq_msg_close(frame);
    }
}

static void send_copy(struct sending *s, zmq_msg_t *frame)
{
    zmq_msg_t copy;

    (void)zmq_msg_init(&copy);
    if (zmq_msg_copy(&copy, frame) < 0 && s->rc == 0)
        s->rc = -ENOMEM; /* goes out empty: the receiver refuses the message */
    send_frame(s, &copy);
}

static int pack_frame(const struct msg *envelope, zmq_msg_t *ret, struct err *err)
{
    struct buf packed;
    int rc;

    buf_init(&packed, MSG_MAX_BYTES);
    rc = msg_pack(envelope, &packed, err);
    if (rc == 0 && zmq_msg_init_data(ret, packed.data, packed.size_bytes, free_rows, NULL) < 0)
        rc = err_set(err, -ENOMEM, "no memory for an envelope");
    if (rc < 0)
        buf_release(&packed);
    return rc;
}

static int send_routing(void *socket, const struct wire_routing *to, struct err *err)
{
    int rc;

    do
        rc = zmq_send(socket, to->bytes, to->n_bytes, ZMQ_DONTWAIT | ZMQ_SNDMORE);
    while (rc < 0 && errno == EINTR);
    if (rc >= 0)
        return 0;
    if (errno == EAGAIN)
        return -EAGAIN;
    return err_set(err, -errno, "cannot send: %s", zmq_strerror(errno));
}

/* Frames behind the envelope, if it was not changed since it was filled in. */
static uint32_t count_frames(const struct wire_message *m)
{
    uint32_t n = m->n_row_frames;

    for (uint32_t i = 0; i < m->envelope.n_tensors; i++)
        n += m->tensors[i]->n_frames;
    return n;
}

int wire_message_send(void *socket, const struct wire_routing *to, struct wire_message *m, struct err *err)
{
    struct sending s = {.socket = socket};
    zmq_msg_t envelope;
    bool started = to != NULL;
    int rc;

    for (uint32_t i = 0; i < m->envelope.n_tensors; i++)
        if (!m->tensors[i])
            return err_set(err, -EINVAL, "tensor %u was taken out of the message", i);
    rc = pack_frame(&m->envelope, &envelope, err);
    if (rc < 0)
        return rc;
    if (to && (rc = send_routing(socket, to, err)) < 0) {
        (void)zmq_msg_close(&envelope);
        return rc;
    }
    s.n_left = 1 + count_frames(m);
    send_frame(&s, &envelope);
    if (s.rc < 0 && !started)
        return s.rc == -EAGAIN ? -EAGAIN : err_set(err, s.rc, "cannot send: %s", zmq_strerror(-s.rc));
    for (uint32_t i = 0; i < m->n_row_frames; i++)
        send_copy(&s, &m->row_frames[i]);
    for (uint32_t i = 0; i < m->envelope.n_tensors; i++)
        for (uint32_t k = 0; k < m->tensors[i]->n_frames; k++)
            send_copy(&s, &m->tensors[i]->frames[k]);
    if (s.rc == -ENOMEM)
        return err_set(err, -ENOMEM, "no memory for a frame");
    return s.rc < 0 ? err_set(err, -EHOSTUNREACH, "the connection broke while sending") : 0;
}

/* -- receiving */

struct receiving {
    void *socket;
    bool more;         /* another frame of this message follows */
    size_t bytes_left; /* of the limit */
};

/* The next frame into `frame` (initialised). -EAGAIN, or a negative errno of the socket. */
static int receive_frame(struct receiving *r, zmq_msg_t *frame)
{
    int rc;

    do
        rc = zmq_msg_recv(frame, r->socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return -errno;
    r->more = zmq_msg_more(frame);
    return 0;
}

static void drop_rest(struct receiving *r)
{
    zmq_msg_t frame;

    (void)zmq_msg_init(&frame);
    while (r->more && receive_frame(r, &frame) == 0)
        ;
    (void)zmq_msg_close(&frame);
}

static int receive_data(struct receiving *r, zmq_msg_t *frame, size_t max_bytes, const char *kind, struct err *err)
{
    size_t n;

    if (!r->more)
        return err_set(err, -EBADMSG, "%s frames are missing", kind);
    if (receive_frame(r, frame) < 0)
        return err_set(err, -EBADMSG, "a %s frame cannot be read", kind);
    n = zmq_msg_size(frame);
    if (n == 0)
        return err_set(err, -EBADMSG, "a %s frame is empty", kind);
    if (n > max_bytes)
        return err_set(err, -EMSGSIZE, "a %s frame of %zu bytes, the limit is %zu", kind, n, max_bytes);
    if (n > r->bytes_left)
        return err_set(err, -EMSGSIZE, "the message passes the limit of bytes");
    r->bytes_left -= n;
    return 0;
}

static int receive_rows(struct receiving *r, struct wire_message *m, struct err *err)
{
    while (m->n_row_frames < m->envelope.n_row_frames) {
        zmq_msg_t *frame = &m->row_frames[m->n_row_frames];
        int rc;

        (void)zmq_msg_init(frame);
        rc = receive_data(r, frame, MSG_MAX_ROW_FRAME_BYTES, "row", err);
        if (rc < 0) {
            (void)zmq_msg_close(frame);
            return rc;
        }
        row_frame_added(m);
    }
    return 0;
}

static int receive_tensor(struct receiving *r, struct wire_message *m, uint32_t i, struct err *err)
{
    struct wire_tensor *t;
    uint64_t bytes = 0;

    if (wire_tensor_from_desc(&m->envelope.tensors[i], &t) < 0)
        return err_set(err, -ENOMEM, "no memory for a tensor");
    m->tensors[i] = t;
    for (uint32_t k = 0; k < t->n_frames; k++) {
        int rc = receive_data(r, &t->frames[k], MSG_MAX_TENSOR_FRAME_BYTES, "tensor", err);

        if (rc < 0)
            return rc;
        if (zmq_msg_size(&t->frames[k]) % t->item_bytes)
            return err_set(err, -EBADMSG, "tensor %u: frame %u is not cut between items", i, k);
        bytes += zmq_msg_size(&t->frames[k]);
    }
    if (t->desc.transport == MSG_TRANSPORT_FRAME && bytes != t->size_bytes)
        return err_set(err, -EBADMSG, "tensor %u of %llu bytes, its shape says %llu", i, (unsigned long long)bytes,
                       (unsigned long long)t->size_bytes);
    m->size_bytes += t->size_bytes;
    return 0;
}

static int receive_body(struct receiving *r, zmq_msg_t *envelope, struct wire_message *m, struct err *err)
{
    int rc = msg_unpack(zmq_msg_data(envelope), zmq_msg_size(envelope), &m->envelope, err);

    if (rc < 0 || (rc = receive_rows(r, m, err)) < 0)
        return rc;
    for (uint32_t i = 0; i < m->envelope.n_tensors; i++)
        if ((rc = receive_tensor(r, m, i, err)) < 0)
            return rc;
    return r->more ? err_set(err, -EBADMSG, "more frames than the envelope announces") : 0;
}

static int receive_routing(struct receiving *r, zmq_msg_t *frame, struct wire_routing *ret, struct err *err)
{
    int rc = receive_frame(r, frame);

    if (rc < 0)
        return rc;
    if (!r->more || zmq_msg_size(frame) > WIRE_MAX_ROUTING_BYTES)
        return err_set(err, -EIO, "the socket gave no routing frame");
    ret->n_bytes = zmq_msg_size(frame);
    memcpy(ret->bytes, zmq_msg_data(frame), ret->n_bytes);
    return 0;
}

/* The properties of the connection. libzmq 4.3.4 may lose them on the first frame, but not on the ones behind it. */
static void identify(zmq_msg_t *frame, struct wire_routing *ret)
{
    const char *user = zmq_msg_gets(frame, "User-Id");

    ret->fd = zmq_msg_get(frame, ZMQ_SRCFD);
    (void)snprintf(ret->user, sizeof(ret->user), "%s", user ? user : "");
}

int wire_message_receive(void *socket, const struct wire_limits *limits, struct wire_routing *ret_from,
                         struct wire_message **ret, struct err *err)
{
    struct receiving r = {.socket = socket, .bytes_left = WIRE_MAX_MESSAGE_BYTES};
    struct wire_message *m = NULL;
    zmq_msg_t frame;
    int rc = 0;

    if (limits && limits->max_message_bytes)
        r.bytes_left = limits->max_message_bytes;
    (void)zmq_msg_init(&frame);
    if (ret_from)
        rc = receive_routing(&r, &frame, ret_from, err);
    if (rc == 0)
        rc = receive_frame(&r, &frame);
    if (rc < 0)
        goto out;
    if (ret_from)
        identify(&frame, ret_from);
    m = message_alloc();
    rc = m ? receive_body(&r, &frame, m, err) : err_set(err, -ENOMEM, "no memory for a message");
out:
    drop_rest(&r);
    (void)zmq_msg_close(&frame);
    if (rc < 0)
        wire_message_free(m);
    else
        *ret = m;
    return rc;
}
