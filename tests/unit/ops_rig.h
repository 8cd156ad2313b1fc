/* ops_rig.h - the reference and the CPU back end side by side, in f32 and, where this machine has it, in bf16.
 *
 * Tests draw inputs in f32, rounded to the type of the back end under test, run the reference on them and the back end
 * on a copy in its own type, and compare in f32. Outputs are NaN before each call. Rows have gaps, which must not
 * change.
 * Who may call: unit tests. Memory: buffers are freed with free(). Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_UNIT_OPS_RIG_H
#define BLIPLINE_UNIT_OPS_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/cpu.h"
#include "tensor/ops.h"

enum { OPS_RIG_F32, OPS_RIG_BF16, OPS_RIG_TYPES };

struct ops_rig {
    struct ops *ref;
    struct ops *cpu[OPS_RIG_TYPES]; /* BF16: NULL if the processor lacks it */
    enum cpu_isa best;              /* of this machine; all earlier ones work here too */
};

int ops_rig_setup(void **state); /* prints the seed */
int ops_rig_teardown(void **state);
/* Makes the back end use the kernels of one instruction set; its products do not change. */
void ops_rig_use(const struct ops_rig *g, int type, enum cpu_isa isa);
/* Reopens the f32 operators, including products, with one instruction set and n threads. */
void ops_rig_reopen(struct ops_rig *g, enum cpu_isa isa, int n_threads);

/* Printed; for tests with their own rig. */
void ops_rig_seed(const char *test);
int ops_rig_below(int n);
float ops_rig_normal(void); /* variance 1 */
float *ops_rig_buffer(size_t n);
float *ops_rig_random(const struct ops *o, size_t n); /* normal, rounded to o's activations */
float *ops_rig_nan(size_t n);
/* Normal times `size`; columns 0: a vector. */
struct tensor ops_rig_tensor(enum dtype dtype, int64_t rows, int64_t columns, float size);
/* Rounds to this type, so that the reference computes with the same numbers. */
void ops_rig_round(struct tensor *t, enum dtype act_dtype);

/* Activations of o from f32 and back; `ops_rig_back` frees p. */
void *ops_rig_act(const struct ops *o, const float *x, size_t n);
float *ops_rig_back(const struct ops *o, void *p, size_t n);

/* |x| over rows x width */
double ops_rig_size(const float *x, int64_t rows, int64_t width, int64_t ld);
/* |out - ref| / |ref| over rows x width; asserts that the columns between rows are NaN. */
double ops_rig_distance(const float *out, const float *ref, int64_t rows, int64_t width, int64_t ld);

#define OPS_RIG_NEAR(out, ref, rows, width, ld, limit, ...)                               \
    do {                                                                                  \
        double distance_ = ops_rig_distance(out, ref, rows, width, ld);                   \
        if (!(distance_ <= (limit))) {                                                    \
            fprintf(stderr, __VA_ARGS__);                                                 \
            fail_msg(": relative distance %.3g, limit %.3g", distance_, (double)(limit)); \
        }                                                                                 \
    } while (0)

#endif
