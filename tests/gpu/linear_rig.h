/* linear_rig.h - cases of linear, beside the reference.
 *
 * Who may call: tests/gpu. Memory: what comes back as float * is freed with free(), inputs with linear_inputs_free,
 * weights with weight_free. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_GPU_LINEAR_RIG_H
#define BLIPLINE_TESTS_GPU_LINEAR_RIG_H

#include "tests/gpu/cuda_rig.h"
#include "tests/unit/ops_rig.h"

enum { LINEAR_PARTS = 3 };
enum linear_residual { LINEAR_RESIDUAL_NONE, LINEAR_RESIDUAL_OTHER, LINEAR_RESIDUAL_IN_PLACE };

struct linear_case {
    int64_t m, n, k;
    enum ops_act act;
    enum linear_residual residual;
    bool bias;
    int pad; /* extra distance between rows */
    int n_parts;
    enum dtype dtype; /* of the checkpoint */
    bool y_f32;
    unsigned flags;
    int offset; /* of x and y from where memory begins, in elements */
};

/* What a case is computed from: x NaN between its rows, y and residual as they are before. */
struct linear_inputs {
    struct tensor weight[LINEAR_PARTS], bias[LINEAR_PARTS];
    struct ops_weight_part parts[LINEAR_PARTS];
    float *x, *residual;
    size_t n_x, n_y;
};

/* Operators in fp8 (ops_free); where the GPU has none, skip() with a line that says so. */
struct ops *linear_rig_open_fp8(void);
int64_t linear_case_ld_x(const struct linear_case *t);
int64_t linear_case_ld_y(const struct linear_case *t);
/* Values that activations of o hold exactly, biases too. */
struct linear_inputs *linear_inputs_new(const struct ops *o, const struct linear_case *t);
void linear_inputs_free(struct linear_inputs *in);
struct ops_weight *linear_weight(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags);
struct ops_linear_args linear_case_args(const struct linear_case *t, const struct ops_weight *w, const void *x, void *y,
                                        const void *residual);
/* y in f32: as it is defined; and from the device, where what lies before y and between its rows must stay as it
 * was. */
float *linear_case_reference(struct ops *ref, const struct linear_case *t, const struct linear_inputs *in);
float *linear_case_run(struct ops *o, const struct linear_case *t, const struct linear_inputs *in);
/* |out - ref| / |ref| */
double linear_case_distance(const struct linear_case *t, const float *out, const float *ref);
/* Of that distance. Where y is f32 only the order of its sums differs, whatever the operands' type. */
double linear_case_limit(const struct ops *o, const struct linear_case *t);
/* The one beside the other, within the limit. */
void linear_case_check(const struct cuda_rig *g, struct ops *o, const struct linear_case *t);

#define LINEAR_CASE_NEAR(o, out, ref, t, limit, what)                                                                \
    OPS_RIG_NEAR(out, ref, (t)->m, (t)->n, linear_case_ld_y(t), limit,                                               \
                 what " %s %lld x %lld x %lld act %d residual %d bias %d pad %d parts %d of %s f32 %d offset %d",    \
                 dtype_name((o)->act_dtype), (long long)(t)->m, (long long)(t)->n, (long long)(t)->k, (int)(t)->act, \
                 (int)(t)->residual, (t)->bias, (t)->pad, (t)->n_parts, dtype_name((t)->dtype), (t)->y_f32,          \
                 (t)->offset)

#endif
