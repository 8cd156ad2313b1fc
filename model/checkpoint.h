/* checkpoint.h - a checkpoint directory: configuration, weights, path of the tokenizer.
 *
 * Who may call: anyone; immutable after opening, so threads may share it.
 * Units:  shapes in elements.
 * Memory: freed with checkpoint_free; tensors are views of its maps, valid until then.
 * Errors: -ENOENT (file or tensor missing), -EINVAL (contents); `err` names the file or tensor, what was expected
 * and found. / */
#ifndef BLIPLINE_MODEL_CHECKPOINT_H
#define BLIPLINE_MODEL_CHECKPOINT_H

#include "base/err.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "tensor/tensor.h"

#include <stddef.h>
#include <stdint.h>

struct checkpoint {
    char *dir;
    char *tokenizer_path; /* dir/tokenizer.json; may not exist; checked when the tokenizer is loaded */
    struct config config;
    struct safetensors *tensors;
    struct weights weights; /* the tensors that config requires */
};

int checkpoint_open(const char *dir, struct checkpoint **ret, struct err *err) CHECK_RESULT;
void checkpoint_free(struct checkpoint *c);

/* Tensor `name` with exactly this shape and a float type. Known aliases replace a missing name (T5's `shared` may be
 * stored as `encoder.embed_tokens`). */
int checkpoint_get(const struct checkpoint *c, const char *name, int n_dims, const int64_t *shape, struct tensor *ret,
                   struct err *err) CHECK_RESULT;
/* Shorthand for ranks 1 and 2. */
int checkpoint_get_1d(const struct checkpoint *c, const char *name, int64_t n, struct tensor *ret,
                      struct err *err) CHECK_RESULT;
int checkpoint_get_2d(const struct checkpoint *c, const char *name, int64_t rows, int64_t cols, struct tensor *ret,
                      struct err *err) CHECK_RESULT;
/* The output head of the language model [V, L]: lm_head if the checkpoint has it, else the embedding. */
int checkpoint_get_head(const struct checkpoint *c, struct tensor *ret, struct err *err) CHECK_RESULT;

/* Checks that each tensor that `stages` (a set, base/stage.h) need exists with its shape and a float type. With
 * STAGES_ALL also that no tensor is unknown and that aliases equal their originals (reads their bytes). The message
 * lists the first few errors and their number. */
int checkpoint_check(const struct checkpoint *c, unsigned stages, struct err *err) CHECK_RESULT;

/* Releases the mapped pages of a tensor that has been packed. */
void checkpoint_drop(const struct checkpoint *c, const char *name);

#endif
