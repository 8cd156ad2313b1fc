/* weights.h - the tensors that a configuration requires: names, shapes, and the stage that uses each.
 *
 * Who may call: anyone.
 * Units: shapes in elements.
 * Memory: the list owns its names; freed with weights_release.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_MODEL_WEIGHTS_H
#define BLIPLINE_MODEL_WEIGHTS_H

#include "base/err.h"
#include "base/stage.h"
#include "model/config.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum weight_kind {
    WEIGHT_REQUIRED,
    WEIGHT_OPTIONAL, /* a separate head, if the checkpoint has one */
    WEIGHT_ALIAS,    /* another published name of `same_as`: must be equal, replaces it if missing */
    WEIGHT_UNUSED,   /* published files may have it; it is not read */
};

struct weight_spec {
    char *name;
    const char *same_as; /* WEIGHT_ALIAS, WEIGHT_OPTIONAL: the tensor that it duplicates or replaces */
    enum weight_kind kind;
    enum stage stage; /* whose tensor it is */
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
};

struct weights {
    struct weight_spec *specs; /* sorted by name (strcmp) */
    size_t n_specs;
};

int weights_init(struct weights *w, const struct config *config) CHECK_RESULT;
void weights_release(struct weights *w);
/* NULL if the configuration has no such tensor. */
const struct weight_spec *weights_find(const struct weights *w, const char *name);

#endif
