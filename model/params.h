/* params.h - loads a checkpoint's parameters for the operators: packed matrices, norms, tables.
 *
 * Who may call: the graphs (vit, qformer, lm) while loading.
 * Units:  shapes in elements; names without the suffix ".weight" or ".bias".
 * Memory: the caller frees results through the same `ops`. Source pages are released once a matrix is packed; tables
 * are views of the checkpoint, which must outlive them.
 * Errors: those of checkpoint_get and the operators; `err` names the tensor; outputs are then untouched. */
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
    unsigned weight_flags; /* OPS_WEIGHT_* for the matrices loaded */
};

struct params_norm {
    struct ops_vector *gamma, *beta;
};

/* Formats a name; returns buf. A name that does not fit is a bug (assert). */
const char *params_name(char buf[PARAMS_NAME_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);

/* name.weight [n, k] and, with bias, name.bias [n]. */
int params_linear(const struct params *p, const char *name, int64_t n, int64_t k, bool bias,
                  struct ops_weight **ret) CHECK_RESULT;
/* Several matrices of the same shape, stacked by rows into one product: "<prefix><suffix>.weight" for each suffix. */
int params_stacked(const struct params *p, const char *prefix, int n_parts, const char *const *suffixes, int64_t n,
                   int64_t k, bool bias, struct ops_weight **ret) CHECK_RESULT;
/* A convolution kernel [n, c, h, w] with bias, as a matrix over flattened patches. */
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
/* name.weight [rows, width], used in place. */
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
/* y = norm(x) over n_rows dense rows; y may be x. consumer: the matrix of the next params_apply if only that reads y
 * (ops_norm_args), else NULL. */
int params_norm_apply(struct ops *o, const struct params_norm *norm, int64_t n_rows, int64_t width, float eps,
                      const void *x, void *y, const struct ops_weight *consumer) CHECK_RESULT;

/* A number unique to a graph in this process, and the key for ops_graph_begin made from it: `numbers` are all values
 * that the calls depend on. */
uint64_t params_graph_number(void);
uint64_t params_graph_key(uint64_t graph_number, const int64_t *numbers, int n_numbers);
/* Ends a graph whose calls returned rc; call it after an error too. Returns rc if it is an error. */
int params_graph_end(struct ops *o, int rc) CHECK_RESULT;

#endif
