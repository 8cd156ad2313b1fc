/* golden.h - reference data of a checkpoint, and the report of a self-test.
 *
 * A golden directory holds a checkpoint and the reference implementation's results: expected.safetensors (each stage's
 * tensors for a few images) and expected.json (image names, token ids, tokenizer cases). See MODEL.md "Golden data".
 * Who may call: the workers' self-tests and the unit tests; one thread.
 * Units:  relative error = ||got - want|| / ||want|| over the whole tensor.
 * Memory: golden_free frees everything; the caller frees arrays from golden_floats with free().
 * Errors: -ENOENT, -EINVAL; err names the file, key or tensor. */
#ifndef BLIPLINE_MODEL_GOLDEN_H
#define BLIPLINE_MODEL_GOLDEN_H

#include "base/err.h"
#include "model/checkpoint.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* fp32 against the reference, tensors and OPT logits (MODEL.md "Precision") */
#define GOLDEN_LIMIT 1e-5
/* T5's logits: the reference itself is 5e-5 from float64 */
#define GOLDEN_LIMIT_T5_LOGITS 1e-3

/* The precision of a computation. Below fp32 the limits are wider, and token ids that differ are counted but not a
 * failure. */
enum golden_grain {
    GOLDEN_EXACT, /* fp32 */
    GOLDEN_FP16,  /* fp16 weights and activations, or fp32 with tf32 products (same mantissa) */
    GOLDEN_BF16,
    GOLDEN_FP8, /* large matrices and their inputs in e4m3; the limits only catch gross errors */
};
/* T5 does not scale its scores: transformers' own bf16 differs from its fp32 by 0.2 with random weights (t5_a). */
struct golden_limits {
    double tensor, t5_logits;
};
extern const struct golden_limits golden_limits[];

struct json_t;

struct golden {
    char *dir;
    struct checkpoint *checkpoint;
    struct safetensors *tensors;
    struct json_t *expected; /* expected.json, an object */
    struct json_t *rows;     /* the report so far */
    int n_images;
    int n_failed;
    enum golden_grain grain;
    int64_t row_ns; /* when the last row was added */
};

int golden_open(const char *dir, struct golden **ret, struct err *err) CHECK_RESULT;
void golden_free(struct golden *g);

/* Name of picture i, 0 <= i < n_images. */
const char *golden_image_name(const struct golden *g, int i);
/* Path of image i in dir/images, dir/../images_odd or dir/../../images/odd. -ENOENT if in none. */
int golden_image_path(const struct golden *g, int i, char *ret, size_t size, struct err *err) CHECK_RESULT;
/* The number of images, 1 .. n_images, that the tensor covers. -ENOENT, -EINVAL. */
int golden_n_pictures(const struct golden *g, const char *name, struct err *err) CHECK_RESULT;
/* A tensor of expected.safetensors with exactly this shape, as f32. */
int golden_floats(const struct golden *g, const char *name, int n_dims, const int64_t *shape, float **ret,
                  struct err *err) CHECK_RESULT;
/* The first shape[0] rows of a tensor that may have more. */
int golden_first_floats(const struct golden *g, const char *name, int n_dims, const int64_t *shape, float **ret,
                        struct err *err) CHECK_RESULT;

/* NaN if either side holds one. */
double golden_relative_error(const float *got, const float *want, size_t n);

/* Adds a row {"stage", "shape", "relative_error", "limit", "pass", "seconds"} to the report, with GOLDEN_LIMIT or
 * the limit of the precision. */
int golden_report_tensor(struct golden *g, const char *stage, int n_dims, const int64_t *shape, const float *got,
                         const float *want, struct err *err) CHECK_RESULT;
/* The same with an explicit limit. */
int golden_report_within(struct golden *g, const char *stage, int n_dims, const int64_t *shape, double limit,
                         const float *got, const float *want, struct err *err) CHECK_RESULT;
/* A row without numbers: relative_error and limit are null; `detail` (may be NULL) says what differs. */
int golden_report_equal(struct golden *g, const char *stage, int n, bool pass, const char *detail,
                        struct err *err) CHECK_RESULT;
/* A row about `n` sequences, of which `n_equal` have the reference's ids ("equal"). relative_error is the largest of
 * their scores, NAN for none. Passes if all are equal and the error is within `limit`. */
struct golden_sequences {
    int n, n_equal;
    double score_error, limit;
    const char *detail; /* the first that differs, or NULL */
};
int golden_report_sequences(struct golden *g, const char *stage, const struct golden_sequences *s,
                            struct err *err) CHECK_RESULT;
/* A row {"machine": {...}, "pass": null}: the machine used. Takes ownership of the object. */
int golden_report_machine(struct golden *g, struct json_t *machine, struct err *err) CHECK_RESULT;
/* A row with "skipped": reason, and "pass": null. Neither passed nor failed. */
int golden_report_skipped(struct golden *g, const char *stage, const char *reason, struct err *err) CHECK_RESULT;
/* Print the rows as a JSON array. Returns 0 if none failed, 1 if some did, or -EIO. */
int golden_print(const struct golden *g, FILE *out, struct err *err) CHECK_RESULT;

#endif
