#include "tests/gpu/choose_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/sampler.h"
#include "tests/unit/ops_rig.h"

struct choose_data *choose_rig_new(size_t n)
{
    struct choose_data *d = calloc(n, sizeof(*d));

    assert_non_null(d);
    return d;
}

/* The row's pointers into its own arrays, which hold nothing yet. */
static void data_point(struct choose_data *d)
{
    d->row.seen = d->seen;
    d->row.banned = d->banned;
    d->row.ret_ids = d->ids;
    d->row.ret_values = d->values;
    d->row.ret_logprobs = d->logprobs;
    memset(d->ids, 0xff, sizeof(d->ids));
    memset(d->values, 0xff, sizeof(d->values));
    memset(d->logprobs, 0xff, sizeof(d->logprobs));
}

void choose_rig_lists(struct choose_data *d, int64_t vocab, int n_seen, int n_banned)
{
    int32_t first = ops_rig_below((int)vocab), step = 1 + ops_rig_below(50);

    d->row.n_seen = n_seen < vocab / step ? n_seen : (int)(vocab / step);
    for (int i = 0; i < d->row.n_seen; i++)
        d->seen[i] = (int32_t)((first + (int64_t)i * step) % vocab);
    d->row.n_banned = n_banned < vocab - 1 ? n_banned : (int)vocab - 1;
    for (int i = 0; i < d->row.n_banned; i++)
        d->banned[i] = i % 7 == 0 && d->row.n_seen ? d->seen[ops_rig_below(d->row.n_seen)] : ops_rig_below((int)vocab);
    data_point(d);
}

/* All rows in one call; d_logits: [n, ld] on the device. */
static int choose_there(struct ops *o, struct choose_data *d, int n, const float *d_logits, int64_t vocab, int64_t ld)
{
    struct ops_choose_row *rows = calloc((size_t)n, sizeof(*rows));
    int rc;

    assert_non_null(rows);
    for (int i = 0; i < n; i++) {
        data_point(&d[i]);
        rows[i] = d[i].row;
    }
    rc = o->f->choose(
        o, &(struct ops_choose_args){.n_rows = n, .vocab = vocab, .logits = d_logits, .ld = ld, .rows = rows});
    free(rows);
    return rc;
}

int choose_rig_run(struct ops *o, struct choose_data *d, int n, const float *x, int64_t vocab, int64_t ld)
{
    void *d_x = cuda_rig_put_f32(o, x, (size_t)(n * ld));
    int rc = choose_there(o, d, n, d_x, vocab, ld);

    cuda_rig_drop(o, d_x);
    return rc;
}

void choose_rig_close(float a, float b)
{
    if (isinf(b) || isnan(b))
        assert_true(a == b || (isnan(a) && isnan(b)));
    else
        assert_true(fabsf(a - b) <= 2e-6f * (1 + fabsf(b)));
}

/* Without log-softmax the values are the same numbers. With it they may differ in the last place, so two ids may change
 * places where theirs are as good as equal. */
static void assert_same_choice(const struct choose_data *ref, const struct choose_data *out)
{
    for (int i = 0; i < ref->row.n_best; i++) {
        choose_rig_close(out->values[i], ref->values[i]);
        if (!ref->row.log_softmax)
            assert_true(out->values[i] == ref->values[i]);
        if (out->ids[i] != ref->ids[i])
            assert_true(ref->row.log_softmax &&
                        ((i > 0 && fabsf(ref->values[i] - ref->values[i - 1]) < 4e-6f * fabsf(ref->values[i])) ||
                         fabsf(out->logprobs[i] - ref->logprobs[i]) < 4e-6f * fabsf(ref->values[i])));
        else
            choose_rig_close(out->logprobs[i], ref->logprobs[i]);
    }
}

void choose_rig_check(const struct cuda_rig *g, const struct choose_data *rows, int n, const float *x, int64_t vocab,
                      int64_t ld)
{
    struct choose_data *out = choose_rig_new((size_t)n), *ref = choose_rig_new((size_t)n);
    int worst = 0;

    memcpy(out, rows, (size_t)n * sizeof(*out));
    memcpy(ref, rows, (size_t)n * sizeof(*ref));
    for (int i = 0; i < n; i++) {
        int rc;

        data_point(&ref[i]);
        rc = sampler_choose(&ref[i].row, x + i * ld, vocab);
        assert_true(rc == 0 || rc == -EDOM);
        ref[i].row.n_best = rc == 0 ? ref[i].row.n_best : 0; /* nothing to compare */
        worst = rc < worst ? rc : worst;
    }
    assert_int_equal(choose_rig_run(g->cuda[CUDA_RIG_F32], out, n, x, vocab, ld), worst);
    for (int i = 0; i < n; i++)
        assert_same_choice(&ref[i], &out[i]);
    free(out);
    free(ref);
}
