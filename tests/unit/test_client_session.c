#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/row.h"
#include "wire/broker_socket.h"
#include "wire/client_session.h"
#include "wire/context.h"

/* A broker that answers by rule, in a thread of its own. */
struct fixture {
    char folder[64], path[96], endpoint[128];
    pthread_t thread;
    atomic_bool stop, mute;
    atomic_int refuse; /* a reason for every request but HELLO */
    atomic_int most_unanswered;
    bool started;
    struct client_session *c;
};

struct script {
    struct fixture *f;
    struct broker_socket *b;
    uint64_t n_items;
    uint64_t row_seqs[64];
    int n_row_seqs;
};

static void answer_rows(struct script *s, uint64_t peer)
{
    for (int i = 0; i < s->n_row_seqs; i++) {
        struct msg m;

        msg_init(&m, MSG_JOB_ROWS_OK);
        m.seq = s->row_seqs[i];
        m.job_rows_ok = (struct msg_job_rows_ok){.job = 3, .n_items = s->n_items};
        assert_int_equal(broker_socket_send_msg(s->b, peer, &m, NULL), 0);
    }
    s->n_row_seqs = 0;
}

/* Every key is that of two items; there are no sources. */
static void answer_find(struct script *s, uint64_t peer, const struct msg *q)
{
    const struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};
    struct wire_message *m;
    struct buf rows;

    buf_init(&rows, 0);
    for (uint32_t i = 0; i < 2 * q->n_rows; i++)
        assert_int_equal(row_item_append(&rows, &item), 0);
    assert_int_equal(wire_message_new(MSG_JOB_FOUND, &m), 0);
    wire_message_envelope(m)->seq = q->seq;
    wire_message_envelope(m)->job_ref.job = 3;
    assert_int_equal(wire_message_add_rows(m, &rows, 2 * q->n_rows), 0);
    assert_int_equal(broker_socket_send(s->b, peer, &m, NULL), 0);
}

static void answer(struct script *s, uint64_t peer, const struct msg *q)
{
    struct msg m;

    if (q->type == MSG_JOB_ROWS && !atomic_load(&s->f->refuse)) { /* kept back, to see how many the client dares */
        s->n_items += q->n_rows;
        s->row_seqs[s->n_row_seqs++] = q->seq;
        if (s->n_row_seqs > atomic_load(&s->f->most_unanswered))
            atomic_store(&s->f->most_unanswered, s->n_row_seqs);
        return;
    }
    if (q->type == MSG_JOB_FIND && !atomic_load(&s->f->refuse)) {
        answer_find(s, peer, q);
        return;
    }
    msg_init(&m, MSG_REFUSE);
    m.seq = q->seq;
    if (q->type == MSG_HELLO) {
        m.type = MSG_WELCOME;
        m.welcome = (struct msg_welcome){.epoch = 9, .version = MSG_VERSION, .heartbeat_ms = 100, .lease_ms = 1000};
    } else if (atomic_load(&s->f->refuse)) {
        m.refuse.has_recipe = atomic_load(&s->f->refuse) == MSG_REASON_RECIPE && q->type == MSG_JOB_OPEN;
        msg_recipe_init(&m.refuse.recipe);
        strcpy(m.refuse.recipe.name, "other");
        m.refuse.reason = (enum msg_reason)atomic_load(&s->f->refuse);
        strcpy(m.refuse.text, "because");
    } else if (q->type == MSG_JOB_OPEN) {
        m.type = MSG_JOB_OPENED;
        m.job_opened = (struct msg_job_opened){.job = 3, .n_items = 5, .n_done = 2, .n_units = 1};
    } else if (q->type == MSG_JOB_SEAL) {
        m.type = MSG_JOB_ACCEPTED;
        m.job_accepted = (struct msg_job_accepted){.job = 3, .n_items = s->n_items, .n_units = 7};
    } else if (q->type == MSG_JOB_QUERY || q->type == MSG_JOB_STOP) {
        m.type = MSG_JOB_PROGRESS;
        m.job_progress = (struct msg_job_progress){
            .job = 3, .state = q->type == MSG_JOB_STOP ? MSG_JOB_STOPPED : MSG_JOB_RUNNING, .n_items = 5, .n_done = 4};
    } else {
        m.type = MSG_BYE;
    }
    assert_int_equal(broker_socket_send_msg(s->b, peer, &m, NULL), 0);
}

static void *broker_main(void *arg)
{
    struct script s = {.f = arg};
    struct broker_socket_conf conf = {.endpoint = s.f->endpoint};
    struct broker_socket_event e;
    uint64_t peer = 0;

    if (broker_socket_open(&conf, &s.b, NULL) < 0)
        return NULL;
    while (!atomic_load(&s.f->stop)) {
        (void)(broker_socket_wait(s.b, NULL, 0, 20) == 0);
        while (broker_socket_next(s.b, &e) == 1) {
            if (e.type == BROKER_SOCKET_MESSAGE && wire_message_envelope(e.message)->type != MSG_BYE &&
                !(atomic_load(&s.f->mute) && wire_message_envelope(e.message)->type != MSG_HELLO)) {
                peer = e.peer;
                answer(&s, peer, wire_message_envelope(e.message));
            }
            wire_message_free(e.message);
        }
        answer_rows(&s, peer);
    }
    broker_socket_close(&s.b);
    return NULL;
}

static void start_broker(struct fixture *f)
{
    assert_int_equal(pthread_create(&f->thread, NULL, broker_main, f), 0);
    f->started = true;
}

static void stop_broker(struct fixture *f)
{
    atomic_store(&f->stop, true);
    if (f->started)
        (void)pthread_join(f->thread, NULL);
    f->started = false;
}

static int setup(void **state)
{
    static struct fixture f;
    struct err err;

    memset(&f, 0, sizeof(f));
    strcpy(f.folder, "/tmp/test_client_session.XXXXXX");
    if (!mkdtemp(f.folder) || wire_init(1, &err) < 0)
        return -1;
    (void)snprintf(f.path, sizeof(f.path), "%s/b.sock", f.folder);
    (void)snprintf(f.endpoint, sizeof(f.endpoint), "ipc://%s", f.path);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    client_session_close(&f->c);
    stop_broker(f);
    return rmdir(f->folder);
}

static void open_client(struct fixture *f)
{
    struct err err = {""};

    if (client_session_open(f->endpoint, NULL, 5000, &f->c, &err) < 0)
        fail_msg("%s", err.text);
}

static void fill_open(struct msg_job_open *o)
{
    memset(o, 0, sizeof(*o));
    strcpy(o->path, "/x.lmdb");
    o->n_nodes = 1;
    o->nodes[0].stage = STAGE_ENCODE;
}

static void test_client_session_asks_and_is_answered(void **state)
{
    struct fixture *f = *state;
    struct msg_job_opened opened;
    const struct msg_recipe *recipe;
    struct msg_job_progress progress;
    struct msg_job_open o;

    start_broker(f);
    open_client(f);
    fill_open(&o);
    assert_int_equal(client_session_job_open(f->c, &o, &opened, &recipe, NULL), 0);
    assert_null(recipe);
    assert_true(opened.job == 3 && opened.n_items == 5 && opened.n_done == 2);
    assert_int_equal(client_session_query(f->c, 3, &progress, NULL), 0);
    assert_int_equal(progress.state, MSG_JOB_RUNNING);
    assert_int_equal(client_session_stop_job(f->c, 3, &progress, NULL), 0);
    assert_int_equal(progress.state, MSG_JOB_STOPPED);
    assert_int_equal(client_session_shutdown(f->c, NULL), 0);
}

static void test_client_session_waits_for_a_broker_that_starts(void **state)
{
    struct fixture *f = *state;
    struct client_session *none = NULL;
    struct err err = {""};

    assert_int_equal(client_session_open(f->endpoint, NULL, 100, &none, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, f->endpoint));
    assert_null(none);
    start_broker(f);
    open_client(f); /* no wait for the bind */
}

static void test_client_session_streams_rows_four_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct msg_job_accepted accepted;
    uint64_t n_confirmed = 0;
    struct err err = {""};
    struct buf rows;

    start_broker(f);
    open_client(f);
    for (int i = 0; i < 50; i++) {
        struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};

        buf_init(&rows, 0);
        for (int k = 0; k < 10; k++)
            assert_int_equal(row_item_append(&rows, &item), 0);
        if (client_session_rows(f->c, 3, &rows, 10, &n_confirmed, &err) < 0)
            fail_msg("%s", err.text);
        assert_null(rows.data);
    }
    assert_in_range(n_confirmed, 460, 490);
    assert_int_equal(client_session_seal(f->c, 3, 0, &accepted, NULL), 0);
    assert_int_equal(accepted.n_items, 500);
    assert_int_equal(accepted.n_units, 7);
    assert_in_range(atomic_load(&f->most_unanswered), 1, 4);
}

static void test_client_session_refusals_are_error_numbers_with_words(void **state)
{
    static const struct {
        enum msg_reason reason;
        int code;
    } cases[] = {{MSG_REASON_STORE, -EIO},          {MSG_REASON_BUSY, -EBUSY},         {MSG_REASON_RECIPE, -EEXIST},
                 {MSG_REASON_UNKNOWN_JOB, -ENOENT}, {MSG_REASON_DRAINING, -ESHUTDOWN}, {MSG_REASON_LIMIT, -EDQUOT},
                 {MSG_REASON_NOT_ALLOWED, -EPERM}};
    struct fixture *f = *state;
    struct msg_job_progress progress;
    struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};
    struct msg_job_accepted accepted;
    struct buf rows;

    start_broker(f);
    open_client(f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {""};

        atomic_store(&f->refuse, cases[i].reason);
        assert_int_equal(client_session_query(f->c, 3, &progress, &err), cases[i].code);
        assert_string_equal(err.text, "because");
    }
    buf_init(&rows, 0);
    assert_int_equal(row_item_append(&rows, &item), 0);
    assert_int_equal(client_session_rows(f->c, 3, &rows, 1, NULL, NULL), 0); /* its refusal comes with the next call */
    assert_int_equal(client_session_seal(f->c, 3, 0, &accepted, NULL), -EPERM);
    atomic_store(&f->refuse, 0);
    assert_int_equal(client_session_query(f->c, 3, &progress, NULL), 0); /* in step again */
}

static void test_client_session_tells_what_the_store_was_begun_with(void **state)
{
    struct fixture *f = *state;
    const struct msg_recipe *recipe;
    struct msg_job_opened opened;
    struct msg_job_open o;
    struct err err;

    start_broker(f);
    open_client(f);
    fill_open(&o);
    atomic_store(&f->refuse, MSG_REASON_RECIPE);
    assert_int_equal(client_session_job_open(f->c, &o, &opened, &recipe, &err), -EEXIST);
    assert_non_null(recipe);
    assert_string_equal(recipe->name, "other");
    atomic_store(&f->refuse, MSG_REASON_BUSY);
    assert_int_equal(client_session_job_open(f->c, &o, &opened, &recipe, &err), -EBUSY);
    assert_null(recipe);
}

static void test_client_session_finds_items_and_sources(void **state)
{
    struct row_item item = {.key = (const uint8_t *)"k", .key_bytes = 1};
    struct fixture *f = *state;
    struct buf keys, found;
    struct err err = {""};
    uint32_t n;

    start_broker(f);
    open_client(f);
    buf_init(&keys, 0);
    buf_init(&found, 0);
    assert_int_equal(row_item_append(&keys, &item), 0);
    if (client_session_find_items(f->c, 3, &keys, 1, &found, &n, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(n == 2 && found.size_bytes > 0 && keys.size_bytes == 0);
    buf_clear(&found);
    if (client_session_find_sources(f->c, 3, &found, &n, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(n == 0 && found.size_bytes == 0);
    atomic_store(&f->refuse, MSG_REASON_STORE);
    assert_int_equal(client_session_find_sources(f->c, 3, &found, &n, &err), -EIO);
    buf_release(&found);
    buf_release(&keys);
}

static void test_client_session_times_out_and_goes_on(void **state)
{
    struct fixture *f = *state;
    struct msg_job_progress progress;

    start_broker(f);
    open_client(f);
    client_session_set_timeout(f->c, 100);
    atomic_store(&f->mute, true);
    assert_int_equal(client_session_query(f->c, 3, &progress, NULL), -ETIMEDOUT);
    atomic_store(&f->mute, false);
    client_session_set_timeout(f->c, 5000);
    assert_int_equal(client_session_query(f->c, 3, &progress, NULL), 0);
}

static void test_client_session_sees_a_lost_broker_at_once(void **state)
{
    struct fixture *f = *state;
    struct msg_job_progress progress;
    struct err err = {""};

    start_broker(f);
    open_client(f);
    stop_broker(f);
    assert_int_equal(client_session_query(f->c, 3, &progress, &err), -ECONNRESET);
    assert_non_null(strstr(err.text, "lost"));
    assert_int_equal(client_session_query(f->c, 3, &progress, &err), -ECONNRESET);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_client_session_asks_and_is_answered),
        TEST(test_client_session_waits_for_a_broker_that_starts),
        TEST(test_client_session_streams_rows_four_at_a_time),
        TEST(test_client_session_refusals_are_error_numbers_with_words),
        TEST(test_client_session_tells_what_the_store_was_begun_with),
        TEST(test_client_session_finds_items_and_sources),
        TEST(test_client_session_times_out_and_goes_on),
        TEST(test_client_session_sees_a_lost_broker_at_once),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    wire_exit();
    return rc;
}
