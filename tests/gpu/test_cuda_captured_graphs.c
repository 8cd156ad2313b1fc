/* Recorded passes: a chain of operators whose index arrays change, beside the same calls outside of a pass. */
#include "tests/gpu/cuda_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/ops_rig.h"

static void must(struct ops *o, int rc)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, o->why.text);
}

static void *bytes_new(size_t n)
{
    void *p = malloc(n);

    assert_non_null(p);
    return p;
}

static void *device_new(struct ops *o, size_t n_bytes)
{
    void *d = NULL;

    must(o, o->f->alloc(o, n_bytes, &d));
    return d;
}

enum { ROWS = 24, WIDTH = 40, STEPS = 3 };

struct chain {
    struct ops *o;
    struct ops_table *table;
    float *d_source;
    int32_t index[STEPS][ROWS], place[STEPS][ROWS];
};

static void chain_init(struct chain *c, struct ops *o)
{
    struct tensor t = ops_rig_tensor(DTYPE_F32, ROWS, WIDTH, 1);
    struct err err = {""};
    float *x = ops_rig_random(o, (size_t)ROWS * WIDTH);

    *c = (struct chain){.o = o};
    if (o->f->table_new(o, &t, &c->table, &err) < 0)
        fail_msg("%s", err.text);
    c->d_source = cuda_rig_put(o, x, (size_t)ROWS * WIDTH);
    free(x);
    free(t.data);
}

static void chain_release(struct chain *c)
{
    c->o->f->table_free(c->o, c->table);
    cuda_rig_drop(c->o, c->d_source);
}

/* New contents: any rows, and an order. */
static void chain_draw(struct chain *c)
{
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < ROWS; i++) {
            int j = ops_rig_below(i + 1);

            c->index[s][i] = ops_rig_below(ROWS);
            c->place[s][i] = c->place[s][j];
            c->place[s][j] = i;
        }
}

/* The first `rows` of them, on d: [2][ROWS, WIDTH]. One array is used by several operators. */
static int chain_run(struct chain *c, int rows, float *d)
{
    struct ops *o = c->o;
    float *d_other = d + (size_t)ROWS * WIDTH;
    int rc = 0;

    for (int s = 0; s < STEPS && rc == 0; s++) {
        rc = o->f->rows_copy(o, &(struct ops_rows_args){.n_rows = rows,
                                                        .width = WIDTH,
                                                        .src = s ? d : c->d_source,
                                                        .ld_src = WIDTH,
                                                        .src_index = s ? c->place[0] : c->index[0],
                                                        .dst = d_other,
                                                        .ld_dst = WIDTH,
                                                        .dst_index = s ? NULL : c->place[s]});
        if (rc == 0)
            rc = o->f->embed(o, c->table, rows, c->index[s], s ? c->place[0] : NULL, true, d_other, WIDTH);
        if (rc == 0)
            rc = o->f->rows_copy(o, &(struct ops_rows_args){.n_rows = rows,
                                                            .width = WIDTH,
                                                            .src = d_other,
                                                            .ld_src = WIDTH,
                                                            .src_index = c->index[s],
                                                            .dst = d,
                                                            .ld_dst = WIDTH,
                                                            .dst_index = c->place[s]});
    }
    return rc;
}

static void chain_clear(struct chain *c, float *d)
{
    float *x = calloc((size_t)2 * ROWS * WIDTH, sizeof(*x));

    assert_non_null(x);
    must(c->o, c->o->f->upload(c->o, d, DTYPE_F32, x, DTYPE_F32, (size_t)2 * ROWS * WIDTH));
    free(x);
}

static int chain_pass(struct chain *c, uint64_t key, int rows, float *d)
{
    int rc;

    chain_clear(c, d);
    rc = ops_graph_begin(c->o, key);
    if (rc == 0)
        rc = chain_run(c, rows, d);
    return rc < 0 ? rc : ops_graph_end(c->o);
}

/* What is in d is what these calls give outside of a pass. */
static void chain_check(struct chain *c, int rows, float *d, const char *when, int run)
{
    const size_t n = (size_t)2 * ROWS * WIDTH;
    float *d_plain = device_new(c->o, n * sizeof(float)), *got = bytes_new(n * sizeof(float)), *want;

    must(c->o, c->o->f->download(c->o, got, DTYPE_F32, d, DTYPE_F32, n));
    chain_clear(c, d_plain);
    must(c->o, chain_run(c, rows, d_plain));
    want = cuda_rig_take_f32(c->o, d_plain, n);
    if (memcmp(got, want, n * sizeof(float)) != 0)
        fail_msg("%s, run %d, %d rows", when, run, rows);
    free(got);
    free(want);
}

static void test_recorded_passes_do_what_their_calls_do(void **state)
{
    static const int rows[] = {ROWS, 1, 7};
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F32];
    float *d[3];
    struct chain c;

    chain_init(&c, o);
    for (int i = 0; i < 3; i++)
        d[i] = device_new(o, 2 * ROWS * WIDTH * sizeof(float));
    for (int run = 0; run < 40; run++) {
        int i = run < 9 ? run % 3 : ops_rig_below(3);

        chain_draw(&c);
        must(o, chain_pass(&c, (uint64_t)rows[i], rows[i], d[i]));
        chain_check(&c, rows[i], d[i], "a few keys", run);
    }
    for (int i = 0; i < 3; i++)
        cuda_rig_drop(o, d[i]);
    chain_release(&c);
}

/* Passes of one key right behind one another, so that arrays of the next one are written while the last one is to
 * come. */
static void test_passes_may_follow_at_once(void **state)
{
    enum { RUNS = 12 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F32];
    const size_t n = (size_t)2 * ROWS * WIDTH;
    float *d = device_new(o, n * sizeof(float)), *got[RUNS], *d_plain = device_new(o, n * sizeof(float));
    struct chain c, drawn[RUNS];

    chain_init(&c, o);
    for (int first = 0; first < RUNS; first += 4) {
        uint64_t ticket = 0;

        for (int run = first; run < first + 4; run++) {
            chain_draw(&c);
            drawn[run] = c;
            got[run] = bytes_new(n * sizeof(float));
            must(o, chain_pass(&c, 77, ROWS, d));
            must(o, o->f->download_start(o, got[run], d, DTYPE_F32, n, &ticket));
        }
        must(o, o->f->download_wait(o, ticket));
    }
    for (int run = 0; run < RUNS; run++) {
        float *want = bytes_new(n * sizeof(float));

        chain_clear(&c, d_plain);
        must(o, chain_run(&drawn[run], ROWS, d_plain));
        must(o, o->f->download(o, want, DTYPE_F32, d_plain, DTYPE_F32, n));
        assert_memory_equal(got[run], want, n * sizeof(float));
        free(want);
        free(got[run]);
    }
    cuda_rig_drop(o, d);
    cuda_rig_drop(o, d_plain);
    chain_release(&c);
}

static void test_more_keys_than_are_kept_run_too(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F32];
    float *d = device_new(o, 2 * ROWS * WIDTH * sizeof(float));
    struct chain c;

    chain_init(&c, o);
    for (int round = 0; round < 5; round++)
        for (int key = 0; key < (round < 3 ? 70 : 50); key++) {
            int rows = 1 + key % ROWS;

            chain_draw(&c);
            must(o, chain_pass(&c, 1000 + (uint64_t)key, rows, d));
            chain_check(&c, rows, d, "many keys", round);
        }
    cuda_rig_drop(o, d);
    chain_release(&c);
}

/* patchify takes scratch memory, more with each image. */
static void grow_scratch(struct ops *o, int size)
{
    const int64_t n = (int64_t)size * size * 3;
    uint8_t *rgb = calloc((size_t)n, 1);
    void *d = device_new(o, (size_t)n * sizeof(float));

    assert_non_null(rgb);
    must(o, o->f->patchify(o, &(struct ops_patchify_args){.n_images = 1,
                                                          .image_size = size,
                                                          .patch_size = size / 2,
                                                          .rgb = rgb,
                                                          .mean = {0, 0, 0},
                                                          .std = {1, 1, 1},
                                                          .rescale = 1,
                                                          .y = d}));
    o->f->release(o, d);
    free(rgb);
}

static void test_passes_are_recorded_anew_when_scratch_memory_moves(void **state)
{
    struct ops *o;
    struct chain c;
    float *d;

    (void)cuda_rig_get(state);
    o = cuda_rig_open(DTYPE_F32, false, false, 0.3);
    d = device_new(o, 2 * ROWS * WIDTH * sizeof(float));
    chain_init(&c, o);
    for (int run = 0; run < 16; run++) {
        chain_draw(&c);
        must(o, chain_pass(&c, 5 + (uint64_t)(run % 2), ROWS - run % 2, d));
        chain_check(&c, ROWS - run % 2, d, "scratch memory", run);
        if (run % 5 == 4)
            grow_scratch(o, 64 << (run / 5 * 2)); /* 12 KB, 197 KB, 3 MB of pixels */
    }
    cuda_rig_drop(o, d);
    chain_release(&c);
    ops_free(o);
}

/* Arrays in one place of the host, over all segments of the ring while nothing is waited for. */
static void test_arrays_go_around_the_ring(void **state)
{
    enum { N = 60, ROWS_EACH = 20011 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F16];
    uint16_t *values = bytes_new(ROWS_EACH * 2), *got = bytes_new(ROWS_EACH * 2);
    uint16_t *d = device_new(o, ROWS_EACH * 2), *d_to = device_new(o, (size_t)N * ROWS_EACH * 2);
    int32_t *index = bytes_new(ROWS_EACH * sizeof(*index));

    for (int i = 0; i < ROWS_EACH; i++)
        values[i] = (uint16_t)i;
    must(o, o->f->upload(o, d, DTYPE_F16, values, DTYPE_F16, ROWS_EACH));
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < ROWS_EACH; i++)
            index[i] = (i + k) % ROWS_EACH;
        must(o, o->f->rows_copy(o, &(struct ops_rows_args){.n_rows = ROWS_EACH,
                                                           .width = 1,
                                                           .src = d,
                                                           .ld_src = 1,
                                                           .src_index = index,
                                                           .dst = d_to + (size_t)k * ROWS_EACH,
                                                           .ld_dst = 1}));
    }
    for (int k = 0; k < N; k++) {
        must(o, o->f->download(o, got, DTYPE_F16, d_to + (size_t)k * ROWS_EACH, DTYPE_F16, ROWS_EACH));
        for (int i = 0; i < ROWS_EACH; i++)
            if (got[i] != (i + k) % ROWS_EACH)
                fail_msg("array %d, row %d", k, i);
    }
    cuda_rig_drop(o, d);
    cuda_rig_drop(o, d_to);
    free(got);
    free(values);
    free(index);
}

/* An index array of over a segment of the ring, alone and in a pass. */
static void test_arrays_larger_than_the_ring_are_sent(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_F16];
    const int64_t n = cuda_rig_is_emulated() ? 300007 : 5000011;
    uint16_t *d = device_new(o, (size_t)n * 2), *d_to = device_new(o, (size_t)n * 2);
    uint16_t *got = bytes_new((size_t)n * 2), *values = bytes_new((size_t)n * 2);
    int32_t *index = bytes_new((size_t)n * sizeof(*index));

    for (int64_t i = 0; i < n; i++)
        values[i] = (uint16_t)(i & 0x7bff);
    must(o, o->f->upload(o, d, DTYPE_F16, values, DTYPE_F16, (size_t)n));
    for (int run = 0; run < 4; run++) {
        for (int64_t i = 0; i < n; i++)
            index[i] = (int32_t)((i * 7919 + run) % n);
        must(o, run == 0 ? 0 : ops_graph_begin(o, 4711));
        must(o,
             o->f->rows_copy(
                 o, &(struct ops_rows_args){
                        .n_rows = n, .width = 1, .src = d, .ld_src = 1, .src_index = index, .dst = d_to, .ld_dst = 1}));
        must(o, run == 0 ? 0 : ops_graph_end(o));
        must(o, o->f->download(o, got, DTYPE_F16, d_to, DTYPE_F16, (size_t)n));
        for (int64_t i = 0; i < n; i++)
            if (got[i] != values[index[i]])
                fail_msg("run %d, row %lld", run, (long long)i);
    }
    cuda_rig_drop(o, d);
    cuda_rig_drop(o, d_to);
    free(got);
    free(values);
    free(index);
}

static void test_an_error_ends_its_pass_alone(void **state)
{
    static const int errors[] = {CUDA_RIG_OUT_OF_MEMORY, CUDA_RIG_CAPTURE_UNSUPPORTED};
    struct ops *o;
    struct chain c;
    float *d;

    (void)cuda_rig_get(state);
    cuda_rig_needs_errors();
    o = cuda_rig_open(DTYPE_F32, false, false, 0.1);
    d = device_new(o, 2 * ROWS * WIDTH * sizeof(float));
    chain_init(&c, o);
    for (int e = 0; e < 2; e++)
        for (int ends = 0; ends < 2; ends++) {
            const uint64_t key = (uint64_t)(10 + 2 * e + ends);
            int rc;

            chain_draw(&c);
            must(o, chain_pass(&c, key, ROWS, d));
            must(o, ops_graph_begin(o, key)); /* it is recorded now */
            cuda_rig_next_fails(errors[e]);
            rc = chain_run(&c, ROWS, d);
            assert_int_equal(rc, e == 0 ? -ENOMEM : -EAGAIN);
            if (ends) /* callers may leave without */
                assert_int_equal(ops_graph_end(o), rc);
            for (int run = 0; run < 4; run++) {
                chain_draw(&c);
                must(o, chain_pass(&c, key, ROWS, d));
                chain_check(&c, ROWS, d, "after an error", run);
            }
        }
    cuda_rig_drop(o, d);
    chain_release(&c);
    ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_passes_do_what_their_calls_do),
        cmocka_unit_test(test_passes_may_follow_at_once),
        cmocka_unit_test(test_more_keys_than_are_kept_run_too),
        cmocka_unit_test(test_passes_are_recorded_anew_when_scratch_memory_moves),
        cmocka_unit_test(test_arrays_go_around_the_ring),
        cmocka_unit_test(test_arrays_larger_than_the_ring_are_sent),
        cmocka_unit_test(test_an_error_ends_its_pass_alone),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
