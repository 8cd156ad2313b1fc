#include "model/checkpoint.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char opt_embedding[] = "language_model.model.decoder.embed_tokens.weight",
                  t5_embedding[] = "language_model.shared.weight", lm_head[] = "language_model.lm_head.weight";

int checkpoint_open(const char *dir, struct checkpoint **ret, struct err *err)
{
    struct checkpoint *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return err_set(err, -ENOMEM, "%s: not enough memory", dir);
    c->dir = strdup(dir);
    if (asprintf(&c->tokenizer_path, "%s/tokenizer.json", dir) < 0)
        c->tokenizer_path = NULL;
    if (!c->dir || !c->tokenizer_path) {
        rc = err_set(err, -ENOMEM, "%s: not enough memory", dir);
        goto out;
    }
    rc = config_load(dir, &c->config, err);
    if (rc < 0)
        goto out;
    rc = weights_init(&c->weights, &c->config);
    if (rc < 0) {
        rc = err_set(err, rc, "%s: not enough memory for its list of tensors", dir);
        goto out;
    }
    rc = safetensors_open(dir, &c->tensors, err);
    if (rc < 0)
        goto out;
    *ret = c;
    c = NULL;
out:
    checkpoint_free(c);
    return rc;
}

void checkpoint_free(struct checkpoint *c)
{
    if (!c)
        return;
    safetensors_free(c->tensors);
    weights_release(&c->weights);
    free(c->tokenizer_path);
    free(c->dir);
    free(c);
}

/* The entry of that name, or of its alias. */
static const struct safetensors_entry *find(const struct checkpoint *c, const char *name)
{
    const struct safetensors_entry *e = safetensors_find(c->tensors, name);

    if (e || (strcmp(name, opt_embedding) != 0 && strcmp(name, t5_embedding) != 0))
        return e; /* nothing else has aliases */
    for (size_t i = 0; !e && i < c->weights.n_specs; i++) {
        const struct weight_spec *s = &c->weights.specs[i];
        bool stands_in = s->kind == WEIGHT_ALIAS || (s->kind == WEIGHT_OPTIONAL && c->config.lm == CONFIG_LM_OPT);

        if (stands_in && s->same_as && strcmp(s->same_as, name) == 0)
            e = safetensors_find(c->tensors, s->name);
    }
    return e;
}

static int check_entry(const struct safetensors_entry *e, const char *name, int n_dims, const int64_t *shape,
                       struct err *err)
{
    char want[96], have[96];

    if (!e)
        return err_set(err, -ENOENT, "tensor %s %s is missing", name,
                       tensor_shape_text(n_dims, shape, want, sizeof(want)));
    if (!tensor_shape_is(&e->tensor, n_dims, shape))
        return err_set(err, -EINVAL, "tensor %s: shape %s in %s, expected %s", name,
                       tensor_shape_text(e->tensor.n_dims, e->tensor.shape, have, sizeof(have)), e->file,
                       tensor_shape_text(n_dims, shape, want, sizeof(want)));
    if (!dtype_is_float(e->tensor.dtype))
        return err_set(err, -EINVAL, "tensor %s: type %s in %s, expected F32, F16 or BF16", name,
                       dtype_name(e->tensor.dtype), e->file);
    return 0;
}

int checkpoint_get(const struct checkpoint *c, const char *name, int n_dims, const int64_t *shape, struct tensor *ret,
                   struct err *err)
{
    const struct safetensors_entry *e = find(c, name);
    int rc = check_entry(e, name, n_dims, shape, err);

    if (rc < 0)
        return err_prefix(err, rc, "%s", c->dir);
    *ret = e->tensor;
    return 0;
}

int checkpoint_get_1d(const struct checkpoint *c, const char *name, int64_t n, struct tensor *ret, struct err *err)
{
    return checkpoint_get(c, name, 1, (int64_t[]){n}, ret, err);
}

int checkpoint_get_2d(const struct checkpoint *c, const char *name, int64_t rows, int64_t cols, struct tensor *ret,
                      struct err *err)
{
    return checkpoint_get(c, name, 2, (int64_t[]){rows, cols}, ret, err);
}

int checkpoint_get_head(const struct checkpoint *c, struct tensor *ret, struct err *err)
{
    const char *name = c->config.lm == CONFIG_LM_OPT ? opt_embedding : t5_embedding;

    if (c->config.lm == CONFIG_LM_NONE)
        return err_set(err, -EINVAL, "%s: a retrieval checkpoint has no language model", c->dir);
    if (safetensors_find(c->tensors, lm_head))
        name = lm_head;
    return checkpoint_get_2d(c, name, c->config.lm_vocab_size, c->config.lm_width, ret, err);
}

/* -- the whole checkpoint -- */

enum { MAX_LISTED = 3 };

struct findings {
    char text[440];
    size_t n;
};

static void note(struct findings *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void note(struct findings *f, const char *fmt, ...)
{
    size_t at = strlen(f->text);
    va_list ap;

    if (f->n++ >= MAX_LISTED)
        return;
    if (at)
        at += (size_t)snprintf(f->text + at, sizeof(f->text) - at, "; ");
    va_start(ap, fmt);
    if (at < sizeof(f->text))
        (void)vsnprintf(f->text + at, sizeof(f->text) - at, fmt, ap);
    va_end(ap);
}

static void check_spec(const struct checkpoint *c, const struct weight_spec *s, bool compare, struct findings *f)
{
    const struct safetensors_entry *e = s->kind == WEIGHT_REQUIRED ? find(c, s->name)
                                                                   : safetensors_find(c->tensors, s->name),
                                   *same;
    struct err err;

    if (s->kind == WEIGHT_UNUSED || (!e && s->kind != WEIGHT_REQUIRED))
        return;
    if (check_entry(e, s->name, s->n_dims, s->shape, &err) < 0) {
        note(f, "%s", err.text);
        return;
    }
    same = s->kind == WEIGHT_ALIAS && compare ? find(c, s->same_as) : NULL;
    if (same && (same->tensor.dtype != e->tensor.dtype || same->size_bytes != e->size_bytes ||
                 memcmp(same->tensor.data, e->tensor.data, e->size_bytes) != 0))
        note(f, "tensor %s differs from %s, which it should equal", s->name, s->same_as);
}

int checkpoint_check(const struct checkpoint *c, unsigned stages, struct err *err)
{
    struct findings f = {.n = 0};
    bool all = stages == STAGES_ALL;

    if (stages == STAGE_BIT(STAGE_LLM) && c->config.lm == CONFIG_LM_NONE)
        return err_set(err, -EINVAL, "%s: a retrieval checkpoint has no language model", c->dir);
    for (size_t i = 0; i < c->weights.n_specs; i++)
        if (STAGE_BIT(c->weights.specs[i].stage) & stages)
            check_spec(c, &c->weights.specs[i], all, &f);
    for (size_t i = 0; all && i < safetensors_count(c->tensors); i++) {
        const struct safetensors_entry *e = safetensors_at(c->tensors, i);
        char have[96];

        if (!weights_find(&c->weights, e->name))
            note(&f, "tensor %s %s in %s is unknown to config.json's architecture", e->name,
                 tensor_shape_text(e->tensor.n_dims, e->tensor.shape, have, sizeof(have)), e->file);
    }
    if (f.n == 0)
        return 0;
    if (f.n > MAX_LISTED)
        return err_set(err, -EINVAL, "%s: %s; and %zu more", c->dir, f.text, f.n - MAX_LISTED);
    return err_set(err, -EINVAL, "%s: %s", c->dir, f.text);
}

void checkpoint_drop(const struct checkpoint *c, const char *name)
{
    const struct safetensors_entry *e = find(c, name);

    if (e)
        safetensors_drop(c->tensors, e->name);
}
