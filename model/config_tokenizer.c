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

static int n_words_of(const struct config *config)
{
    return config->lm == CONFIG_LM_NONE ? config->qformer.vocab_size : config->lm_vocab_size;
}

int config_tokenizer_check(const struct config *config, const int32_t *ids, size_t n, struct err *err)
{
    const int n_words = n_words_of(config);

    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n_words)
            return err_set(err, -EINVAL, "the text has the token %d, and the model embeddings for %d", (int)ids[i],
                           n_words);
        if (ids[i] == config->image_token)
            return err_set(err, -EINVAL,
                           "the text spells the image token, which stands for the picture itself; leave it away");
    }
    return 0;
}

/* What every text gets must be known, and so must the words themselves. */
static int check_words(const struct config *config, const struct tokenizer *t, const char *path, struct err *err)
{
    const int n_words = n_words_of(config);
    struct token_ids ids = {0};
    int rc = 0;

    if (tokenizer_n_vocab(t) > n_words)
        return err_set(err, -EINVAL,
                       "%s: a vocabulary of %d, the model has embeddings for %d: this file is of another checkpoint",
                       path, tokenizer_n_vocab(t), n_words);
    rc = tokenizer_encode(t, "", 0, true, &ids, err);
    for (size_t i = 0; i < ids.n && rc == 0; i++)
        if (ids.ids[i] >= n_words)
            rc = err_set(err, -EINVAL,
                         "%s: post_processor: puts the token %d into every text, the model has embeddings for %d", path,
                         (int)ids.ids[i], n_words);
    token_ids_release(&ids);
    return rc;
}

int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret, struct err *err)
{
    struct tokenizer *t = NULL;
    int rc = tokenizer_load(path, &t, err);

    if (rc < 0)
        return rc;
    if (strcmp(tokenizer_type(t), type_of(config)) != 0)
        rc = err_set(err, -EINVAL, "%s: a %s tokenizer, %s models have %s: this file is of another checkpoint", path,
                     tokenizer_type(t), model_of(config), type_of(config));
    else
        rc = check_words(config, t, path, err);
    if (rc < 0)
        tokenizer_free(t);
    else
        *ret = t;
    return rc;
}
