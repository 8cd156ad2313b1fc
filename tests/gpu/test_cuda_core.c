/* The device itself: its names, memory, transfers, parameters and recorded passes. */
#include "tests/gpu/cuda_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/device.h"
#include "tests/unit/ops_rig.h"

enum { N_TYPES = 3 };

static const enum dtype types[N_TYPES] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static void *bytes_new(size_t n)
{
    void *p = malloc(n ? n : 1);

    assert_non_null(p);
    return p;
}

/* n normal values of this type, with what rounds and overflows among them. */
static void *values_new(enum dtype dtype, size_t n)
{
    static const float odd[] = {0, -0.0F, 1e5F, -7e4F, 65519, 65520, 1e-7F, 3e-41F, INFINITY, 1.00390625F, 3.3e38F};
    float *x = bytes_new(n * sizeof(*x));
    void *p = bytes_new(n * dtype_size_bytes(dtype));

    for (size_t i = 0; i < n; i++)
        x[i] = i % 37 == 5 ? odd[i / 37 % (sizeof(odd) / sizeof(odd[0]))] : (float)(int)(i * 2654435761U) * 1e-9F;
    tensor_from_f32(p, dtype, x, n);
    free(x);
    return p;
}

static void *converted(const void *p, enum dtype from, enum dtype to, size_t n)
{
    void *q = bytes_new(n * dtype_size_bytes(to));

    tensor_convert(q, to, p, from, n);
    return q;
}

static void must(struct ops *o, int rc)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, o->why.text);
}

static void *device_new(struct ops *o, size_t n_bytes)
{
    void *d = NULL;

    must(o, o->f->alloc(o, n_bytes, &d));
    return d;
}

static int open_name(const char *device, struct err *err)
{
    struct ops *o = NULL;
    int rc = device_open(&(struct device_conf){.device = device,
                                               .cuda_library = getenv("BLIPLINE_TEST_CUDA_LIBRARY"),
                                               .n_threads = 1,
                                               .act_dtype = DTYPE_F32,
                                               .memory_share = 0.1},
                         &o, err);

    ops_free(o);
    return rc;
}

static void test_names_that_are_no_device_are_told_apart(void **state)
{
    struct err err = {""};

    (void)cuda_rig_get(state);
    assert_int_equal(open_name("cuda:0", &err), 0);
    assert_int_equal(open_name("cuda", &err), 0);
    assert_int_equal(open_name("cuda:99", &err), -ENODEV);
    assert_non_null(strstr(err.text, "cuda:99"));
    assert_non_null(strstr(err.text, "GPU"));
    assert_int_equal(open_name("cuda:0x", &err), -EINVAL);
    assert_int_equal(open_name("cuda:", &err), -EINVAL);
    assert_int_equal(open_name("cuda0", &err), -EINVAL);
    assert_int_equal(open_name("cuda:-1", &err), -EINVAL);
    assert_int_equal(open_name("GPU-00000000-0000-0000-0000-00000000dead", &err), -ENODEV);
    assert_non_null(strstr(err.text, "UUID"));
    *strrchr(err.text, ')') = '\0'; /* it ends in "(cuda:N is GPU-...)" */
    assert_int_equal(open_name(strrchr(err.text, ' ') + 1, &err), 0);
}

static void test_memory_is_shared_out_and_counted(void **state)
{
    struct ops *o;
    size_t before, after, total;
    void *a, *b = NULL;

    (void)cuda_rig_get(state);
    o = cuda_rig_open(DTYPE_F32, false, false, 0.01);
    must(o, o->f->memory(o, &before, &total));
    assert_true(before > 0 && (double)before <= 0.01 * (double)total);
    a = device_new(o, before / 2);
    must(o, o->f->memory(o, &after, &total));
    assert_true(after <= before - before / 2 && after + (1 << 20) >= before - before / 2);
    assert_int_equal(o->f->alloc(o, before / 2 + (4 << 20), &b), -ENOMEM);
    assert_int_equal(o->f->alloc(o, SIZE_MAX, &b), -ENOMEM);
    assert_null(b);
    o->f->release(o, a);
    o->f->release(o, NULL);
    must(o, o->f->memory(o, &after, &total));
    assert_int_equal(after, before);
    a = device_new(o, before / 2 + (4 << 20)); /* the failure was none of the device */
    assert_int_equal((uintptr_t)a % 64, 0);
    o->f->release(o, a);
    must(o, o->f->sync(o));
    ops_free(o);
}

/* Up as `host`, on the device as `device`, down as each type: the bytes that the host's conversions give. */
static void check_round(struct ops *o, enum dtype host, enum dtype device, size_t n, size_t offset)
{
    const size_t element = dtype_size_bytes(device);
    unsigned char *d = device_new(o, (n + offset) * element);
    void *src = values_new(host, n), *held = converted(src, host, device, n);

    must(o, o->f->upload(o, d + offset * element, device, src, host, n));
    memset(src, 0xff, n * dtype_size_bytes(host)); /* it is ours again */
    for (int i = 0; i < N_TYPES; i++) {
        void *want = converted(held, device, types[i], n), *got = bytes_new(n * dtype_size_bytes(types[i]));

        memset(got, 0xff, n * dtype_size_bytes(types[i]));
        must(o, o->f->download(o, got, types[i], d + offset * element, device, n));
        if (memcmp(got, want, n * dtype_size_bytes(types[i])) != 0)
            fail_msg("%s -> %s -> %s, %zu values at %zu", dtype_name(host), dtype_name(device), dtype_name(types[i]), n,
                     offset);
        free(want);
        free(got);
    }
    o->f->release(o, d);
    free(src);
    free(held);
}

static void test_values_go_up_and_down_between_all_types(void **state)
{
    static const size_t lengths[] = {1, 3, 4, 255, 4099, 70000};
    struct cuda_rig *g = cuda_rig_get(state);

    for (int t = 0; t < CUDA_RIG_TYPES; t++)
        for (int host = 0; host < N_TYPES; host++)
            for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                check_round(g->cuda[t], types[host], types[t], lengths[i], 0);
                check_round(g->cuda[t], types[host], types[t], lengths[i], i % 4);
                check_round(g->cuda[t], types[host], DTYPE_F32, lengths[i], 1);
            }
}

static void test_transfers_longer_than_the_rings_arrive_whole(void **state)
{
    struct ops *o;

    (void)cuda_rig_get(state);
    o = cuda_rig_open(DTYPE_BF16, false, false, 0.3);
    check_round(o, DTYPE_F32, DTYPE_BF16, (1 << 20) + 13, 0); /* over a piece, converted */
    check_round(o, DTYPE_F16, DTYPE_F32, (2 << 20) + 1, 0);
    check_round(o, DTYPE_F32, DTYPE_F32, (3 << 20) + 7, 0); /* over the ring as it was */
    ops_free(o);
}

static void test_an_array_written_in_place_goes_up(void **state)
{
    static const size_t lengths[] = {5, 1000, 1, (1 << 20) + 3, 77, 1 << 20, (1 << 20) + 2, (3 << 20) + 1, 3};
    enum { N = sizeof(lengths) / sizeof(lengths[0]) };

    (void)cuda_rig_get(state);
    for (int t = 0; t < N_TYPES; t++) {
        struct ops *o = cuda_rig_open(types[t], false, false, 0.3);
        const size_t element = dtype_size_bytes(o->act_dtype);
        void *d[N];

        for (size_t i = 0; i < N; i++) { /* none is waited for */
            void *host = NULL, *values = values_new(o->act_dtype, lengths[i] + i);

            d[i] = device_new(o, lengths[i] * element);
            must(o, o->f->upload_begin(o, d[i], lengths[i], &host));
            memcpy(host, (unsigned char *)values + i * element, lengths[i] * element);
            must(o, o->f->upload_end(o));
            free(values);
        }
        for (size_t i = 0; i < N; i++) {
            void *got = bytes_new(lengths[i] * element), *values = values_new(o->act_dtype, lengths[i] + i);

            must(o, o->f->download(o, got, o->act_dtype, d[i], o->act_dtype, lengths[i]));
            assert_memory_equal(got, (unsigned char *)values + i * element, lengths[i] * element);
            o->f->release(o, d[i]);
            free(got);
            free(values);
        }
        ops_free(o);
    }
}

/* So many arrays that the ring comes around several times while nothing is waited for. */
static void test_a_ring_is_used_again_and_again(void **state)
{
    enum { N = 24, LENGTH = (1 << 19) + 77, BYTES = 2 * LENGTH };
    uint16_t *values = values_new(DTYPE_BF16, LENGTH + N), *got = bytes_new(BYTES), *d;
    struct ops *o;

    (void)cuda_rig_get(state);
    o = cuda_rig_open(DTYPE_BF16, false, false, 0.3);
    d = device_new(o, (size_t)N * BYTES);
    for (int in_place = 0; in_place < 2; in_place++) {
        for (size_t i = 0; i < N; i++) {
            void *host = NULL;

            if (!in_place) {
                must(o, o->f->upload(o, d + i * LENGTH, DTYPE_BF16, values + i, DTYPE_BF16, LENGTH));
                continue;
            }
            must(o, o->f->upload_begin(o, d + i * LENGTH, LENGTH, &host));
            memcpy(host, values + N - i, BYTES);
            must(o, o->f->upload_end(o));
        }
        for (size_t i = 0; i < N; i++) {
            must(o, o->f->download(o, got, DTYPE_BF16, d + i * LENGTH, DTYPE_BF16, LENGTH));
            assert_memory_equal(got, values + (in_place ? N - i : i), BYTES);
        }
    }
    cuda_rig_drop(o, d);
    ops_free(o);
    free(values);
    free(got);
}

static void test_many_small_uploads_in_a_row_arrive(void **state)
{
    enum { N = 300, LENGTH = 1001 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F16];
    uint16_t *values = values_new(DTYPE_F16, N + LENGTH), *got = bytes_new(LENGTH * 2),
             *d = device_new(o, N * LENGTH * 2);

    for (size_t i = 0; i < N; i++)
        must(o, o->f->upload(o, d + i * LENGTH, DTYPE_F16, values + i, DTYPE_F16, LENGTH));
    for (size_t i = 0; i < N; i++) {
        must(o, o->f->download(o, got, DTYPE_F16, d + i * LENGTH, DTYPE_F16, LENGTH));
        assert_memory_equal(got, values + i, LENGTH * 2);
    }
    o->f->release(o, d);
    free(values);
    free(got);
}

static void test_downloads_under_way_keep_what_was_there(void **state)
{
    enum { N = OPS_MAX_DOWNLOADS, LENGTH = 5003, ROUNDS = 4 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_BF16];
    uint16_t *values = values_new(DTYPE_BF16, ROUNDS * N + LENGTH * ROUNDS), *d = device_new(o, LENGTH * ROUNDS * 2);
    uint16_t *got[N];
    uint64_t tickets[N], last = 0;

    for (size_t round = 0; round < ROUNDS; round++) {
        size_t n = LENGTH * (round + 1) - round; /* slots grow */

        for (size_t i = 0; i < N; i++) {
            got[i] = bytes_new(n * 2);
            must(o, o->f->upload(o, d, DTYPE_BF16, values + round * N + i, DTYPE_BF16, n));
            must(o, o->f->download_start(o, got[i], d, DTYPE_BF16, n, &tickets[i]));
            assert_true(tickets[i] > last);
            last = tickets[i];
        }
        must(o, o->f->upload(o, d, DTYPE_BF16, values, DTYPE_BF16, n));
        must(o, o->f->download_wait(o, tickets[round])); /* and all before it */
        for (size_t i = 0; i <= round; i++)
            assert_memory_equal(got[i], values + round * N + i, n * 2);
        must(o, o->f->download_wait(o, tickets[N - 1]));
        must(o, o->f->download_wait(o, tickets[0]));
        for (size_t i = 0; i < N; i++) {
            assert_memory_equal(got[i], values + round * N + i, n * 2);
            free(got[i]);
        }
    }
    o->f->release(o, d);
    free(values);
}

/* A tensor at an address that is odd. */
static struct tensor odd_tensor(struct tensor t, size_t n, void **ret_memory)
{
    unsigned char *p = bytes_new(n * dtype_size_bytes(t.dtype) + 1);

    memcpy(p + 1, t.data, n * dtype_size_bytes(t.dtype));
    free(t.data);
    t.data = p + 1;
    *ret_memory = p;
    return t;
}

/* The rows of a table, by embed(). */
static void check_table(struct ops *o, enum dtype dtype, int64_t rows, int64_t width)
{
    const size_t n = (size_t)(rows * width);
    void *memory, *d = device_new(o, n * dtype_size_bytes(o->act_dtype)), *got = bytes_new(n * 4), *want;
    struct tensor t = odd_tensor(ops_rig_tensor(dtype, rows, width, 1), n, &memory);
    int32_t *index = bytes_new((size_t)rows * sizeof(*index));
    struct ops_table *table = NULL;
    struct err err = {""};

    for (int64_t i = 0; i < rows; i++)
        index[i] = (int32_t)i;
    if (o->f->table_new(o, &t, &table, &err) < 0)
        fail_msg("%s", err.text);
    must(o, o->f->embed(o, table, rows, index, NULL, false, d, width));
    must(o, o->f->download(o, got, o->act_dtype, d, o->act_dtype, n));
    want = converted(t.data, dtype, o->act_dtype, n);
    assert_memory_equal(got, want, n * dtype_size_bytes(o->act_dtype));
    o->f->table_free(o, table);
    o->f->table_free(o, NULL);
    o->f->release(o, d);
    free(memory);
    free(want);
    free(got);
    free(index);
}

static void test_tables_are_loaded_from_all_types(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);

    for (int t = 0; t < CUDA_RIG_TYPES; t++)
        for (int i = 0; i < N_TYPES; i++) {
            check_table(g->cuda[t], types[i], 1, 1);
            check_table(g->cuda[t], types[i], 33, 57);
            check_table(g->cuda[t], types[i], 771, 1001); /* by the loader's threads */
        }
    check_table(g->cuda[CUDA_RIG_BF16], DTYPE_BF16, 5003, 1203); /* each of them several times */
    check_table(g->cuda[CUDA_RIG_BF16], DTYPE_F32, 5003, 1203);
}

/* A vector by vit_embed: it is added to zeros, or to nothing. */
static void check_vector(struct ops *o, enum dtype dtype, int64_t n_tokens, int64_t width)
{
    const size_t n = (size_t)(n_tokens * width);
    float *zeros = calloc(n, sizeof(*zeros)), *want = bytes_new(n * sizeof(*want)), *got;
    struct tensor cls = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {width}, .data = zeros};
    void *memory, *d_patches, *d = device_new(o, n * sizeof(float));
    struct tensor t = odd_tensor(ops_rig_tensor(dtype, (int64_t)n, 0, 1), n, &memory);
    struct ops_vector *cls_vector = NULL, *vector = NULL;
    struct err err = {""};

    assert_non_null(zeros);
    d_patches = cuda_rig_put(o, zeros, n);
    if (o->f->vector_new(o, &cls, &cls_vector, &err) < 0 || o->f->vector_new(o, &t, &vector, &err) < 0)
        fail_msg("%s", err.text);
    must(o, o->f->vit_embed(o, 1, n_tokens, width, d_patches, cls_vector, vector, d));
    got = cuda_rig_take(o, d, n);
    tensor_to_f32(want, dtype, t.data, n);
    assert_memory_equal(got, want, n * sizeof(*want));
    o->f->vector_free(o, vector);
    o->f->vector_free(o, cls_vector);
    o->f->vector_free(o, NULL);
    cuda_rig_drop(o, d_patches);
    free(zeros);
    free(want);
    free(got);
    free(memory);
}

static void test_vectors_are_loaded_from_all_types(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < N_TYPES; i++) {
        check_vector(g->cuda[CUDA_RIG_F32], types[i], 2, 1);
        check_vector(g->cuda[CUDA_RIG_F32], types[i], 3, 5);
        check_vector(g->cuda[CUDA_RIG_F32], types[i], 257, 2050);
    }
}

static void test_a_device_error_stays_and_says_what_it_was(void **state)
{
    float x[4] = {1, 2, 3, 4};
    struct ops *o;
    char text[sizeof(o->why.text)];
    uint64_t ticket;
    size_t free_bytes, total;
    void *host = NULL, *d;

    (void)cuda_rig_get(state);
    cuda_rig_needs_errors();
    o = cuda_rig_open(DTYPE_F32, false, false, 0.1);
    d = device_new(o, 4096);
    cuda_rig_next_fails(CUDA_RIG_ILLEGAL_ADDRESS);
    assert_int_equal(o->f->upload(o, d, DTYPE_F32, x, DTYPE_F32, 4), -EIO);
    memcpy(text, o->why.text, sizeof(text));
    assert_true(strlen(text) > 10);
    assert_int_equal(o->f->upload(o, d, DTYPE_F32, x, DTYPE_F32, 4), -EIO);
    assert_int_equal(o->f->upload_begin(o, d, 4, &host), -EIO);
    assert_int_equal(o->f->download(o, x, DTYPE_F32, d, DTYPE_F32, 4), -EIO);
    assert_int_equal(o->f->download_start(o, x, d, DTYPE_F32, 4, &ticket), -EIO);
    assert_int_equal(o->f->download_wait(o, 0), -EIO);
    assert_int_equal(o->f->sync(o), -EIO);
    assert_int_equal(o->f->alloc(o, 16, &host), -EIO);
    assert_int_equal(o->f->memory(o, &free_bytes, &total), -EIO);
    assert_int_equal(ops_graph_begin(o, 1), -EIO);
    assert_int_equal(
        o->f->rows_copy(o,
                        &(struct ops_rows_args){
                            .n_rows = 1, .width = 1, .src = d, .ld_src = 1, .dst = (float *)d + 1, .ld_dst = 1}),
        -EIO);
    assert_int_equal(ops_graph_end(o), -EIO);
    assert_string_equal(o->why.text, text);
    o->f->release(o, d);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_that_are_no_device_are_told_apart),
        cmocka_unit_test(test_memory_is_shared_out_and_counted),
        cmocka_unit_test(test_values_go_up_and_down_between_all_types),
        cmocka_unit_test(test_transfers_longer_than_the_rings_arrive_whole),
        cmocka_unit_test(test_an_array_written_in_place_goes_up),
        cmocka_unit_test(test_a_ring_is_used_again_and_again),
        cmocka_unit_test(test_many_small_uploads_in_a_row_arrive),
        cmocka_unit_test(test_downloads_under_way_keep_what_was_there),
        cmocka_unit_test(test_tables_are_loaded_from_all_types),
        cmocka_unit_test(test_vectors_are_loaded_from_all_types),
        cmocka_unit_test(test_a_device_error_stays_and_says_what_it_was), /* the last: the process has no device then */
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
