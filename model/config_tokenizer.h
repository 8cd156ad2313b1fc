/* config_tokenizer.h - the tokenizer that a configuration's model was trained with.
 *
 * Who may call: anyone. Units: token ids. Memory: tokenizer_free. Errors: those of tokenizer_load; -EINVAL for a
 * tokenizer of another kind of model, or with ids that the model has no embedding for. */
#ifndef BLIPLINE_MODEL_CONFIG_TOKENIZER_H
#define BLIPLINE_MODEL_CONFIG_TOKENIZER_H

#include "model/config.h"
#include "model/tokenizer.h"

/* `path`: the checkpoint's tokenizer.json. */
int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret,
                          struct err *err) CHECK_RESULT;

#endif
