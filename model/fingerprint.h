/* fingerprint.h - a 128-bit hash that is equal for the same computation on the same weights.
 *
 * xxh3-128 over the names, types, shapes and bytes of the tensors in order of names, and over the configuration values
 * that change results. It does not depend on the split into files, unknown tensors or aliases.
 * Who may call: anyone. Reads every byte of the tensors (seconds for a large model), so call it once.
 * Units: none.
 * Memory: plain values.
 * Errors: -ENOENT for a missing tensor, -EINVAL for a wrong shape, or the file error of tokenizer.json. */
#ifndef BLIPLINE_MODEL_FINGERPRINT_H
#define BLIPLINE_MODEL_FINGERPRINT_H

#include "base/err.h"
#include "base/fingerprint.h"
#include "model/checkpoint.h"

/* Vision weights without post_layernorm, and vision parameters. A captioner and a scorer with equal trunks share the
 * image encoder. */
int fingerprint_trunk(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* Size, rescale, mean, std. */
int fingerprint_pixels(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* post_layernorm, query tokens, Q-Former, projections and heads; with a text side also the bytes of tokenizer.json. */
int fingerprint_qformer(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* Language model, bytes of tokenizer.json, special ids. -EINVAL for a retrieval checkpoint. */
int fingerprint_lm(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;

/* The fingerprint that a worker sends: encoder = (trunk, pixels), qformer = (qformer, trunk shape), llm = lm; each
 * with its float type. `stage` is a single bit. */
int stage_fingerprint(const struct checkpoint *c, enum stage stage, enum dtype dtype, struct fingerprint *ret,
                      struct err *err) CHECK_RESULT;

/* Bits for settings of the image encoder that change its results. Set bits are hashed into the fingerprint; 0 leaves
 * it unchanged. -ENOMEM. */
enum { MODEL_EXIF_ORIENTATION = 1, MODEL_GREY16_HIGH_BYTE = 2 };
int fingerprint_with_settings(struct fingerprint *f, unsigned settings) CHECK_RESULT;

#endif
