/* config_tokenizer.h - the tokenizer that a configuration's model was trained with.
 *
 * Its vocabulary has embeddings; added tokens may lie past it, as `<image>` does in retrieval checkpoints that were
 * saved with their processor. Only a text that spells one of those is wrong.
 * Who may call: anyone.
 * Units: token ids.
 * Memory: tokenizer_free.
 * Errors: those of tokenizer_load; -EINVAL for a tokenizer of another kind of model, or with a vocabulary that the
 *         model has no embeddings for. */
#ifndef BLIPLINE_MODEL_CONFIG_TOKENIZER_H
#define BLIPLINE_MODEL_CONFIG_TOKENIZER_H

#include "model/config.h"
#include "model/tokenizer.h"

/* `path`: the checkpoint's tokenizer.json. */
int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret,
                          struct err *err) CHECK_RESULT;
/* Can the model read this text? -EINVAL for an id without an embedding, and for the one that stands for the picture. */
int config_tokenizer_check(const struct config *config, const int32_t *ids, size_t n, struct err *err) CHECK_RESULT;

#endif
