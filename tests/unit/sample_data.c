#include "tests/unit/sample_data.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tests/unit/ops_rig.h"

void sample_data_point(struct sample_data *d)
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

void sample_data_lists(struct sample_data *d, int64_t vocab, int n_seen, int n_banned)
{
    int32_t first = ops_rig_below((int)vocab), step = 1 + ops_rig_below(50);

    d->row.n_seen = n_seen < vocab / step ? n_seen : (int)(vocab / step);
    for (int i = 0; i < d->row.n_seen; i++)
        d->seen[i] = (int32_t)((first + (int64_t)i * step) % vocab);
    d->row.n_banned = n_banned < vocab - 1 ? n_banned : (int)vocab - 1;
    for (int i = 0; i < d->row.n_banned; i++)
        d->banned[i] = i % 7 == 0 && d->row.n_seen ? d->seen[ops_rig_below(d->row.n_seen)] : ops_rig_below((int)vocab);
    sample_data_point(d);
}

void sample_data_close(float a, float b)
{
    if (isinf(b) || isnan(b))
        assert_true(a == b || (isnan(a) && isnan(b)));
    else
        assert_true(fabsf(a - b) <= 2e-6f * (1 + fabsf(b)));
}

/* Where an id stands among the chosen ones; n_best if it was not chosen. */
static int place_of(const struct sample_data *d, int32_t id)
{
    int i = 0;

    while (i < d->row.n_best && d->ids[i] != id)
        i++;
    return i;
}

void sample_data_same(const struct sample_data *ref, const struct sample_data *out)
{
    for (int i = 0; i < ref->row.n_best; i++) {
        const int in_ref = place_of(ref, out->ids[i]);

        assert_int_equal(place_of(out, out->ids[i]), i);
        sample_data_close(out->values[i], ref->values[i]);
        if (!ref->row.log_softmax) {
            assert_true(out->values[i] == ref->values[i]);
            assert_int_equal(in_ref, i);
        }
        if (in_ref < ref->row.n_best) {
            sample_data_close(out->values[i], ref->values[in_ref]);
            sample_data_close(out->logprobs[i], ref->logprobs[in_ref]);
        } else {
            sample_data_close(out->values[i], ref->values[ref->row.n_best - 1]);
        }
    }
}
