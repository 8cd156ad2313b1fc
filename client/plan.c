#include "client/plan.h"

#include "base/file.h"
#include "client/printable.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NULL_TOKENS = 1, NULL_WIDTH = 8 };

static const char demo_name[] = "blip2-opt-demo";

static int set_recipe(const struct plan_options *o, const char *model_name, struct plan *p, struct err *err)
{
    struct msg_recipe *r = &p->recipe;

    msg_recipe_init(r);
    (void)printable_text(model_name, strlen(model_name), r->model, sizeof(r->model));
    r->decode.max_new_tokens = (uint32_t)o->max_new_tokens;
    if (!o->prompt)
        return 0;
    if (!utf8_is_valid(o->prompt, strlen(o->prompt)))
        return err_set(err, -EINVAL, "the prompt is not UTF-8");
    r->n_prompts = 1;
    if (!msg_text_set(r->prompts[0], sizeof(r->prompts[0]), o->prompt))
        return err_set(err, -EINVAL, "the prompt is longer than %d bytes", MSG_PROMPT_SIZE - 1);
    return 0;
}

/* Do image, prompt and answer fit the language model's positions? (The last new token is never fed back.) */
static int check_prompt(const struct checkpoint *c, const struct plan_options *o, int *ret_positions, struct err *err)
{
    struct tokenizer *tokenizer = NULL;
    struct token_ids ids = {0};
    int64_t n_prompt = 1, need;
    int rc = tokenizer_load(c->tokenizer_path, &tokenizer, err);

    if (rc == 0 && o->prompt) {
        rc = tokenizer_encode(tokenizer, o->prompt, strlen(o->prompt), true, &ids, err);
        n_prompt = (int64_t)ids.n;
    } else if (rc == 0 && c->config.bos < 0) {
        rc = err_set(err, -EINVAL, "this checkpoint needs a --prompt: it names no token to begin with");
    }
    need = c->config.n_queries + n_prompt + o->max_new_tokens - 1;
    if (rc == 0 && n_prompt < 1)
        rc = err_set(err, -EINVAL, "the prompt has no tokens; leave --prompt away for none");
    if (rc == 0 && need > c->config.opt.max_positions)
        rc = err_set(err, -EINVAL,
                     "%d image rows, a prompt of %lld tokens and %lld new tokens need %lld positions; the model has %d",
                     c->config.n_queries, (long long)n_prompt, (long long)o->max_new_tokens, (long long)need,
                     c->config.opt.max_positions);
    for (size_t i = 0; rc == 0 && i < ids.n; i++)
        if (ids.ids[i] == c->config.image_token)
            rc = err_set(err, -EINVAL,
                         "the prompt spells the image token, which stands for the picture itself; leave it away");
    if (rc == 0)
        *ret_positions = (int)need;
    token_ids_release(&ids);
    tokenizer_free(tokenizer);
    return rc;
}

static void link_nodes(struct plan *p)
{
    p->nodes[0].stage = MSG_STAGE_ENCODE;
    p->nodes[0].out_bytes = (uint64_t)p->n_tokens * (uint64_t)p->width * 4;
    p->nodes[1].stage = MSG_STAGE_QFORMER;
    p->nodes[1].needs = 1 << 0;
    p->nodes[1].tasks = MSG_TASK_PROJECT;
    p->nodes[1].out_bytes = (uint64_t)p->n_queries * (uint64_t)p->lm_width * 4;
    p->nodes[2].stage = MSG_STAGE_LLM;
    p->nodes[2].needs = 1 << 1;
    for (int i = 0; i < 3; i++)
        (void)msg_text_set(p->nodes[i].model, sizeof(p->nodes[i].model), p->recipe.model);
}

static int set_fingerprints(const struct checkpoint *c, struct plan *p, struct err *err)
{
    static const enum model_stage stages[3] = {MODEL_STAGE_ENCODER, MODEL_STAGE_QFORMER, MODEL_STAGE_LLM};
    struct fingerprint f;

    for (int i = 0; i < 3; i++) {
        int rc = model_stage_fingerprint(c, stages[i], DTYPE_F32, &f, err);

        if (rc < 0)
            return rc;
        p->nodes[i].fingerprint.n_bytes = MSG_FINGERPRINT_BYTES;
        memcpy(p->nodes[i].fingerprint.bytes, f.bytes, MSG_FINGERPRINT_BYTES);
    }
    return 0;
}

static int read_checkpoint(const struct checkpoint *c, const struct plan_options *o, struct plan *p, struct err *err)
{
    int rc;

    if (c->config.task != CONFIG_TASK_GENERATE)
        return err_set(err, -EINVAL, "%s: scores image and text, it does not write captions", c->dir);
    if (c->config.lm != CONFIG_LM_OPT)
        return err_set(err, -EINVAL, "%s: its language model is T5, only OPT is built so far", c->dir);
    rc = checkpoint_check(c, MODEL_STAGE_ALL, err);
    if (rc == 0)
        rc = check_prompt(c, o, &p->n_positions, err);
    if (rc == 0)
        rc = set_fingerprints(c, p, err);
    p->n_tokens = c->config.vision.n_tokens;
    p->width = c->config.vision.width;
    p->n_queries = c->config.n_queries;
    p->lm_width = c->config.lm_width;
    return rc;
}

int plan_model(const struct plan_options *o, struct plan *ret, struct err *err)
{
    struct checkpoint *c = NULL;
    char name[256];
    int rc;

    *ret = (struct plan){0};
    if (!realpath(o->model_dir, ret->model_dir))
        return err_set(err, -errno, "--model %s: %s", o->model_dir, strerror(errno));
    file_base_name(ret->model_dir, name, sizeof(name));
    rc = set_recipe(o, name, ret, err);
    if (rc == 0)
        rc = checkpoint_open(ret->model_dir, &c, err);
    if (rc == 0)
        rc = read_checkpoint(c, o, ret, err);
    checkpoint_free(c);
    link_nodes(ret);
    ret->is_demo = strcmp(name, demo_name) == 0;
    return rc;
}

int plan_null(const struct plan_options *o, struct plan *ret, struct err *err)
{
    int rc;

    *ret =
        (struct plan){.n_tokens = NULL_TOKENS, .width = NULL_WIDTH, .n_queries = NULL_TOKENS, .lm_width = NULL_WIDTH};
    rc = set_recipe(o, "null", ret, err);
    link_nodes(ret);
    return rc;
}
