/* fingerprint.h - 128 bits that say "the same computation on the same weights".
 *
 * xxh3-128 over names, types, shapes and bytes of the tensors in the order of names, and over the configuration numbers
 * that change results. How tensors are spread over files, unknown tensors and aliases that repeat another do not
 * matter.
 * Who may call: anyone; reads every byte of the tensors concerned (seconds for a large model), so call it once.
 * Units: none.
 * Memory: plain values.
 * Errors: -ENOENT for a missing tensor, -EINVAL for a shape that disagrees, file errors of tokenizer.json. */
#ifndef BLIPLINE_MODEL_FINGERPRINT_H
#define BLIPLINE_MODEL_FINGERPRINT_H

#include "base/err.h"
#include "base/fingerprint.h"
#include "model/checkpoint.h"

/* Vision weights without post_layernorm, and vision numbers: captioner and scorer share a pass when these agree. */
int fingerprint_trunk(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* Size, rescale, mean, std. */
int fingerprint_pixels(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* post_layernorm, query tokens, Q-Former, projections and heads; with a text side also the bytes of tokenizer.json. */
int fingerprint_qformer(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;
/* Language model, bytes of tokenizer.json, special ids. -EINVAL for a retrieval checkpoint. */
int fingerprint_lm(const struct checkpoint *c, struct fingerprint *ret, struct err *err) CHECK_RESULT;

/* What a worker of one stage announces: encoder = (trunk, pixels); qformer = (qformer, the trunk numbers it relies on);
 * llm = lm; each with the float type it computes in. `stage` is a single bit. */
int stage_fingerprint(const struct checkpoint *c, enum stage stage, enum dtype dtype, struct fingerprint *ret,
                      struct err *err) CHECK_RESULT;

/* Settings of the image encoder that change its results, as bits. Those that are set make another fingerprint of a
 * stage's; none leave it. -ENOMEM. */
enum { MODEL_EXIF_ORIENTATION = 1, MODEL_GREY16_HIGH_BYTE = 2 };
int fingerprint_with_settings(struct fingerprint *f, unsigned settings) CHECK_RESULT;

#endif
