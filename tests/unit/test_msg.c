#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/msg.h"

static const enum msg_type all_types[] = {
    MSG_HELLO,        MSG_WELCOME,    MSG_REFUSE,      MSG_CREDIT,      MSG_WORK,         MSG_RESULT,
    MSG_FAILURE,      MSG_RETURN,     MSG_HEARTBEAT,   MSG_DRAIN,       MSG_BYE,          MSG_JOB_OPEN,
    MSG_JOB_OPENED,   MSG_JOB_ROWS,   MSG_JOB_ROWS_OK, MSG_JOB_SEAL,    MSG_JOB_ACCEPTED, MSG_JOB_QUERY,
    MSG_JOB_PROGRESS, MSG_JOB_STOP,   MSG_SHUTDOWN,    MSG_JOB_AGAIN,   MSG_JOB_CLOSE,    MSG_JOB_FIND,
    MSG_JOB_FOUND,    MSG_JOB_LIST,   MSG_JOB_LISTED,  MSG_JOB_CONTROL, MSG_FLEET_QUERY,  MSG_FLEET,
    MSG_JOB_PUSH,     MSG_JOB_PUSHED, MSG_MODEL_OFFER, MSG_MODEL_WANT,  MSG_MODEL_FILES,  MSG_MODEL_LIST,
    MSG_MODEL_LISTED, MSG_MODEL_GET,  MSG_STORE_READ,  MSG_STORE_ROWS};
enum { N_TYPES = sizeof(all_types) / sizeof(all_types[0]) };

static const struct msg_lease a_lease = {
    .epoch = 77, .id = 0x123456789abcdefULL, .job = 3, .unit = 9, .node = 2, .attempt = 4, .first = 8, .count = 32};
static const uint64_t some_ids[] = {1, 2, 0xffffffffffffffffULL};
static const uint8_t some_bytes[64] = {1, 2, 3, 4, 5};

static void fill_recipe(struct msg_recipe *r)
{
    msg_recipe_init(r);
    strcpy(r->model, "blip2-opt-demo");
    strcpy(r->score_model, "blip2-itm-demo");
    strcpy(r->prompts[0], "Question: what \xff\xfe\n");
    strcpy(r->prompts[1], "a photo of");
    r->n_prompts = 2;
    r->decode = (struct generation_options){.max_new_tokens = 20,
                                            .min_new_tokens = 3,
                                            .n_beams = 5,
                                            .n_return = 4,
                                            .length_penalty = -1.5F,
                                            .early_stopping = EARLY_STOPPING_NEVER,
                                            .repetition_penalty = 1.25F,
                                            .no_repeat_ngram = 2,
                                            .temperature = 0.7F,
                                            .top_k = 50,
                                            .top_p = 0.9F,
                                            .seed = 1ULL << 60};
    r->dtype_llm = DTYPE_BF16;
    r->n_text_fields = 1;
    strcpy(r->text_fields[0], "caption");
    r->itc = r->itm = r->exif_orientation = true;
    r->n_embeddings = 2;
    r->embeddings[0] = (struct msg_embedding_spec){MSG_EMBEDDING_QUERY, DTYPE_F16, false};
    r->embeddings[1] = (struct msg_embedding_spec){MSG_EMBEDDING_ITC, DTYPE_F32, true};
}

static void fill_tensors(struct msg *m, uint32_t n_items)
{
    m->n_tensors = 2;
    m->tensors[0] = (struct msg_tensor){.dtype = DTYPE_F32,
                                        .n_dims = 3,
                                        .shape = {n_items, 257, 1408},
                                        .transport = MSG_TRANSPORT_FRAME,
                                        .xxh3 = 0xdeadbeefcafef00dULL,
                                        .n_frames = n_items};
    m->tensors[1] = (struct msg_tensor){.dtype = DTYPE_U8,
                                        .n_dims = 2,
                                        .shape = {n_items, 2},
                                        .transport = MSG_TRANSPORT_INLINE,
                                        .xxh3 = 1,
                                        .inline_data = some_bytes,
                                        .inline_bytes = 2 * n_items};
}

static void fill_workers_part(struct msg *m)
{
    switch (m->type) {
    case MSG_HELLO:
        m->hello = (struct msg_hello){.role = MSG_ROLE_WORKER,
                                      .min_version = 1,
                                      .max_version = 3,
                                      .host = "node-1",
                                      .boot_nonce = 5,
                                      .pid = 4711,
                                      .stage = STAGE_QFORMER,
                                      .device = "cuda:0",
                                      .dtype = DTYPE_F8_E4M3,
                                      .fingerprint = {"0123456789abcdef"},
                                      .model = "m",
                                      .window_items = 256,
                                      .window_bytes = 1 << 30,
                                      .epoch = 77,
                                      .n_lease_ids = 3,
                                      .lease_ids = some_ids};
        return;
    case MSG_WORK:
        m->work.lease = a_lease;
        fill_recipe(&m->work.recipe);
        m->n_row_frames = 1;
        m->n_rows = 30;
        m->work.tasks = MSG_TASK_SCORE | MSG_TASK_CLS;
        fill_tensors(m, 30);
        m->tensors[0].shape[0] = m->tensors[0].n_frames = 31; /* an item failed since */
        m->work.n_selections = 1;
        m->work.selections[0] = (struct msg_selection){.n_bytes = 4, .rows = {0xff, 0xef, 0xff, 0x7f}};
        return;
    case MSG_RESULT:
        m->result.lease = a_lease;
        m->result.timing = (struct msg_timing){1, 2, 3, 4};
        m->n_row_frames = 2;
        m->n_rows = 32;
        fill_tensors(m, 31);
        return;
    case MSG_FAILURE:
        m->failure = (struct msg_failure){.lease = a_lease, .code = "out_of_memory", .text = "no room"};
        return;
    case MSG_RETURN:
        m->return_lease = (struct msg_return){.lease = a_lease, .unseen = "/pictures (Permission denied)"};
        return;
    default:
        m->heartbeat =
            (struct msg_heartbeat){.epoch = 77, .n_lease_ids = 3, .lease_ids = some_ids, .progress = 12, .n_items = 5};
        return;
    }
}

static void fill_job_open(struct msg_job_open *o)
{
    strcpy(o->path, "/data/photos.lmdb");
    strcpy(o->source, "photos/");
    fill_recipe(&o->recipe);
    o->n_nodes = 3;
    for (uint32_t i = 0; i < 3; i++)
        o->nodes[i] = (struct msg_node){.stage = (enum stage)(i + 1),
                                        .needs = i ? 1U << (i - 1) : 0,
                                        .fingerprint = {"fedcba9876543210"},
                                        .out_bytes = 4096 >> i,
                                        .model = "m"};
    o->nodes[2].fingerprint = (struct fingerprint){0};
    o->unit_items = 64;
    o->check = true;
    o->create = true;
    o->priority = 2;
    o->max_failures = 50;
    o->max_failed_per_mille = 25;
}

static void fill_progress(struct msg_job_progress *p)
{
    *p = (struct msg_job_progress){.job = 3,
                                   .state = MSG_JOB_BLOCKED,
                                   .n_items = 100,
                                   .n_done = 50,
                                   .n_failed = 2,
                                   .n_again = 3,
                                   .n_redone = 1ULL << 40,
                                   .n_units = 10,
                                   .n_units_done = 5,
                                   .n_stages = 2,
                                   .text = "no room on the disk"};
    p->stages[0] = (struct msg_stage_progress){STAGE_ENCODE, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 21, 22, 23, 24, 25};
    p->stages[1] = (struct msg_stage_progress){STAGE_LLM, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 31, 32, 33, 34, 35};
    p->n_given_up = 4;
    p->n_hung = 1;
    p->hung[0] = (struct msg_hung_worker){"host", 77, STAGE_LLM, "it has fallen silent"};
    p->broker = (struct msg_broker_counters){41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55};
}

/* A message of each type with every field set. */
static void example(struct msg *m, enum msg_type type)
{
    msg_init(m, type);
    m->seq = 42;
    switch (type) {
    case MSG_HELLO:
    case MSG_WORK:
    case MSG_RESULT:
    case MSG_FAILURE:
    case MSG_RETURN:
    case MSG_HEARTBEAT:
        fill_workers_part(m);
        return;
    case MSG_WELCOME:
        m->welcome = (struct msg_welcome){
            .epoch = 77, .version = 1, .heartbeat_ms = 1000, .lease_ms = 30000, .takes_models = true};
        return;
    case MSG_REFUSE:
        m->refuse = (struct msg_refuse){.reason = MSG_REASON_RECIPE, .text = "another prompt", .has_recipe = true};
        fill_recipe(&m->refuse.recipe);
        return;
    case MSG_CREDIT:
        m->credit = (struct msg_credit){100, 1000};
        return;
    case MSG_JOB_OPEN:
        fill_job_open(&m->job_open);
        return;
    case MSG_JOB_OPENED:
        m->job_opened =
            (struct msg_job_opened){.job = 3, .n_items = 4, .n_done = 2, .n_again = 1, .n_redone = 9, .n_units = 1};
        return;
    case MSG_JOB_ROWS:
        m->job_rows = (struct msg_job_rows){.job = 3,
                                            .compare = true,
                                            .begin = true,
                                            .comparison = {.refresh = true, .n_codes = 2, .codes = {"empty", "lost"}}};
        m->n_rows = 1000;
        m->n_row_frames = 1;
        return;
    case MSG_JOB_FIND:
        m->job_find = (struct msg_job_find){.job = 3};
        m->n_rows = 256;
        m->n_row_frames = 1;
        return;
    case MSG_JOB_LIST:
        m->job_list.from_job = 300;
        return;
    case MSG_JOB_LISTED:
        m->job_listed.next_job = 556;
        m->n_rows = 256;
        m->n_row_frames = 1;
        return;
    case MSG_JOB_CONTROL:
        m->job_control = (struct msg_job_control){.job = 3, .action = MSG_JOB_PRIORITY, .priority = 200};
        return;
    case MSG_MODEL_FILES:
        m->n_tensors = 2;
        for (int i = 0; i < 2; i++)
            m->tensors[i] = (struct msg_tensor){.dtype = DTYPE_U8,
                                                .n_dims = 1,
                                                .shape = {64},
                                                .transport = MSG_TRANSPORT_INLINE,
                                                .inline_data = some_bytes,
                                                .inline_bytes = 64};
        /* fall through */
    case MSG_MODEL_WANT:
    case MSG_MODEL_GET:
        m->model_ref.model = (struct fingerprint){"0123456789abcdef"};
        return;
    case MSG_MODEL_OFFER:
    case MSG_MODEL_LISTED:
        m->n_rows = 1;
        m->n_row_frames = 1;
        return;
    case MSG_FLEET_QUERY:
        m->fleet_query = (struct msg_fleet_query){MSG_FLEET_WORKERS, 17};
        return;
    case MSG_FLEET:
        m->fleet = (struct msg_fleet){18, 1, 2, 3, 4, 5, 6, 1ULL << 40, 7, 9, 8};
        m->n_rows = 1024;
        m->n_row_frames = 1;
        return;
    case MSG_STORE_READ:
        m->store_read =
            (struct msg_store_read){.job = 3, .what = MSG_STORE_FIND, .from = 9, .key_bytes = 4, .key = "a\0\xff"};
        return;
    case MSG_STORE_ROWS:
        m->store_rows = (struct msg_store_rows){.job = 3,
                                                .next = 1ULL << 40,
                                                .n_units = 9,
                                                .damage = "unit 8: checksum",
                                                .more = true,
                                                .in_progress = true,
                                                .n_problems = 1,
                                                .n_seen = 2,
                                                .n_items = 3,
                                                .disk_bytes = 4096,
                                                .n_kinds = 3,
                                                .n_embeddings = {0, 5, 6}};
        m->n_rows = 1000;
        m->n_row_frames = 1;
        return;
    case MSG_JOB_PUSH:
        m->job_push = (struct msg_job_push){3, 1ULL << 33};
        m->n_rows = 7;
        m->n_row_frames = 1;
        m->n_tensors = 1;
        m->tensors[0] = (struct msg_tensor){
            .dtype = DTYPE_U8, .n_dims = 1, .shape = {8 << 20}, .transport = MSG_TRANSPORT_FRAME, .n_frames = 1};
        return;
    case MSG_JOB_PUSHED:
        m->job_pushed = (struct msg_job_pushed){3, 1000};
        return;
    case MSG_JOB_SEAL:
        m->job_seal = (struct msg_job_seal){3, 1ULL << 41};
        return;
    case MSG_JOB_FOUND:
    case MSG_JOB_AGAIN:
        m->n_rows = 1000;
        m->n_row_frames = 1;
        /* fall through */
    case MSG_JOB_QUERY:
    case MSG_JOB_STOP:
    case MSG_JOB_CLOSE:
        m->job_ref.job = 3;
        return;
    case MSG_JOB_ROWS_OK:
        m->job_rows_ok = (struct msg_job_rows_ok){3, 1000, true, {1, 2, 3, 4, 5, 6, "key", 3, 2, {7, 8}}};
        return;
    case MSG_JOB_ACCEPTED:
        m->job_accepted = (struct msg_job_accepted){3, 1000, 1ULL << 39, 16};
        return;
    case MSG_JOB_PROGRESS:
        fill_progress(&m->job_progress);
        return;
    default:
        return;
    }
}

static void pack(const struct msg *m, struct buf *b)
{
    struct err err = {""};
    int rc = msg_pack(m, b, &err);

    if (rc < 0)
        fail_msg("%s: %s", msg_type_name(m->type), err.text);
}

/* Pointers are compared by what they point to, then made equal, so that the rest can be compared as bytes. */
static void assert_same(struct msg *a, struct msg *b)
{
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        assert_int_equal(a->tensors[i].inline_bytes, b->tensors[i].inline_bytes);
        if (a->tensors[i].inline_bytes)
            assert_memory_equal(a->tensors[i].inline_data, b->tensors[i].inline_data, a->tensors[i].inline_bytes);
        a->tensors[i].inline_data = b->tensors[i].inline_data = NULL;
    }
    if (a->type == MSG_HEARTBEAT) {
        assert_int_equal(a->heartbeat.n_lease_ids, b->heartbeat.n_lease_ids);
        assert_memory_equal(a->heartbeat.lease_ids, b->heartbeat.lease_ids, a->heartbeat.n_lease_ids * 8);
        a->heartbeat.lease_ids = b->heartbeat.lease_ids = NULL;
    }
    if (a->type == MSG_HELLO) {
        assert_int_equal(a->hello.n_lease_ids, b->hello.n_lease_ids);
        if (a->hello.n_lease_ids)
            assert_memory_equal(a->hello.lease_ids, b->hello.lease_ids, a->hello.n_lease_ids * 8);
        a->hello.lease_ids = b->hello.lease_ids = NULL;
    }
    a->memory = b->memory = NULL;
    assert_memory_equal(a, b, sizeof(*a));
}

static void test_msg_every_type_comes_back_as_it_was(void **state)
{
    struct msg m, back;
    struct buf b;
    struct err err;

    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        void *memory;

        buf_init(&b, 0);
        example(&m, all_types[i]);
        pack(&m, &b);
        memset(&back, 0x5a, sizeof(back));
        assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), 0);
        memory = back.memory;
        assert_same(&m, &back);
        free(memory);
        assert_string_not_equal(msg_type_name(all_types[i]), "?");
        buf_release(&b);
    }
}

static void test_msg_a_job_is_opened_by_its_number_or_by_a_submission(void **state)
{
    struct msg m, back;
    struct buf b;
    struct err err;

    (void)state;
    buf_init(&b, 0);
    msg_init(&m, MSG_JOB_OPEN);
    m.job_open.job = 1042;
    pack(&m, &b);
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), 0);
    assert_same(&m, &back);
    buf_clear(&b);
    example(&m, MSG_JOB_OPEN);
    memset(m.job_open.path, 0, sizeof(m.job_open.path));
    m.job_open.submission.given = true;
    memcpy(m.job_open.submission.token, "0123456789abcdef", MSG_TOKEN_BYTES);
    strcpy(m.job_open.submission.name, "holidays");
    pack(&m, &b);
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), 0);
    assert_same(&m, &back);
    buf_release(&b);
}

static void test_msg_truncated_anywhere_is_refused_or_a_message(void **state)
{
    struct msg m, back;
    struct buf b;
    int n_refused = 0;

    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        buf_init(&b, 0);
        example(&m, all_types[i]);
        pack(&m, &b);
        for (size_t n = 0; n < b.size_bytes; n++) {
            uint8_t *exact = malloc(n ? n : 1); /* so that a read past the end shows */
            struct err err = {""};

            memcpy(exact, b.data, n);
            memset(&back, 0, sizeof(back));
            if (msg_unpack(exact, n, &back, &err) < 0) {
                n_refused++;
                assert_string_not_equal(err.text, "");
                assert_null(back.memory); /* untouched */
            } else {
                msg_release(&back);
            }
            free(exact);
        }
        buf_release(&b);
    }
    assert_true(n_refused > 500);
}

static uint64_t rng_next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static void test_msg_survives_random_bytes(void **state)
{
    uint64_t seed = (uint64_t)time(NULL) * 2654435761U + 1, x = seed;
    struct msg m, back;
    struct buf b;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 20000; round++) {
        buf_init(&b, 0);
        if (round % 2) { /* a real one with some bytes changed */
            example(&m, all_types[rng_next(&x) % N_TYPES]);
            pack(&m, &b);
            for (int k = 0; k < 4 && b.size_bytes; k++)
                b.data[rng_next(&x) % b.size_bytes] = (uint8_t)rng_next(&x);
        } else {
            uint64_t noise[32];

            for (int k = 0; k < 32; k++)
                noise[k] = rng_next(&x);
            assert_int_equal(buf_append(&b, noise, rng_next(&x) % sizeof(noise)), 0);
        }
        if (msg_unpack(b.data, b.size_bytes, &back, NULL) == 0) {
            struct buf again;

            buf_init(&again, 0);
            pack(&back, &again); /* what is accepted can be sent on */
            buf_release(&again);
            msg_release(&back);
        }
        buf_release(&b);
    }
}

static void append_varint(struct buf *b, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));

        assert_int_equal(buf_append(b, &byte, 1), 0);
        v >>= 7;
    } while (v);
}

static void test_msg_oversize_is_refused(void **state)
{
    struct buf b;
    struct msg m;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_DRAIN);
    pack(&m, &b);
    append_varint(&b, 99 << 3 | 2); /* an unknown field that fills it up */
    append_varint(&b, MSG_MAX_BYTES);
    assert_int_equal(buf_reserve(&b, MSG_MAX_BYTES), 0);
    memset(b.data + b.size_bytes, 0, MSG_MAX_BYTES);
    assert_int_equal(msg_unpack(b.data, b.size_bytes + MSG_MAX_BYTES, &m, NULL), -EMSGSIZE);
    assert_int_equal(msg_unpack(b.data, MSG_MAX_BYTES + 1, &m, NULL), -EMSGSIZE);
    buf_release(&b);
}

/* 64 KiB of two-byte unknown fields: 30 times as much in protobuf-c's memory. */
static void test_msg_unknown_fields_cannot_amplify(void **state)
{
    struct err err = {""};
    struct buf b;
    struct msg m;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_DRAIN);
    pack(&m, &b);
    while (b.size_bytes + 3 <= MSG_MAX_BYTES) {
        append_varint(&b, 99 << 3);
        append_varint(&b, 1);
    }
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &m, &err), -EMSGSIZE);
    assert_non_null(strstr(err.text, "1 MiB"));
    buf_release(&b);
}

/* A few unknown fields of a later version are no offence. */
static void test_msg_of_a_later_minor_is_understood(void **state)
{
    struct buf b;
    struct msg m;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_CREDIT);
    pack(&m, &b);
    append_varint(&b, 99 << 3);
    append_varint(&b, 1);
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &m, NULL), 0);
    assert_int_equal(m.credit.window_items, 100);
    buf_release(&b);
}

/* envelope { version = 1, heartbeat { epoch = 1, <ids> } } */
static void heartbeat_bytes(struct buf *b, const struct buf *ids)
{
    buf_init(b, 0);
    append_varint(b, 1 << 3);
    append_varint(b, MSG_VERSION);
    append_varint(b, MSG_HEARTBEAT << 3 | 2);
    append_varint(b, 2 + ids->size_bytes);
    append_varint(b, 1 << 3);
    append_varint(b, 1);
    assert_int_equal(buf_append(b, ids->data, ids->size_bytes), 0);
}

static void test_msg_repeated_fields_are_counted_packed_or_not(void **state)
{
    static const uint8_t zeros[8 * (MSG_MAX_LEASE_IDS + 1)];

    (void)state;
    for (int packed = 0; packed < 2; packed++)
        for (uint32_t n = MSG_MAX_LEASE_IDS; n <= MSG_MAX_LEASE_IDS + 1; n++) {
            struct buf ids, b;
            struct msg m;
            int rc;

            buf_init(&ids, 0);
            if (packed) {
                append_varint(&ids, 2 << 3 | 2);
                append_varint(&ids, (uint64_t)n * 8);
                assert_int_equal(buf_append(&ids, zeros, (size_t)n * 8), 0);
            }
            for (uint32_t i = 0; i < n && !packed; i++) {
                append_varint(&ids, 2 << 3 | 1);
                assert_int_equal(buf_append(&ids, zeros, 8), 0);
            }
            heartbeat_bytes(&b, &ids);
            rc = msg_unpack(b.data, b.size_bytes, &m, NULL);
            if (n > MSG_MAX_LEASE_IDS) {
                assert_int_equal(rc, -EMSGSIZE);
            } else {
                assert_int_equal(rc, 0);
                assert_int_equal(m.heartbeat.n_lease_ids, n);
                msg_release(&m);
            }
            buf_release(&b);
            buf_release(&ids);
        }
}

/* A shape of 60 000 one-byte dimensions, in the packed form. */
static void test_msg_long_shape_is_refused(void **state)
{
    struct buf b, shape;
    struct msg m;

    (void)state;
    buf_init(&shape, 0);
    for (int i = 0; i < 60000; i++)
        append_varint(&shape, 1);
    buf_init(&b, 0);
    append_varint(&b, 1 << 3);
    append_varint(&b, MSG_VERSION);
    append_varint(&b, 5 << 3 | 2);
    append_varint(&b, shape.size_bytes + 4);
    append_varint(&b, 2 << 3 | 2);
    append_varint(&b, shape.size_bytes);
    assert_int_equal(buf_append(&b, shape.data, shape.size_bytes), 0);
    append_varint(&b, MSG_DRAIN << 3 | 2);
    append_varint(&b, 0);
    assert_true(msg_unpack(b.data, b.size_bytes, &m, NULL) < 0);
    buf_release(&b);
    buf_release(&shape);
}

struct bad_case {
    const char *what; /* must be in the message */
    enum msg_type type;
    void (*spoil)(struct msg *m);
};

#define SPOIL(name, code)           \
    static void name(struct msg *m) \
    {                               \
        code;                       \
    }
SPOIL(bad_version, m->version = 3)
SPOIL(bad_stage, m->hello.stage = (enum stage)9)
SPOIL(bad_role, m->hello.role = (enum msg_role)0)
SPOIL(bad_dtype, m->tensors[0].dtype = DTYPE_F8_E4M3)
SPOIL(no_window, m->hello.window_items = 0)
SPOIL(bad_versions, m->hello.min_version = 4)
SPOIL(shape_overflow, m->tensors[0].shape[0] = m->tensors[0].shape[1] = m->tensors[0].shape[2] = 0xffffffffU)
SPOIL(shape_zero, m->tensors[0].shape[1] = 0)
SPOIL(item_too_big, m->tensors[0].shape[2] = 1408 * 8)
SPOIL(few_frames, m->tensors[0].n_frames = 1)
SPOIL(many_frames, m->tensors[0].n_frames = 32)
SPOIL(no_dims, m->tensors[0].n_dims = 0)
SPOIL(transport_shm, m->tensors[0].transport = (enum msg_transport)3)
SPOIL(transport_peer, m->tensors[0].transport = (enum msg_transport)4)
SPOIL(inline_length, m->tensors[1].inline_bytes = 59)
SPOIL(rows_of_tensor, m->work.n_selections = 0)
SPOIL(too_many_rows, m->n_rows = 33)
SPOIL(no_rows, m->n_rows = m->n_row_frames = 0)
SPOIL(rows_without_frames, m->n_row_frames = 0)
SPOIL(row_frames, (m->n_row_frames = 65, m->n_rows = 100))
SPOIL(lease_id, m->work.lease.id = 0)
SPOIL(lease_epoch, m->work.lease.epoch = 0)
SPOIL(lease_count, m->work.lease.count = 5000)
SPOIL(lease_first, m->work.lease.first = 0xfffffff0U)
SPOIL(lease_node, m->work.lease.node = 8)
SPOIL(new_tokens, m->work.recipe.decode.max_new_tokens = -1)
SPOIL(few_tokens, m->work.recipe.decode.min_new_tokens = -1)
SPOIL(top_k, m->work.recipe.decode.top_k = -1)
SPOIL(no_repeat, m->work.recipe.decode.no_repeat_ngram = -1)
SPOIL(beams, m->work.recipe.decode.n_beams = 65)
SPOIL(captions, m->work.recipe.decode.n_return = 6)
SPOIL(sampled_beams, m->work.recipe.decode.sample = true)
SPOIL(temperature, m->work.recipe.decode.temperature = NAN)
SPOIL(top_p, m->work.recipe.decode.top_p = 1.5F)
SPOIL(length_penalty, m->work.recipe.decode.length_penalty = INFINITY)
SPOIL(embedding_twice, m->work.recipe.embeddings[1].kind = MSG_EMBEDDING_QUERY)
SPOIL(embedding_dtype, m->work.recipe.embeddings[1].dtype = DTYPE_BF16)
SPOIL(work_tasks, m->work.tasks = 64)
SPOIL(selection_bytes, m->work.selections[0].n_bytes = 3)
SPOIL(selection_count, m->work.selections[0].rows[0] ^= 1)
SPOIL(selection_past_end, (m->work.selections[0].rows[3] = 0xff, m->work.selections[0].rows[2] = 1))
SPOIL(selection_of_no_tensor, (m->work.n_selections = 2, m->work.selections[1].tensor = 2))
SPOIL(code_word, strcpy(m->failure.code, "Two words"))
SPOIL(code_empty, m->failure.code[0] = 0)
SPOIL(welcome_epoch, m->welcome.epoch = 0)
SPOIL(welcome_lease, m->welcome.lease_ms = 1000)
SPOIL(heartbeat_epoch, m->heartbeat.epoch = 0)
SPOIL(open_path, m->job_open.path[0] = 0)
SPOIL(open_path_and_job, m->job_open.job = 7)
SPOIL(open_path_and_submission, m->job_open.submission.given = true)
SPOIL(open_unit, m->job_open.unit_items = 4097)
SPOIL(node_needs, m->job_open.nodes[1].needs = 2)
SPOIL(node_count, m->job_open.n_nodes = 0)
SPOIL(node_out, m->job_open.nodes[0].out_bytes = (8 << 20) + 1)
SPOIL(progress_counts, m->job_progress.n_done = 101)
SPOIL(progress_state, m->job_progress.state = (enum msg_job_state)9)
SPOIL(control_action, m->job_control.action = (enum msg_job_action)7)
SPOIL(control_priority, m->job_control.action = MSG_JOB_PAUSE)
SPOIL(control_codes, m->job_control.n_codes = 1)
SPOIL(listed_rows, m->n_rows = 257)
SPOIL(fleet_rows, m->n_rows = 1025)
SPOIL(fleet_jobs, m->fleet.n_other_jobs = m->fleet.n_jobs + 1)
SPOIL(fleet_what, m->fleet_query.what = (enum msg_fleet_what)4)
SPOIL(store_job, m->store_read.job = 0)
SPOIL(store_what, m->store_read.what = (enum msg_store_what)9)
SPOIL(store_key, m->store_read.key_bytes = 0)
SPOIL(store_embedding, m->store_read.embedding = MSG_EMBEDDING_ITC)
SPOIL(progress_hung, m->job_progress.n_hung = MSG_MAX_HUNG + 1)
SPOIL(progress_again, m->job_progress.n_again = m->job_progress.n_done + 1)
SPOIL(opened_again, m->job_opened.n_again = m->job_opened.n_done + 1)
SPOIL(open_share, m->job_open.max_failed_per_mille = 1001)
SPOIL(rows_on_bye, m->n_rows = m->n_row_frames = 1)

static const struct bad_case bad_cases[] = {
    {"version 3", MSG_DRAIN, bad_version},
    {"stage", MSG_HELLO, bad_stage},
    {"role", MSG_HELLO, bad_role},
    {"dtype", MSG_WORK, bad_dtype},
    {"window", MSG_HELLO, no_window},
    {"versions", MSG_HELLO, bad_versions},
    {"product", MSG_WORK, shape_overflow},
    {"dimension 1", MSG_WORK, shape_zero},
    {"an item", MSG_WORK, item_too_big},
    {"frames", MSG_WORK, few_frames},
    {"frames", MSG_WORK, many_frames},
    {"dimensions", MSG_WORK, no_dims},
    {"SHM", MSG_WORK, transport_shm},
    {"PEER", MSG_WORK, transport_peer},
    {"inline", MSG_WORK, inline_length},
    {"rows", MSG_WORK, rows_of_tensor},
    {"rows", MSG_WORK, too_many_rows},
    {"rows", MSG_RESULT, no_rows},
    {"rows", MSG_WORK, rows_without_frames},
    {"limits", MSG_WORK, row_frames},
    {"lease", MSG_WORK, lease_id},
    {"lease", MSG_WORK, lease_epoch},
    {"lease", MSG_WORK, lease_count},
    {"lease", MSG_WORK, lease_first},
    {"node", MSG_WORK, lease_node},
    {"max_new_tokens", MSG_WORK, new_tokens},
    {"min_new_tokens", MSG_WORK, few_tokens},
    {"top_k", MSG_WORK, top_k},
    {"no_repeat_ngram", MSG_WORK, no_repeat},
    {"beams", MSG_WORK, beams},
    {"captions", MSG_WORK, captions},
    {"sampling", MSG_WORK, sampled_beams},
    {"temperature", MSG_WORK, temperature},
    {"top_p", MSG_WORK, top_p},
    {"length_penalty", MSG_WORK, length_penalty},
    {"twice", MSG_WORK, embedding_twice},
    {"itc as bf16", MSG_WORK, embedding_dtype},
    {"tasks", MSG_WORK, work_tasks},
    {"selection of 3 bytes", MSG_WORK, selection_bytes},
    {"selection of 29 rows", MSG_WORK, selection_count},
    {"beyond", MSG_WORK, selection_past_end},
    {"selections", MSG_WORK, selection_of_no_tensor},
    {"code", MSG_FAILURE, code_word},
    {"code", MSG_FAILURE, code_empty},
    {"epoch", MSG_WELCOME, welcome_epoch},
    {"lease", MSG_WELCOME, welcome_lease},
    {"epoch", MSG_HEARTBEAT, heartbeat_epoch},
    {"path", MSG_JOB_OPEN, open_path},
    {"exactly one", MSG_JOB_OPEN, open_path_and_job},
    {"exactly one", MSG_JOB_OPEN, open_path_and_submission},
    {"units", MSG_JOB_OPEN, open_unit},
    {"node 1", MSG_JOB_OPEN, node_needs},
    {"nodes", MSG_JOB_OPEN, node_count},
    {"node 0", MSG_JOB_OPEN, node_out},
    {"counts", MSG_JOB_PROGRESS, progress_counts},
    {"hung workers", MSG_JOB_PROGRESS, progress_hung},
    {"state", MSG_JOB_PROGRESS, progress_state},
    {"action", MSG_JOB_CONTROL, control_action},
    {"priority", MSG_JOB_CONTROL, control_priority},
    {"codes", MSG_JOB_CONTROL, control_codes},
    {"256", MSG_JOB_LISTED, listed_rows},
    {"1024", MSG_FLEET, fleet_rows},
    {"of others", MSG_FLEET, fleet_jobs},
    {"kind of rows", MSG_FLEET_QUERY, fleet_what},
    {"job", MSG_STORE_READ, store_job},
    {"what", MSG_STORE_READ, store_what},
    {"key", MSG_STORE_READ, store_key},
    {"embedding", MSG_STORE_READ, store_embedding},
    {"counts", MSG_JOB_PROGRESS, progress_again},
    {"counts", MSG_JOB_OPENED, opened_again},
    {"1000", MSG_JOB_OPEN, open_share},
    {"rows", MSG_BYE, rows_on_bye},
};

static void test_msg_every_field_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++) {
        struct err err = {""};
        struct msg m;
        struct buf b;

        buf_init(&b, 0);
        example(&m, bad_cases[i].type);
        assert_int_equal(msg_pack(&m, &b, &err), 0);
        buf_clear(&b);
        bad_cases[i].spoil(&m);
        if (msg_pack(&m, &b, &err) != -EINVAL || !strstr(err.text, bad_cases[i].what))
            fail_msg("case %zu (%s, %s): %s", i, msg_type_name(bad_cases[i].type), bad_cases[i].what, err.text);
        assert_int_equal(b.size_bytes, 0);
        buf_release(&b);
    }
}

static void test_msg_text_with_nul_or_past_its_limit_is_refused(void **state)
{
    struct err err = {""};
    struct msg m, back;
    uint8_t *at;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_REFUSE);
    pack(&m, &b);
    at = memmem(b.data, b.size_bytes, "another", 7);
    assert_non_null(at);
    at[3] = 0;
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "NUL"));
    buf_clear(&b);
    append_varint(&b, 1 << 3);
    append_varint(&b, MSG_VERSION);
    append_varint(&b, MSG_REFUSE << 3 | 2);
    append_varint(&b, 3 + MSG_TEXT_SIZE);
    append_varint(&b, 2 << 3 | 2);
    append_varint(&b, MSG_TEXT_SIZE);
    assert_int_equal(buf_reserve(&b, MSG_TEXT_SIZE), 0);
    memset(b.data + b.size_bytes, 'x', MSG_TEXT_SIZE);
    b.size_bytes += MSG_TEXT_SIZE;
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), -EMSGSIZE);
    buf_release(&b);
}

static void test_msg_fingerprint_of_another_length_is_refused(void **state)
{
    struct err err = {""};
    struct msg m, back;
    uint8_t *at;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_HELLO);
    memcpy(m.hello.fingerprint.bytes, "0123456789abc\x80\x01", FINGERPRINT_BYTES); /* from 0x80 on: an unknown field */
    pack(&m, &b);
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, NULL), 0);
    assert_true(fingerprint_equal(&m.hello.fingerprint, &back.hello.fingerprint));
    msg_release(&back);
    at = memmem(b.data, b.size_bytes,
                "\x52\x10"
                "0123",
                6);
    assert_non_null(at);
    at[1] = 13;
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "fingerprint of 13 bytes"));
    buf_release(&b);
}

static void test_msg_hello_of_another_version_is_understood(void **state)
{
    struct msg m, back;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    example(&m, MSG_HELLO);
    m.version = 9;
    m.hello.min_version = 8;
    m.hello.max_version = 9;
    pack(&m, &b);
    assert_int_equal(msg_unpack(b.data, b.size_bytes, &back, NULL), 0);
    assert_int_equal(back.hello.min_version, 8);
    buf_release(&b);
}

static void test_msg_recipe_diff_names_each_field(void **state)
{
    struct msg_recipe a = {.name = "caption"}, b;
    struct buf words;

    (void)state;
    buf_init(&words, 0);
    fill_recipe(&a);
    b = a;
    assert_int_equal(msg_recipe_diff(&a, &b, &words), 0);
    assert_int_equal(words.size_bytes, 0);
    b.n_prompts = 0;
    b.decode.max_new_tokens = 30;
    b.decode.top_p = 0.5F;
    b.dtype_llm = DTYPE_F32;
    b.n_embeddings = 1;
    strcpy(b.model, "other");
    assert_int_equal(msg_recipe_diff(&a, &b, &words), 7);
    assert_non_null(strstr((char *)words.data, "prompt 1: none, was \"Question"));
    assert_non_null(strstr((char *)words.data, "prompt 2: none, was \"a photo of\""));
    assert_non_null(strstr((char *)words.data, "max-new-tokens: 30, was 20"));
    assert_non_null(strstr((char *)words.data, "top-p: 0.5, was 0.9"));
    assert_non_null(strstr((char *)words.data, "llm dtype: fp32, was bf16"));
    assert_non_null(strstr((char *)words.data, "model: \"other\""));
    assert_non_null(strstr((char *)words.data, "embedding itc: none, was fp32, first row"));
    buf_release(&words);
}

/* Each field of a recipe by itself: it is named, and it seeds other samples. */
static void test_msg_recipe_diff_and_hash_miss_no_field(void **state)
{
    static const struct {
        const char *says;
        size_t offset;
        int step; /* added to the byte at the offset: a value next to the example's */
    } cases[] = {
#define FIELD(says, field, step) {says, offsetof(struct msg_recipe, field), step}
        FIELD("prompt 1", prompts[0], 1),
        FIELD("text field 1", text_fields[0], 1),
        FIELD("max-new-tokens", decode.max_new_tokens, 1),
        FIELD("min-new-tokens", decode.min_new_tokens, 1),
        FIELD("beams", decode.n_beams, 1),
        FIELD("captions", decode.n_return, 1),
        FIELD("length-penalty", decode.length_penalty, 1), /* the next float */
        FIELD("early-stopping", decode.early_stopping, 1),
        FIELD("repetition-penalty", decode.repetition_penalty, 1),
        FIELD("no-repeat-ngram", decode.no_repeat_ngram, 1),
        FIELD("temperature", decode.temperature, 1),
        FIELD("top-k", decode.top_k, 1),
        FIELD("top-p", decode.top_p, 1),
        FIELD("seed", decode.seed, 1),
        FIELD("encoder dtype", dtype_encode, 2),
        FIELD("qformer dtype", dtype_qformer, 2),
        FIELD("embedding", embeddings[0].dtype, 1),
        FIELD("exif-orientation", exif_orientation, -1),
        FIELD("grey16", grey16_high_byte, 1),
#undef FIELD
    };
    struct msg_recipe *a = calloc(2, sizeof(*a)), *b = a + 1;
    struct buf words;

    (void)state;
    fill_recipe(a);
    a->decode.top_k = 4194304;
    a->n_text_fields = a->n_text_fields ? a->n_text_fields : 1;
    if (!a->text_fields[0][0])
        strcpy(a->text_fields[0], "caption");
    a->dtype_encode = a->dtype_qformer = DTYPE_F32;
    a->embeddings[0].dtype = DTYPE_F32;
    a->decode.early_stopping = EARLY_STOPPING_FALSE;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        buf_init(&words, 0);
        *b = *a;
        ((uint8_t *)b)[cases[i].offset] = (uint8_t)(((uint8_t *)b)[cases[i].offset] + cases[i].step);
        assert_int_equal(msg_recipe_diff(a, b, &words), 1);
        assert_int_equal(buf_append(&words, "", 1), 0);
        if (!strstr((char *)words.data, cases[i].says))
            fail_msg("%s: %s", cases[i].says, (char *)words.data);
        assert_true(msg_recipe_hash(a) != msg_recipe_hash(b));
        buf_release(&words);
    }
    *b = *a;
    strcpy(b->name, "another name");
    strcpy(b->model, "another name");
    strcpy(b->score_model, "another name");
    assert_true(msg_recipe_hash(a) == msg_recipe_hash(b));
    b->itc = !b->itc;
    assert_true(msg_recipe_hash(a) != msg_recipe_hash(b));
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msg_every_type_comes_back_as_it_was),
        cmocka_unit_test(test_msg_a_job_is_opened_by_its_number_or_by_a_submission),
        cmocka_unit_test(test_msg_truncated_anywhere_is_refused_or_a_message),
        cmocka_unit_test(test_msg_survives_random_bytes),
        cmocka_unit_test(test_msg_oversize_is_refused),
        cmocka_unit_test(test_msg_unknown_fields_cannot_amplify),
        cmocka_unit_test(test_msg_of_a_later_minor_is_understood),
        cmocka_unit_test(test_msg_repeated_fields_are_counted_packed_or_not),
        cmocka_unit_test(test_msg_long_shape_is_refused),
        cmocka_unit_test(test_msg_every_field_is_checked),
        cmocka_unit_test(test_msg_text_with_nul_or_past_its_limit_is_refused),
        cmocka_unit_test(test_msg_fingerprint_of_another_length_is_refused),
        cmocka_unit_test(test_msg_hello_of_another_version_is_understood),
        cmocka_unit_test(test_msg_recipe_diff_names_each_field),
        cmocka_unit_test(test_msg_recipe_diff_and_hash_miss_no_field),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
