/* params.h - a checkpoint's parameters in the form the operators use: packed matrices, norms, tables.
 *
 * Who may call: the graphs (vit, qformer, lm), while they load.
 * Units:  shapes in elements; names without the ".weight" and ".bias" they end in.
 * Memory: results belong to the caller and are freed through the same `ops`. Source pages are dropped once a matrix has
 *         been packed; tables stay views of the checkpoint, which must outlive them.
 * Errors: what checkpoint_get and the operators give, `err` naming the tensor; outputs untouched then. */
#ifndef BLIPLINE_MODEL_PARAMS_H
#define BLIPLINE_MODEL_PARAMS_H

#include "base/err.h"
#include "model/checkpoint.h"
#include "tensor/ops.h"

#include <stdbool.h>
#include <stdint.h>

enum { PARAMS_NAME_MAX = 160, PARAMS_MAX_PARTS = 4 };

struct params {
    struct ops *o;
    const struct checkpoint *c;
    struct err *err;
    unsigned weight_flags; /* OPS_WEIGHT_* of the matrices that are loaded */
};

struct params_norm {
    struct ops_vector *gamma, *beta;
};

/* Format a name; returns buf. A name that does not fit is our bug. */
const char *params_name(char buf[PARAMS_NAME_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);

/* name.weight [n, k] and, with bias, name.bias [n]. */
int params_linear(const struct params *p, const char *name, int64_t n, int64_t k, bool bias,
                  struct ops_weight **ret) CHECK_RESULT;
/* Several of these of the same shape, stacked by rows into one product: "<prefix><suffix>.weight" for each suffix. */
int params_stacked(const struct params *p, const char *prefix, int n_parts, const char *const *suffixes, int64_t n,
                   int64_t k, bool bias, struct ops_weight **ret) CHECK_RESULT;
/* A convolution kernel [n, c, h, w] with bias as the product over its flattened patch. */
int params_patch(const struct params *p, const char *name, int64_t n, int64_t c, int64_t h, int64_t w,
                 struct ops_weight **ret) CHECK_RESULT;
/* The vector or [1, ..., n] tensor `name` (in full) as f32 parameters. */
int params_vector(const struct params *p, const char *name, int n_dims, const int64_t *shape,
                  struct ops_vector **ret) CHECK_RESULT;
/* name.weight and name.bias, both [n]. */
int params_norm_load(const struct params *p, const char *name, int64_t n, struct params_norm *ret) CHECK_RESULT;
/* An RMS norm: name.weight [n] x scale; no beta. */
int params_rms_load(const struct params *p, const char *name, int64_t n, float scale,
                    struct params_norm *ret) CHECK_RESULT;
void params_norm_free(struct ops *o, struct params_norm *n);
/* name.weight [rows, width], read in place. */
int params_table(const struct params *p, const char *name, int64_t rows, int64_t width,
                 struct ops_table **ret) CHECK_RESULT;

/* NULL is fine; the pointer becomes NULL. */
void params_weight_free(struct ops *o, struct ops_weight **w);
void params_vector_free(struct ops *o, struct ops_vector **v);
void params_table_free(struct ops *o, struct ops_table **t);

/* y [n_rows, n] = act(x [n_rows, k] * w + bias) + residual [n_rows, n]; all rows dense, act_dtype. residual may be y or
 * NULL. */
int params_apply(struct ops *o, const struct ops_weight *w, int64_t n_rows, int64_t k, int64_t n, const void *x,
                 void *y, enum ops_act act, const void *residual) CHECK_RESULT;
/* y = norm(x) over n_rows dense rows; y may be x. consumer: the matrix of the params_apply that comes next and alone
 * reads y (ops_norm_args), or NULL. */
int params_norm_apply(struct ops *o, const struct params_norm *norm, int64_t n_rows, int64_t width, float eps,
                      const void *x, void *y, const struct ops_weight *consumer) CHECK_RESULT;

/* A number that no other graph of this process has, and the key of a pass (ops_graph_begin) of the graph that has it:
 * `numbers` are all that its calls depend on. */
uint64_t params_graph_number(void);
uint64_t params_graph_key(uint64_t graph_number, const int64_t *numbers, int n_numbers);
/* End a pass whose calls gave rc, also after an error: returns that one then. */
int params_graph_end(struct ops *o, int rc) CHECK_RESULT;

#endif
