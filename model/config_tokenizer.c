#include "model/config_tokenizer.h"

#include <errno.h>
#include <string.h>

/* What every published checkpoint of the kind has. */
static const char *type_of(const struct config *config)
{
    return config->lm == CONFIG_LM_OPT ? "BPE" : config->lm == CONFIG_LM_T5 ? "Unigram" : "WordPiece";
}

static const char *model_of(const struct config *config)
{
    return config->lm == CONFIG_LM_OPT ? "OPT" : config->lm == CONFIG_LM_T5 ? "T5" : "retrieval";
}

int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret, struct err *err)
{
    const int n_words = config->lm == CONFIG_LM_NONE ? config->qformer.vocab_size : config->lm_vocab_size;
    struct tokenizer *t = NULL;
    int rc = tokenizer_load(path, &t, err);

    if (rc < 0)
        return rc;
    if (strcmp(tokenizer_type(t), type_of(config)) != 0)
        rc = err_set(err, -EINVAL, "%s: a %s tokenizer, %s models have %s: this file is of another checkpoint", path,
                     tokenizer_type(t), model_of(config), type_of(config));
    else if (tokenizer_n_ids(t) > n_words)
        rc = err_set(err, -EINVAL, "%s: %d tokens, the model has embeddings for %d: this file is of another checkpoint",
                     path, tokenizer_n_ids(t), n_words);
    if (rc < 0)
        tokenizer_free(t);
    else
        *ret = t;
    return rc;
}
