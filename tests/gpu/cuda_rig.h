/* cuda_rig.h - the CUDA operators beside the reference, in f32, f16 and bf16.
 *
 * The shared object is the one that BLIPLINE_TEST_CUDA_LIBRARY names: the real one (make test-gpu) or the one that runs
 * the same kernels on the CPU (make test-emulated). Without a device every test of the program is skipped, with one
 * line that says why. Inputs are drawn with tests/unit/ops_rig.h (ops_rig_random and its kin), in f32, rounded to what
 * the device holds; the reference runs on them, the device on a copy, and results are compared in f32. Outputs are NaN
 * before each call.
 * Who may call: tests/gpu. Memory: device memory from cuda_rig_put is freed with cuda_rig_drop, host memory with
 * free().
 * Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_GPU_CUDA_RIG_H
#define BLIPLINE_TESTS_GPU_CUDA_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/ops.h"
#include "tests/emulator/refuse.h"

enum { CUDA_RIG_F32, CUDA_RIG_F16, CUDA_RIG_BF16, CUDA_RIG_TYPES };

struct cuda_rig {
    struct ops *ref;
    struct ops *cuda[CUDA_RIG_TYPES];
};

/* Group set-up and tear-down. Prints the seed. */
int cuda_rig_setup(void **state);
int cuda_rig_teardown(void **state);
/* First line of every test: the rig, or skip(). */
struct cuda_rig *cuda_rig_get(void **state);
/* Operators of another kind (fp8, tf32, a share of memory); ops_free. */
struct ops *cuda_rig_open(enum dtype act_dtype, bool fp8, bool tf32, double memory_share);
/* Is this the emulator, or a card under compute-sanitizer (BLIPLINE_TEST_SMALL)? They are slow (some 10^8 operations a
 * second): take smaller shapes there. */
bool cuda_rig_is_emulated(void);

/* Errors of the device, which only the emulator can make: skip() without it; then the next call of the runtime
 * fails. */
enum { CUDA_RIG_OUT_OF_MEMORY = 2, CUDA_RIG_ILLEGAL_ADDRESS = 700, CUDA_RIG_CAPTURE_UNSUPPORTED = 900 };
void cuda_rig_needs_errors(void);
void cuda_rig_next_fails(int cuda_error);
/* What cublasLt says it cannot do from here on (enum emulator_refuse, 0: nothing); the same skip(). */
void cuda_rig_refuse_products(unsigned what);
/* A teardown for tests that do so, in case they fail half-way. */
int cuda_rig_refuse_nothing(void **state);

/* n values in device memory, in o's activations or in f32. */
void *cuda_rig_put(struct ops *o, const float *x, size_t n);
void *cuda_rig_put_f32(struct ops *o, const float *x, size_t n);
/* n values back; frees d. */
float *cuda_rig_take(struct ops *o, void *d, size_t n);
float *cuda_rig_take_f32(struct ops *o, void *d, size_t n);
void cuda_rig_drop(struct ops *o, void *d);

/* The limit of |out - ref| / |ref| for one operator whose inputs are exact in this type: its rounding. */
double cuda_rig_limit(const struct ops *o);

/* `limit` for means of values of size 1, rows x width of them: where few columns nearly cancel, a mean is as inexact as
 * these values are. */
double cuda_rig_limit_of_means(const float *ref, int64_t rows, int64_t width, int64_t ld, double limit);

#endif
