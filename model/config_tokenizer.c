#include "model/config_tokenizer.h"

#include "base/buf.h"
#include "base/file.h"
#include "model/json.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The type that every published checkpoint of this model has. */
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
            return err_set(err, -EINVAL, "the text has the token %d, but the model has embeddings for %d", (int)ids[i],
                           n_words);
        if (ids[i] == config->image_token)
            return err_set(err, -EINVAL,
                           "the text contains the image token, which stands for the picture itself; remove it");
    }
    return 0;
}

/* The ids added to every text, and the vocabulary, must have embeddings. */
static int check_words(const struct config *config, const struct tokenizer *t, const char *path, struct err *err)
{
    const int n_words = n_words_of(config);
    struct token_ids ids = {0};
    int rc = 0;

    if (tokenizer_n_vocab(t) > n_words)
        return err_set(
            err, -EINVAL,
            "%s: a vocabulary of %d, but the model has embeddings for %d: this file belongs to another checkpoint",
            path, tokenizer_n_vocab(t), n_words);
    rc = tokenizer_encode(t, "", 0, true, &ids, err);
    if (rc == 0 && config->lm == CONFIG_LM_NONE && ids.n != 2)
        rc = err_set(err, -EINVAL, "%s: post_processor: adds %zu tokens to every text, expected [CLS] and [SEP]", path,
                     ids.n);
    for (size_t i = 0; i < ids.n && rc == 0; i++)
        if (ids.ids[i] >= n_words)
            rc = err_set(err, -EINVAL,
                         "%s: post_processor: adds the token %d to every text, but the model has embeddings for %d",
                         path, (int)ids.ids[i], n_words);
    token_ids_release(&ids);
    return rc;
}

/* -- tokenizer_config.json, from which transformers rebuilds some parts: it must not contradict tokenizer.json */

enum { MAX_SETTINGS_BYTES = 4 << 20 };

static int same_ids(const struct tokenizer *t, const char *a, const char *b, bool *ret, struct err *err)
{
    struct token_ids ids = {0};
    size_t n = 0;
    int rc = tokenizer_encode(t, a, strlen(a), false, &ids, err);

    if (rc == 0) {
        n = ids.n;
        rc = tokenizer_encode(t, b, strlen(b), false, &ids, err);
    }
    *ret = rc == 0 && ids.n == 2 * n && memcmp(ids.ids, ids.ids + n, n * sizeof(*ids.ids)) == 0;
    token_ids_release(&ids);
    return rc;
}

/* Checks a flag by comparing the ids of two texts. */
static int check_flag(struct json_reader *r, const char *key, const struct tokenizer *t, const char *a, const char *b)
{
    bool same = false, wanted = json_read_bool(r, key, false);
    int rc = r->rc < 0 || !json_read_any(r, key) ? r->rc : same_ids(t, a, b, &same, r->err);

    if (rc == 0 && json_read_any(r, key) && same != wanted)
        json_reader_fail(r, key, "is %s, which contradicts tokenizer.json", wanted ? "true" : "false");
    return rc < 0 ? rc : r->rc;
}

/* T5's texts end in eos_token, whatever tokenizer.json's post-processor says. */
static int check_end(struct json_reader *r, const struct tokenizer *t)
{
    const json_t *v = json_read_any(r, "eos_token"), *content = json_object_get(v, "content");
    const char *eos = json_string_value(content ? content : v);
    struct token_ids ids = {0};
    int rc = eos ? tokenizer_encode(t, "", 0, true, &ids, r->err) : 0;

    if (rc == 0 && eos && (ids.n == 0 || ids.ids[ids.n - 1] != tokenizer_find(t, eos)))
        json_reader_fail(r, "eos_token", "is \"%.60s\", but tokenizer.json ends texts differently", eos);
    token_ids_release(&ids);
    return rc < 0 ? rc : r->rc;
}

static int check_settings(const struct config *config, const struct tokenizer *t, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    struct json_reader r = {.section = "", .err = err};
    char name[PATH_MAX];
    struct buf text = {0};
    json_t *root = NULL;
    int rc;

    if (snprintf(name, sizeof(name), "%.*stokenizer_config.json", slash ? (int)(slash + 1 - path) : 0, path) >=
        (int)sizeof(name))
        return err_set(err, -ENAMETOOLONG, "%s: path too long", path);
    rc = file_read(name, MAX_SETTINGS_BYTES, &text, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = json_parse_text(text.data, text.size_bytes, MAX_SETTINGS_BYTES, name, &root, err);
    r.file = name;
    r.object = root;
    if (rc == 0 && config->lm == CONFIG_LM_NONE)
        rc = check_flag(&r, "do_lower_case", t, "A", "a");
    else if (rc == 0 && config->lm == CONFIG_LM_OPT)
        rc = check_flag(&r, "add_prefix_space", t, "a", " a");
    else if (rc == 0)
        rc = check_end(&r, t);
    json_decref(root);
    buf_release(&text);
    return rc;
}

int config_tokenizer_load(const struct config *config, const char *path, struct tokenizer **ret, struct err *err)
{
    struct tokenizer *t = NULL;
    int rc = tokenizer_load(path, &t, err);

    if (rc < 0)
        return rc;
    if (strcmp(tokenizer_type(t), type_of(config)) != 0)
        rc = err_set(err, -EINVAL, "%s: a %s tokenizer, but %s models have %s: this file belongs to another checkpoint",
                     path, tokenizer_type(t), model_of(config), type_of(config));
    else
        rc = check_words(config, t, path, err);
    if (rc == 0)
        rc = check_settings(config, t, path, err);
    if (rc < 0)
        tokenizer_free(t);
    else
        *ret = t;
    return rc;
}
