/* config_tokenizer.h - loads a model's tokenizer and checks that it fits the configuration.
 *
 * Every id of the vocabulary must have an embedding. Added tokens may lie beyond, as `<image>` does in retrieval
 * checkpoints saved with their processor; only a text that contains one is an error.
 * Who may call: anyone.
 * Units: token ids.
 * Memory: freed with tokenizer_free.
 * Errors: those of tokenizer_load; -EINVAL if the tokenizer belongs to another type of model or its vocabulary is
 * larger than the embedding table. */
#ifndef BLIPLINE_MODEL_CONFIG_TOKENIZER_H
#define BLIPLINE_MODEL_CONFIG_TOKENIZER_H

#include "model/config.h"
#include "model/tokenizer.h"

/* `path`: the checkpoint's tokenizer.json. */
int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret,
                          struct err *err) CHECK_RESULT;
/* -EINVAL if an id has no embedding or is the image token. */
int config_tokenizer_check(const struct config *config, const int32_t *ids, size_t n, struct err *err) CHECK_RESULT;

#endif
