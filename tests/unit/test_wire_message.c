#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "wire/context.h"
#include "wire/message.h"
#include "tests/unit/tensor_gather.h"

/* Two DEALERs that talk to each other: `a` may also write raw frames, as a hostile peer does. */
struct pair {
    void *a, *b;
};

static int setup(void **state)
{
    static struct pair p;
    static int n;
    char endpoint[64];
    struct err err;

    if (wire_init(1, &err) < 0)
        return -1;
    (void)snprintf(endpoint, sizeof(endpoint), "inproc://pair-%d", n++);
    p.a = zmq_socket(wire_context(), ZMQ_DEALER);
    p.b = zmq_socket(wire_context(), ZMQ_DEALER);
    *state = &p;
    return zmq_bind(p.b, endpoint) < 0 || zmq_connect(p.a, endpoint) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    int zero = 0;

    (void)zmq_setsockopt(p->a, ZMQ_LINGER, &zero, sizeof(zero));
    (void)zmq_setsockopt(p->b, ZMQ_LINGER, &zero, sizeof(zero));
    (void)zmq_close(p->a);
    (void)zmq_close(p->b);
    return 0;
}

/* A WORK message of n items with their rows. */
static struct wire_message *work_of(uint32_t n)
{
    struct wire_message *m;
    struct buf rows;

    assert_int_equal(wire_message_new(MSG_WORK, &m), 0);
    wire_message_envelope(m)->work.lease = (struct msg_lease){.epoch = 1, .id = 2, .count = n};
    buf_init(&rows, MSG_MAX_ROW_FRAME_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        struct row_item item = {.item = i, .key = (const uint8_t *)"key", .key_bytes = 3};

        assert_int_equal(row_item_append(&rows, &item), 0);
    }
    assert_int_equal(wire_message_add_rows(m, &rows, n), 0);
    assert_null(rows.data);
    return m;
}

static atomic_int n_released;

static void release(void *arg)
{
    free(arg);
    atomic_fetch_add(&n_released, 1);
}

static struct wire_tensor *tensor_of(uint32_t n_items, uint32_t width, float **ret_data)
{
    uint32_t shape[2] = {n_items, width};
    float *data = malloc((size_t)n_items * width * sizeof(*data));
    struct wire_tensor *t;
    struct err err = {""};

    assert_non_null(data);
    for (size_t i = 0; i < (size_t)n_items * width; i++)
        data[i] = (float)(i % 1000003);
    if (wire_tensor_new(DTYPE_F32, shape, 2, data, release, data, &t, &err) < 0)
        fail_msg("%s", err.text);
    *ret_data = data;
    return t;
}

static struct wire_message *receive(void *socket)
{
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    struct wire_message *m = NULL;
    struct err err = {""};

    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    if (wire_message_receive(socket, NULL, NULL, &m, &err) < 0)
        fail_msg("%s", err.text);
    return m;
}

/* A hostile message has been sent; the reason must hold `what`, and the next good message must come through. */
static void assert_refused(struct pair *p, int code, const char *what)
{
    zmq_pollitem_t item = {.socket = p->b, .events = ZMQ_POLLIN};
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc;

    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    rc = wire_message_receive(p->b, NULL, NULL, &m, &err);
    if (rc != code || !strstr(err.text, what))
        fail_msg("%d (%s), expected %d with \"%s\"", rc, err.text, code, what);
    assert_null(m);
    m = work_of(1);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    m = receive(p->b);
    wire_message_free(m);
}

static void test_wire_message_rows_and_tensors_arrive(void **state)
{
    struct pair *p = *state;
    struct wire_message *m = work_of(20), *got;
    float *data, *gathered = malloc(20U * 250000 * sizeof(float));
    struct wire_tensor *t = tensor_of(20, 250000, &data); /* 1 MB an item: 8 items a frame */
    const uint32_t want[2] = {0, 250000};
    struct row_cursor rows;
    struct row_item item;
    int n_rows = 0;

    atomic_store(&n_released, 0);
    assert_int_equal(wire_tensor_n_frames(t), 3);
    assert_int_equal(wire_message_add_tensor(m, t), 0);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    got = receive(p->b);
    wire_message_rows(got, &rows);
    while (row_cursor_next_item(&rows, &item, NULL) == 1)
        n_rows++;
    row_cursor_release(&rows);
    assert_int_equal(n_rows, 20);
    assert_int_equal(wire_message_n_tensors(got), 1);
    assert_int_equal(
        tensor_gather(wire_message_tensor(got, 0), DTYPE_F32, want, 2, gathered, 20U * 250000 * sizeof(float), NULL),
        0);
    assert_memory_equal(gathered, data, 20U * 250000 * sizeof(float));
    /* inproc passes pointers: the bytes are the sender's own until the last reference is gone */
    wire_tensor_free(t);
    wire_message_free(m);
    assert_int_equal(atomic_load(&n_released), 0);
    wire_message_free(got);
    assert_int_equal(atomic_load(&n_released), 1);
    free(gathered);
}

static void test_wire_message_relay_passes_frames_unread(void **state)
{
    struct pair *p = *state;
    struct wire_message *m = work_of(4), *got, *relayed;
    float *data;
    struct wire_tensor *t = tensor_of(4, 1000000, &data), *kept;
    size_t n;
    const uint8_t *first, *again;

    assert_int_equal(wire_message_add_tensor(m, t), 0);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    wire_tensor_free(t);
    got = receive(p->b);
    kept = wire_message_take_tensor(got, 0);
    assert_non_null(kept);
    assert_null(wire_message_take_tensor(got, 0));
    assert_int_equal(wire_message_send(p->b, NULL, got, NULL), -EINVAL); /* it describes a tensor that it lacks */
    first = wire_tensor_frame(kept, 0, &n);
    for (int i = 0; i < 2; i++) { /* to two consumers */
        relayed = work_of(4);
        assert_int_equal(wire_message_add_tensor(relayed, kept), 0);
        assert_int_equal(wire_message_send(p->b, NULL, relayed, NULL), 0);
        wire_message_free(relayed);
    }
    wire_message_free(got);
    wire_tensor_free(kept);
    for (int i = 0; i < 2; i++) {
        got = receive(p->a);
        again = wire_tensor_frame(wire_message_tensor(got, 0), 0, &n);
        assert_ptr_equal(first, again); /* no copy on the way */
        assert_int_equal(wire_tensor_verify(wire_message_tensor(got, 0), DTYPE_F32, NULL, 0, NULL), 0);
        wire_message_free(got);
    }
}

static void test_wire_message_small_tensor_travels_inside(void **state)
{
    struct pair *p = *state;
    struct wire_message *m = work_of(4), *got;
    float *data, back[4 * 256];
    struct wire_tensor *t;
    const uint32_t want[2] = {4, 256};

    atomic_store(&n_released, 0);
    t = tensor_of(4, 256, &data); /* exactly 4096 bytes */
    assert_int_equal(atomic_load(&n_released), 1);
    assert_int_equal(wire_tensor_desc(t)->transport, MSG_TRANSPORT_INLINE);
    assert_int_equal(wire_message_add_tensor(m, t), 0);
    wire_tensor_free(t);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    got = receive(p->b);
    t = wire_message_take_tensor(got, 0);
    wire_message_free(got);
    assert_int_equal(tensor_gather(t, DTYPE_F32, want, 2, back, sizeof(back), NULL), 0);
    assert_true(back[1023] == 1023.0F);
    wire_tensor_free(t);
    t = tensor_of(4, 257, &data);
    assert_int_equal(wire_tensor_desc(t)->transport, MSG_TRANSPORT_FRAME);
    wire_tensor_free(t);
}

static void test_wire_message_empty_tensor_is_legal(void **state)
{
    struct pair *p = *state;
    struct wire_message *m, *got;
    uint32_t shape[2] = {0, 256};
    struct wire_tensor *t;
    struct buf rows;
    struct row_record failed = {.item = 1, .failed = true, .error_code = "missing"};

    assert_int_equal(wire_message_new(MSG_RESULT, &m), 0);
    wire_message_envelope(m)->result.lease = (struct msg_lease){.epoch = 1, .id = 2, .count = 1};
    buf_init(&rows, 0);
    assert_int_equal(row_record_append(&rows, &failed), 0);
    assert_int_equal(wire_message_add_rows(m, &rows, 1), 0);
    assert_int_equal(wire_tensor_new(DTYPE_F32, shape, 2, NULL, NULL, NULL, &t, NULL), 0);
    assert_int_equal(wire_message_add_tensor(m, t), 0);
    wire_tensor_free(t);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    got = receive(p->b);
    assert_int_equal(wire_tensor_verify(wire_message_tensor(got, 0), DTYPE_F32, shape, 2, NULL), 0);
    wire_message_free(got);
}

static void test_wire_message_wrong_hash_dtype_and_shape_are_found(void **state)
{
    struct pair *p = *state;
    struct wire_message *m = work_of(4), *got;
    const uint32_t want[2] = {4, 1000}, other[2] = {4, 999};
    const struct wire_tensor *received;
    float *data, *back = malloc(16000);
    struct err err = {""};
    struct wire_tensor *t = tensor_of(4, 1000, &data);

    assert_int_equal(wire_message_add_tensor(m, t), 0);
    wire_message_envelope(m)->tensors[0].xxh3 ^= 1;
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    wire_tensor_free(t);
    got = receive(p->b); /* a relay does not look */
    received = wire_message_tensor(got, 0);
    assert_int_equal(wire_tensor_verify(received, DTYPE_F32, want, 2, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "checksum"));
    assert_int_equal(tensor_gather(received, DTYPE_F32, want, 2, back, 16000, &err), -EBADMSG);
    assert_int_equal(tensor_gather(received, DTYPE_F16, want, 2, back, 16000, &err), -EINVAL);
    assert_int_equal(tensor_gather(received, DTYPE_F32, other, 2, back, 16000, &err), -EINVAL);
    assert_int_equal(tensor_gather(received, DTYPE_F32, want, 1, back, 16000, &err), -EINVAL);
    assert_int_equal(tensor_gather(received, DTYPE_F32, want, 2, back, 15999, &err), -EINVAL);
    wire_message_free(got);
    free(back);
}

/* The envelope of a WORK message with one tensor of 4 items of 1000 floats in `n_frames` frames, then raw frames. */
static void send_raw(struct pair *p, uint32_t n_frames, const size_t *frame_bytes, int n_sent, bool with_rows)
{
    struct buf envelope, rows;
    struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};
    uint8_t *zeros = calloc(1, 20000000);
    struct msg m;

    msg_init(&m, MSG_WORK);
    m.work.lease = (struct msg_lease){.epoch = 1, .id = 2, .count = 4};
    m.n_rows = 4;
    m.n_row_frames = 1;
    m.n_tensors = 1;
    m.tensors[0] = (struct msg_tensor){
        .dtype = DTYPE_F32, .n_dims = 2, .shape = {4, 1000}, .transport = MSG_TRANSPORT_FRAME, .n_frames = n_frames};
    buf_init(&envelope, 0);
    buf_init(&rows, 0);
    assert_int_equal(msg_pack(&m, &envelope, NULL), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(row_item_append(&rows, &item), 0);
    assert_true(zmq_send(p->a, envelope.data, envelope.size_bytes, n_sent || with_rows ? ZMQ_SNDMORE : 0) >= 0);
    if (with_rows)
        assert_true(zmq_send(p->a, rows.data, rows.size_bytes, n_sent ? ZMQ_SNDMORE : 0) >= 0);
    for (int i = 0; i < n_sent; i++)
        assert_true(zmq_send(p->a, zeros, frame_bytes[i], i + 1 < n_sent ? ZMQ_SNDMORE : 0) >= 0);
    buf_release(&envelope);
    buf_release(&rows);
    free(zeros);
}

static void test_wire_message_frames_must_be_what_the_envelope_says(void **state)
{
    static const size_t good[] = {8000, 8000}, short_by_one[] = {8000, 4000}, uneven[] = {8001, 7999},
                        huge[] = {(8 << 20) + 4000, 8000}, empty[] = {16000, 0},
                        many[] = {4000, 4000, 4000, 4000, 4000};
    struct pair *p = *state;
    struct wire_message *m;

    send_raw(p, 2, good, 2, true);
    m = receive(p->b);
    wire_message_free(m);
    send_raw(p, 2, good, 0, false);
    assert_refused(p, -EBADMSG, "row frames are missing");
    send_raw(p, 2, good, 0, true);
    assert_refused(p, -EBADMSG, "tensor frames are missing");
    send_raw(p, 2, good, 1, true);
    assert_refused(p, -EBADMSG, "missing");
    send_raw(p, 1, good, 2, true);
    assert_refused(p, -EBADMSG, "bytes");
    send_raw(p, 4, many, 5, true);
    assert_refused(p, -EBADMSG, "than the envelope announces");
    send_raw(p, 2, short_by_one, 2, true);
    assert_refused(p, -EBADMSG, "its shape says");
    send_raw(p, 2, uneven, 2, true);
    assert_refused(p, -EBADMSG, "between items");
    send_raw(p, 2, huge, 2, true);
    assert_refused(p, -EMSGSIZE, "the limit is");
    send_raw(p, 2, empty, 2, true);
    assert_refused(p, -EBADMSG, "empty");
}

static void test_wire_message_endless_frames_are_dropped(void **state)
{
    struct pair *p = *state;
    size_t bytes[2000];

    for (int i = 0; i < 2000; i++)
        bytes[i] = 10;
    send_raw(p, 2, bytes, 2000, true);
    assert_refused(p, -EBADMSG, "between items");
    assert_true(zmq_send(p->a, "", 0, 0) >= 0);
    assert_refused(p, -EBADMSG, "");
    assert_true(zmq_send(p->a, "garbage", 7, ZMQ_SNDMORE) >= 0 && zmq_send(p->a, "more", 4, 0) >= 0);
    assert_refused(p, -EBADMSG, "");
}

static void test_wire_message_total_limit_holds(void **state)
{
    static const size_t good[] = {8000, 8000};
    struct pair *p = *state;
    struct wire_limits limits = {.max_message_bytes = 15000};
    zmq_pollitem_t item = {.socket = p->b, .events = ZMQ_POLLIN};
    struct wire_message *m = NULL;
    struct err err = {""};

    send_raw(p, 2, good, 2, true);
    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    assert_int_equal(wire_message_receive(p->b, &limits, NULL, &m, &err), -EMSGSIZE);
    assert_null(m);
}

static void test_wire_message_limits_of_the_sender_hold(void **state)
{
    uint32_t big[2] = {1, (2 << 20) + 1}, wrong[1] = {0};
    struct wire_message *m = work_of(1);
    struct wire_tensor *t;
    struct buf rows;

    (void)state;
    assert_int_equal(wire_tensor_new(DTYPE_F32, big, 2, NULL, NULL, NULL, &t, NULL), -EMSGSIZE);
    assert_int_equal(wire_tensor_new((enum dtype)9, wrong, 1, NULL, NULL, NULL, &t, NULL), -EINVAL);
    assert_int_equal(wire_tensor_new(DTYPE_F32, wrong, 0, NULL, NULL, NULL, &t, NULL), -EINVAL);
    buf_init(&rows, 0);
    assert_int_equal(buf_reserve(&rows, MSG_MAX_ROW_FRAME_BYTES + 1), 0);
    rows.size_bytes = MSG_MAX_ROW_FRAME_BYTES + 1;
    memset(rows.data, 0xff, rows.size_bytes);
    assert_int_equal(wire_message_add_rows(m, &rows, 1), -EINVAL);
    assert_int_equal(rows.size_bytes, MSG_MAX_ROW_FRAME_BYTES + 1); /* still the caller's */
    buf_release(&rows);
    wire_message_free(m);
}

/* A unit of 400 items with the query outputs of a published model in fp32. */
static void test_wire_message_rows_past_16_mib_travel_in_several_frames(void **state)
{
    enum { N = 400, ROWS = 32, COLS = 768 };
    struct pair *p = *state;
    static float numbers[ROWS * COLS];
    struct row_record record = {.n_embeddings = 1}, back;
    struct wire_message *m, *got;
    struct row_cursor cursor;
    struct buf rows;
    uint32_t n = 0;
    int rc;

    assert_int_equal(wire_message_new(MSG_RESULT, &m), 0);
    wire_message_envelope(m)->result.lease = (struct msg_lease){.epoch = 1, .id = 1, .count = N};
    buf_init(&rows, ROW_MAX_ROWS_BYTES);
    record.embeddings[0] =
        (struct row_embedding){MSG_EMBEDDING_QUERY, DTYPE_F32, ROWS, COLS, (const uint8_t *)numbers, sizeof(numbers)};
    for (record.item = 0; record.item < N; record.item++)
        assert_int_equal(row_record_append(&rows, &record), 0);
    assert_true(rows.size_bytes > 2 * MSG_MAX_ROW_FRAME_BYTES);
    assert_int_equal(wire_message_add_rows(m, &rows, N), 0);
    assert_int_equal(rows.size_bytes, 0);
    assert_int_equal(wire_message_envelope(m)->n_row_frames, 3);
    assert_int_equal(wire_message_send(p->a, NULL, m, NULL), 0);
    wire_message_free(m);
    got = receive(p->b);
    wire_message_rows(got, &cursor);
    while ((rc = row_cursor_next_record(&cursor, &back, NULL)) == 1) {
        assert_int_equal(back.item, n++);
        assert_int_equal(back.embeddings[0].data_bytes, sizeof(numbers));
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n, N);
    row_cursor_release(&cursor);
    wire_message_free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wire_message_rows_and_tensors_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_relay_passes_frames_unread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_small_tensor_travels_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_empty_tensor_is_legal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_wrong_hash_dtype_and_shape_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_frames_must_be_what_the_envelope_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_endless_frames_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_total_limit_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_rows_past_16_mib_travel_in_several_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wire_message_limits_of_the_sender_hold, setup, teardown),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    wire_exit();
    return rc;
}
