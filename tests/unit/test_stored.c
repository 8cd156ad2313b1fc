#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "base/clock.h"
#include "proto/stored.h"

static struct row_record record_of(uint64_t item)
{
    static const uint8_t text[] = "a photo of a red bicycle against a wall";
    struct row_record r = {.item = item, .n_captions = 1};

    r.captions[0] = (struct row_caption){.text = text, .text_bytes = sizeof(text) - 1, .logprob = -7.5F, .tokens = 9};
    return r;
}

static void meta_example(struct stored_job_meta *m)
{
    *m = (struct stored_job_meta){.schema_version = STORED_SCHEMA_VERSION,
                                  .n_nodes = 2,
                                  .source = "photos/",
                                  .created_ms = 1700000000000,
                                  .unit_items = 64,
                                  .program = "blipline 0.1.0"};
    msg_recipe_init(&m->recipe);
    (void)msg_text_set(m->recipe.model, sizeof(m->recipe.model), "demo");
    m->recipe.dtype_llm = DTYPE_BF16;
    m->nodes[0] = (struct msg_node){.stage = STAGE_ENCODE, .fingerprint = {"0123456789abcdef"}, .out_bytes = 9};
    m->nodes[1] = (struct msg_node){.stage = STAGE_LLM, .needs = 1, .model = "m"};
}

static void test_stored_manifest_unit_comes_back(void **state)
{
    struct row_item items[3];
    struct stored_manifest_unit u = {.first_item = 70, .n_items = 3, .items = items}, back;
    struct row_memory memory = {0};
    struct err err;
    struct buf b;

    (void)state;
    for (int i = 0; i < 3; i++)
        items[i] = (struct row_item){.item = 70 + (uint64_t)i,
                                     .key = (const uint8_t *)"key",
                                     .key_bytes = 3,
                                     .path = (const uint8_t *)"/a/path",
                                     .path_bytes = (uint32_t)(7 * (i > 0)),
                                     .size_bytes = 5,
                                     .mtime_ns = 1};
    buf_init(&b, 0);
    assert_int_equal(stored_manifest_unit_encode(&u, &b), 0);
    assert_int_equal(stored_manifest_unit_decode(&memory, b.data, b.size_bytes, &back, &err), 0);
    assert_int_equal(back.first_item, 70);
    assert_int_equal(back.n_items, 3);
    assert_int_equal(back.items[2].item, 72);
    assert_string_equal((const char *)back.items[2].path, "/a/path");
    assert_string_equal((const char *)back.items[0].path, "");
    items[1].item = 99; /* not consecutive */
    assert_int_equal(stored_manifest_unit_encode(&u, &b), -EINVAL);
    row_memory_release(&memory);
    buf_release(&b);
}

static void test_stored_largest_unit_comes_back(void **state)
{
    struct row_item *items = calloc(MSG_MAX_UNIT_ITEMS, sizeof(*items));
    struct stored_manifest_unit u = {.n_items = MSG_MAX_UNIT_ITEMS, .items = items}, back;
    struct row_memory memory = {0};
    struct buf b;

    (void)state;
    assert_non_null(items);
    for (uint64_t i = 0; i < MSG_MAX_UNIT_ITEMS; i++)
        items[i] = (struct row_item){.item = i, .key = (const uint8_t *)"k", .key_bytes = 1};
    buf_init(&b, 0);
    assert_int_equal(stored_manifest_unit_encode(&u, &b), 0);
    assert_int_equal(stored_manifest_unit_decode(&memory, b.data, b.size_bytes, &back, NULL), 0);
    assert_int_equal(back.items[MSG_MAX_UNIT_ITEMS - 1].item, MSG_MAX_UNIT_ITEMS - 1);
    u.n_items++;
    assert_int_equal(stored_manifest_unit_encode(&u, &b), -EINVAL);
    row_memory_release(&memory);
    buf_release(&b);
    free(items);
}

static void test_stored_numbers_come_back(void **state)
{
    struct stored_unit_state s = {.done = true,
                                  .attempts = 3,
                                  .n_failed = 2,
                                  .n_again = 3,
                                  .again = {1ULL << 63 | 2, [2] = 1 << 9}},
                             s_back;
    struct stored_job_counters c = {.n_items = 100,
                                    .n_units = 2,
                                    .sealed = true,
                                    .n_done = 50,
                                    .n_failed = 1,
                                    .n_again = 50,
                                    .n_redone = 1ULL << 50},
                               c_back;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    memset(&s_back, 0, sizeof(s_back));
    memset(&c_back, 0, sizeof(c_back));
    assert_int_equal(stored_unit_state_encode(&s, &b), 0);
    assert_int_equal(stored_unit_state_decode(b.data, b.size_bytes, &s_back, NULL), 0);
    assert_true(s_back.done && s_back.attempts == 3 && s_back.n_failed == 2 && s_back.n_again == 3);
    assert_memory_equal(s_back.again, s.again, sizeof(s.again));
    buf_clear(&b);
    assert_int_equal(stored_job_counters_encode(&c, &b), 0);
    assert_int_equal(stored_job_counters_decode(b.data, b.size_bytes, &c_back, NULL), 0);
    assert_true(c_back.n_items == 100 && c_back.n_units == 2 && c_back.sealed && c_back.n_done == 50 &&
                c_back.n_failed == 1 && c_back.n_units_done == 0 && c_back.n_again == 50 &&
                c_back.n_redone == 1ULL << 50);
    c.n_again = 51;
    assert_int_equal(stored_job_counters_encode(&c, &b), -EINVAL);
    c.n_again = 0;
    c.n_done = 101;
    assert_int_equal(stored_job_counters_encode(&c, &b), -EINVAL);
    buf_release(&b);
}

static void test_stored_empty_state_is_only_a_checksum(void **state)
{
    struct stored_unit_state s = {0}, back;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(stored_unit_state_encode(&s, &b), 0);
    assert_int_equal(b.size_bytes, STORED_CRC_BYTES);
    assert_int_equal(stored_unit_state_decode(b.data, b.size_bytes, &back, NULL), 0);
    assert_false(back.done);
    buf_release(&b);
}

static void test_stored_job_meta_comes_back(void **state)
{
    struct stored_job_meta *m = calloc(2, sizeof(*m));
    struct err err;
    struct buf b;

    (void)state;
    assert_non_null(m);
    buf_init(&b, 0);
    meta_example(&m[0]);
    assert_int_equal(stored_job_meta_encode(&m[0], &b), 0);
    assert_int_equal(stored_job_meta_decode(b.data, b.size_bytes, &m[1], &err), 0);
    assert_string_equal(m[1].recipe.name, "caption");
    assert_int_equal(m[1].recipe.dtype_llm, DTYPE_BF16);
    assert_int_equal(m[1].n_nodes, 2);
    assert_true(fingerprint_equal(&m[0].nodes[0].fingerprint, &m[1].nodes[0].fingerprint));
    assert_int_equal(m[1].nodes[1].needs, 1);
    assert_string_equal(m[1].nodes[1].model, "m");
    assert_string_equal(m[1].program, "blipline 0.1.0");
    assert_int_equal(m[1].created_ms, 1700000000000);
    m[0].nodes[1].needs = 2;
    assert_int_equal(stored_job_meta_encode(&m[0], &b), -EINVAL);
    buf_release(&b);
    free(m);
}

static void test_stored_meta_of_a_later_schema_is_named_not_judged(void **state)
{
    struct stored_job_meta *m = calloc(1, sizeof(*m));
    struct buf b;

    (void)state;
    assert_non_null(m);
    buf_init(&b, 0);
    meta_example(m);
    m->schema_version = 9;
    assert_int_equal(stored_job_meta_encode(m, &b), 0);
    memset(m, 0, sizeof(*m));
    assert_int_equal(stored_job_meta_decode(b.data, b.size_bytes, m, NULL), 0);
    assert_int_equal(m->schema_version, 9);
    buf_release(&b);
    free(m);
}

static void test_stored_checksum_is_zlibs_over_all_before_it(void **state)
{
    struct row_record r = record_of(5);
    uint32_t crc;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(stored_record_encode(&r, &b), 0);
    assert_int_equal(b.data[b.size_bytes - 5], 0x7d);
    crc = (uint32_t)crc32(crc32(0, NULL, 0), b.data, (uInt)b.size_bytes - 5);
    assert_memory_equal(b.data + b.size_bytes - 4, &crc, 4);
    buf_release(&b);
}

static void test_stored_every_flipped_bit_and_cut_is_found(void **state)
{
    struct row_record r = record_of(5), back;
    struct row_memory memory = {0};
    struct err err;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(stored_record_encode(&r, &b), 0);
    for (size_t bit = 0; bit < 8 * b.size_bytes; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        err.text[0] = '\0';
        assert_int_equal(stored_record_decode(&memory, b.data, b.size_bytes, &back, &err), -EILSEQ);
        assert_non_null(strstr(err.text, "checksum"));
        assert_int_equal(stored_check(b.data, b.size_bytes, NULL), -EILSEQ);
        b.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    for (size_t n = 0; n < b.size_bytes; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        memcpy(exact, b.data, n);
        assert_int_equal(stored_record_decode(&memory, exact, n, &back, &err), -EILSEQ);
        free(exact);
    }
    assert_int_equal(stored_record_decode(&memory, b.data, b.size_bytes, &back, &err), 0);
    row_memory_release(&memory);
    buf_release(&b);
}

/* Any bytes with a right checksum: what a hostile store may hold. */
static void test_stored_survives_random_values(void **state)
{
    uint64_t seed = (uint64_t)time(NULL) * 2654435761U + 1, x = seed;
    struct stored_job_meta *meta = malloc(sizeof(*meta));
    struct row_memory memory = {0};
    struct row_record r;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int round = 0; round < 5000; round++) {
        struct stored_manifest_unit u;
        struct stored_unit_state s;
        struct stored_job_counters c;
        uint8_t value[200];
        size_t n;
        uint32_t crc;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        n = x % (sizeof(value) - STORED_CRC_BYTES);
        for (size_t i = 0; i < n; i++)
            value[i] = (uint8_t)((x >> i % 57) * 2654435761U >> 24) & (round % 2 ? 0x3f : 0xff);
        crc = (uint32_t)crc32(0, value, (uInt)n);
        value[n] = 0x7d;
        memcpy(value + n + 1, &crc, 4);
        n += STORED_CRC_BYTES;
        assert_int_equal(stored_check(value, n, NULL), 0);
        if (stored_record_decode(&memory, value, n, &r, NULL) == 0)
            assert_in_range(r.n_captions, 0, ROW_MAX_CAPTIONS);
        if (stored_manifest_unit_decode(&memory, value, n, &u, NULL) == 0)
            assert_in_range(u.n_items, 1, MSG_MAX_UNIT_ITEMS);
        if (stored_job_meta_decode(value, n, meta, NULL) == 0)
            assert_in_range(meta->n_nodes, 0, MSG_MAX_NODES);
        (void)(stored_unit_state_decode(value, n, &s, NULL) == 0);
        if (stored_job_counters_decode(value, n, &c, NULL) == 0)
            assert_true(c.n_done <= c.n_items);
    }
    row_memory_release(&memory);
    free(meta);
}

/* 100 000 records a second are wanted; the bound is loose enough for sanitizers and a loaded machine. */
static void test_stored_records_are_fast(void **state)
{
    enum { N = 100000 };
    struct row_record r = record_of(5), back;
    struct row_memory memory = {0};
    int64_t start, encoded, decoded;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    start = clock_mono_ns();
    for (int i = 0; i < N; i++) {
        buf_clear(&b);
        assert_int_equal(stored_record_encode(&r, &b), 0);
    }
    encoded = clock_mono_ns();
    for (int i = 0; i < N; i++)
        assert_int_equal(stored_record_decode(&memory, b.data, b.size_bytes, &back, NULL), 0);
    decoded = clock_mono_ns();
    print_message("%d records: encode %.0f ns each, decode %.0f ns each\n", N, (double)(encoded - start) / N,
                  (double)(decoded - encoded) / N);
    assert_true(decoded - start < (int64_t)10 * 1000000000);
    row_memory_release(&memory);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_manifest_unit_comes_back),
        cmocka_unit_test(test_stored_largest_unit_comes_back),
        cmocka_unit_test(test_stored_numbers_come_back),
        cmocka_unit_test(test_stored_empty_state_is_only_a_checksum),
        cmocka_unit_test(test_stored_job_meta_comes_back),
        cmocka_unit_test(test_stored_meta_of_a_later_schema_is_named_not_judged),
        cmocka_unit_test(test_stored_checksum_is_zlibs_over_all_before_it),
        cmocka_unit_test(test_stored_every_flipped_bit_and_cut_is_found),
        cmocka_unit_test(test_stored_survives_random_values),
        cmocka_unit_test(test_stored_records_are_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
