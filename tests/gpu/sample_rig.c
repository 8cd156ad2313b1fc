#include "tests/gpu/sample_rig.h"

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

struct sample_data *sample_rig_new(size_t n)
{
    struct sample_data *d = calloc(n, sizeof(*d));

    assert_non_null(d);
    return d;
}

/* All rows in one call; d_logits: [n, ld] on the device. */
static int sample_there(struct ops *o, struct sample_data *d, int n, const float *d_logits, int64_t vocab, int64_t ld)
{
    struct ops_sample_row *rows = calloc((size_t)n, sizeof(*rows));
    int rc;

    assert_non_null(rows);
    for (int i = 0; i < n; i++) {
        sample_data_point(&d[i]);
        rows[i] = d[i].row;
    }
    rc = o->f->sample(
        o, &(struct ops_sample_args){.n_rows = n, .vocab = vocab, .logits = d_logits, .ld = ld, .rows = rows});
    free(rows);
    return rc;
}

int sample_rig_run(struct ops *o, struct sample_data *d, int n, const float *x, int64_t vocab, int64_t ld)
{
    void *d_x = cuda_rig_put_f32(o, x, (size_t)(n * ld));
    int rc = sample_there(o, d, n, d_x, vocab, ld);

    cuda_rig_drop(o, d_x);
    return rc;
}

void sample_rig_check(const struct cuda_rig *g, const struct sample_data *rows, int n, const float *x, int64_t vocab,
                      int64_t ld)
{
    struct sample_data *out = sample_rig_new((size_t)n), *ref = sample_rig_new((size_t)n);
    int worst = 0;

    memcpy(out, rows, (size_t)n * sizeof(*out));
    memcpy(ref, rows, (size_t)n * sizeof(*ref));
    for (int i = 0; i < n; i++) {
        int rc;

        sample_data_point(&ref[i]);
        rc = sampler_run(&ref[i].row, x + i * ld, vocab);
        assert_true(rc == 0 || rc == -EDOM);
        ref[i].row.n_best = rc == 0 ? ref[i].row.n_best : 0; /* nothing to compare */
        worst = rc < worst ? rc : worst;
    }
    assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], out, n, x, vocab, ld), worst);
    for (int i = 0; i < n; i++)
        sample_data_same(&ref[i], &out[i]);
    free(out);
    free(ref);
}
