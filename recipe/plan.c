#include "recipe/plan.h"

#include "base/file.h"
#include "recipe/home.h"
#include "recipe/plan_private.h"
#include "console/printable.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NULL_TOKENS = 1, NULL_WIDTH = 8, NULL_VOCAB = 50304 };

struct sides {
    struct plan_dtypes dtypes;
    struct plan_side captioner, scorer; /* the scorer, if present, makes embeddings */
    unsigned prints;                    /* set of stages that need fingerprints */
};

/* -- checkpoints -- */

static void set_null(struct plan_side *s, enum config_task task)
{
    *s = (struct plan_side){.present = true, .name = "null"};
    s->config = (struct config){.task = task,
                                .lm = task == CONFIG_TASK_GENERATE ? CONFIG_LM_OPT : CONFIG_LM_NONE,
                                .vision = {.n_tokens = NULL_TOKENS, .width = NULL_WIDTH},
                                .qformer = {.width = NULL_WIDTH, .has_text = task == CONFIG_TASK_RETRIEVE},
                                .opt = {.vocab_size = NULL_VOCAB, .max_positions = 1 << 20},
                                .n_queries = NULL_TOKENS,
                                .lm_width = NULL_WIDTH,
                                .lm_vocab_size = NULL_VOCAB,
                                .embed_width = NULL_WIDTH,
                                .n_eos = 1};
}

/* For types that recipe and workers leave open: bf16 on GPUs, fp32 on the CPU. */
static struct plan_dtypes known_dtypes(const struct plan_options *o)
{
    const enum dtype usual = o->device == DEVICE_CUDA ? DTYPE_BF16 : DTYPE_F32;
    const struct recipe *r = o->recipe;

    return (struct plan_dtypes){.encode = r->dtype_encode ? r->dtype_encode : usual,
                                .qformer = r->dtype_qformer ? r->dtype_qformer : usual,
                                .llm = r->dtype_llm ? r->dtype_llm : usual,
                                .encoder_settings = (r->exif_orientation ? MODEL_EXIF_ORIENTATION : 0) |
                                                    (r->grey16_high_byte ? MODEL_GREY16_HIGH_BYTE : 0)};
}

/* The type of a stage's output tensors. */
static uint64_t value_bytes(enum dtype dtype)
{
    return dtype_size_bytes(dtype_of_activations(dtype));
}

static int set_fingerprint(const struct checkpoint *c, enum stage stage, enum dtype dtype, unsigned settings,
                           struct fingerprint *ret, struct err *err)
{
    int rc = stage_fingerprint(c, stage, dtype, ret, err);

    return rc < 0 ? rc : fingerprint_with_settings(ret, settings);
}

static int refuse_retrieval(const char *option, const char *dir, struct err *err)
{
    return err_set(err, -EDOM,
                   "%s %.300s: is a retrieval checkpoint, which scores texts but does not write captions. Give a "
                   "captioner here (blipline help models), and this one as --score-model",
                   option, dir);
}

static int refuse_captioner(const char *option, const char *dir, struct err *err)
{
    return err_set(err, -EDOM,
                   "%s %.300s: writes captions, but has no ITC and ITM heads: scores, itc and itc_text need a "
                   "retrieval checkpoint such as Salesforce/blip2-itm-vit-g (blipline help models)",
                   option, dir);
}

/* `prints`: the stages that need fingerprints. */
static int read_weights(const struct checkpoint *c, const struct plan_dtypes *d, unsigned prints, struct plan_side *s,
                        struct err *err)
{
    int rc = checkpoint_check(c, STAGES_ALL, err);

    if (rc == 0 && (prints & STAGE_BIT(STAGE_ENCODE)))
        rc = set_fingerprint(c, STAGE_ENCODE, d->encode, d->encoder_settings, &s->encoder, err);
    if (rc == 0 && (prints & STAGE_BIT(STAGE_QFORMER)))
        rc = set_fingerprint(c, STAGE_QFORMER, d->qformer, 0, &s->qformer, err);
    if (rc == 0 && (prints & STAGE_BIT(STAGE_LLM)) && c->config.task == CONFIG_TASK_GENERATE)
        rc = set_fingerprint(c, STAGE_LLM, d->llm, 0, &s->llm, err);
    return rc;
}

static bool is_checkpoint(const char *dir)
{
    char path[PATH_MAX + 16];

    (void)snprintf(path, sizeof(path), "%s/config.json", dir);
    return access(path, F_OK) == 0 || errno != ENOENT;
}

/* Set dir and name. */
static int find_folder(const char *option, const char *dir, const struct model *offered, struct plan_side *s,
                       struct err *err)
{
    char name[256];

    if (offered) {
        (void)snprintf(s->dir, sizeof(s->dir), "%s", dir);
        (void)printable_text(offered->name, strlen(offered->name), s->name, sizeof(s->name));
        return 0;
    }
    if (home_model(option, dir, s->dir, err) < 0)
        return -EDOM;
    if (!is_checkpoint(s->dir))
        return err_set(err, -EDOM, "%s %.200s: is not a checkpoint: it has no config.json (blipline help models)",
                       option, dir);
    file_base_name(s->dir, name, sizeof(name));
    (void)printable_text(name, strlen(name), s->name, sizeof(s->name));
    return 0;
}

/* `offered` NULL: a checkpoint. `task`: what it must be able to do; 0: any. */
static int open_side(const struct sides *all, const char *option, const char *dir, const struct model *offered,
                     enum config_task task, struct plan_side *s, struct err *err)
{
    const char *given = offered ? offered->name : dir;
    struct checkpoint *c = NULL;
    int rc = find_folder(option, dir, offered, s, err);

    if (rc < 0)
        return rc;
    rc = offered ? config_load(s->dir, &s->config, err) : checkpoint_open(s->dir, &c, err);
    if (c)
        s->config = c->config;
    (void)snprintf(s->tokenizer_path, sizeof(s->tokenizer_path), "%s/%s", s->dir,
                   checkpoint_file_name(CHECKPOINT_TOKENIZER));
    if (rc == 0 && task == CONFIG_TASK_GENERATE && s->config.task != task)
        rc = refuse_retrieval(option, given, err);
    else if (rc == 0 && task == CONFIG_TASK_RETRIEVE && s->config.task != task)
        rc = refuse_captioner(option, given, err);
    if (rc == 0)
        rc = c ? read_weights(c, &all->dtypes, all->prints, s, err)
               : plan_take_offered(offered, &all->dtypes, task == CONFIG_TASK_GENERATE, s, err);
    checkpoint_free(c);
    s->present = rc == 0;
    return rc;
}

static bool needs_heads(const struct recipe *r)
{
    bool needs = (r->stages & RECIPE_SCORE) && (r->itc || r->itm);

    for (uint32_t i = 0; i < r->n_embeddings; i++)
        needs = needs || r->embeddings[i].kind == MSG_EMBEDDING_ITC || r->embeddings[i].kind == MSG_EMBEDDING_ITC_TEXT;
    return needs;
}

/* If there are captions, --model writes them and --score-model does the rest. Otherwise one checkpoint, by either
 * option. */
static int open_sides(const struct plan_options *o, struct sides *s, struct err *err)
{
    bool heads = needs_heads(o->recipe), captions = o->recipe->stages & RECIPE_CAPTION;
    enum config_task other = heads ? CONFIG_TASK_RETRIEVE : 0;
    int rc = 0;

    if (o->device == DEVICE_NULL) {
        if (captions || !heads)
            set_null(&s->captioner, CONFIG_TASK_GENERATE);
        if (heads)
            set_null(&s->scorer, CONFIG_TASK_RETRIEVE);
        return 0;
    }
    if (!captions && o->model_dir && o->score_model_dir)
        return err_set(err, -EDOM,
                       "the recipe %s writes no captions, so it takes one model: omit --model or "
                       "--score-model away",
                       o->recipe->name);
    if (!captions)
        return o->score_model_dir
                   ? open_side(s, "--score-model", o->score_model_dir, o->score_model, other, &s->scorer, err)
                   : open_side(s, "--model", o->model_dir, o->model, other, &s->scorer, err);
    if (heads && !o->score_model_dir)
        return err_set(err, -EDOM,
                       "the recipe %s scores or embeds with a retrieval checkpoint: --score-model DIR is "
                       "missing (blipline help models)",
                       o->recipe->name);
    rc = open_side(s, "--model", o->model_dir, o->model, CONFIG_TASK_GENERATE, &s->captioner, err);
    if (rc == 0 && o->score_model_dir)
        rc = open_side(s, "--score-model", o->score_model_dir, o->score_model, other, &s->scorer, err);
    return rc;
}

/* -- recipe -- */

/* Everything except prompts. */
static void set_recipe(const struct recipe *from, const struct sides *s, struct msg_recipe *to)
{
    msg_recipe_init(to);
    (void)msg_text_set(to->name, sizeof(to->name), from->name);
    if (from->stages & RECIPE_CAPTION) {
        (void)msg_text_set(to->model, sizeof(to->model), s->captioner.name);
        to->decode = from->decode;
    } else {
        to->decode = (struct generation_options){0};
    }
    if (s->scorer.present)
        (void)msg_text_set(to->score_model, sizeof(to->score_model), s->scorer.name);
    to->dtype_encode = s->dtypes.encode;
    to->dtype_qformer = s->dtypes.qformer;
    to->dtype_llm = from->stages & RECIPE_CAPTION ? s->dtypes.llm : DTYPE_F32;
    to->exif_orientation = from->exif_orientation;
    to->grey16_high_byte = from->grey16_high_byte;
    if (from->stages & RECIPE_SCORE) {
        to->itc = from->itc;
        to->itm = from->itm;
        to->n_text_fields = from->n_text_fields;
        memcpy(to->text_fields, from->text_fields, sizeof(to->text_fields));
    }
    if (from->stages & RECIPE_EMBED) {
        to->n_embeddings = from->n_embeddings;
        memcpy(to->embeddings, from->embeddings, sizeof(to->embeddings));
    }
}

/* -- graph -- */

static uint32_t add_node(struct plan *p, enum stage stage, uint32_t needs, const struct fingerprint *f,
                         const char *model)
{
    struct msg_node *n = &p->nodes[p->n_nodes];

    *n = (struct msg_node){.stage = stage, .needs = needs, .fingerprint = *f};
    (void)msg_text_set(n->model, sizeof(n->model), model);
    return p->n_nodes++;
}

static struct plan_worker *add_worker(struct plan *p, const char *name, const struct plan_side *s, uint32_t node)
{
    struct plan_worker *w = &p->workers[p->n_workers++];

    *w = (struct plan_worker){.name = name, .stage = p->nodes[node].stage, .nodes = 1U << node};
    memcpy(w->model_dir, s->dir, sizeof(w->model_dir));
    return w;
}

static uint32_t add_encoder(struct plan *p, const char *name, const struct plan_side *s)
{
    const struct config_vision *v = &s->config.vision;
    uint32_t node = add_node(p, STAGE_ENCODE, 0, &s->encoder, s->name);
    struct plan_worker *w = add_worker(p, name, s, node);

    w->dtype = p->recipe.dtype_encode;
    w->rows = v->n_tokens;
    w->width = v->width;
    w->gflop = plan_gflop_encoder(&s->config);
    w->bytes = plan_bytes_encoder(&s->config, w->dtype, p->device == DEVICE_CUDA);
    p->nodes[node].out_bytes = (uint64_t)v->n_tokens * (uint64_t)v->width * value_bytes(w->dtype);
    return node;
}

static uint32_t add_qformer(struct plan *p, const char *name, const struct plan_side *s, uint32_t needs, uint32_t tasks)
{
    uint32_t node = add_node(p, STAGE_QFORMER, needs, &s->qformer, s->name);
    struct plan_worker *w = add_worker(p, name, s, node);

    w->dtype = p->recipe.dtype_qformer;
    w->rows = s->config.n_queries;
    w->width = s->config.lm_width;
    w->gflop = plan_gflop_qformer(&s->config, &p->recipe, tasks);
    w->bytes = plan_bytes_qformer(&s->config, w->dtype, p->device == DEVICE_CUDA);
    p->nodes[node].tasks = tasks;
    if (tasks & MSG_TASK_PROJECT)
        p->nodes[node].out_bytes = (uint64_t)w->rows * (uint64_t)w->width * value_bytes(w->dtype);
    return node;
}

/* Tasks of a Q-Former besides the projection. */
static uint32_t asked_tasks(const struct msg_recipe *r)
{
    uint32_t tasks = r->itc || r->itm ? MSG_TASK_SCORE : 0;

    for (uint32_t i = 0; i < r->n_embeddings; i++)
        tasks |= msg_embedding_task(r->embeddings[i].kind);
    return tasks;
}

/* encode -> qformer -> llm. The Q-Former of a scorer takes the same encoder's output if its own encoder has the same
 * weights, and waits for the captions if it has to score them. */
static void build_graph(struct plan *p, const struct sides *s, int n_positions)
{
    const struct plan_side *first = s->captioner.present ? &s->captioner : &s->scorer;
    uint32_t tasks = asked_tasks(&p->recipe), needs, encode = add_encoder(p, "encoder", first);
    bool captions = p->recipe.decode.max_new_tokens > 0;

    if (!captions) {
        (void)add_qformer(p, "qformer", first, 1U << encode, tasks);
        return;
    }
    needs = add_qformer(p, "qformer", first, 1U << encode, MSG_TASK_PROJECT | (s->scorer.present ? 0 : tasks));
    needs = add_node(p, STAGE_LLM, 1U << needs, &s->captioner.llm, s->captioner.name);
    *add_worker(p, "llm", &s->captioner, needs) = (struct plan_worker){
        .name = "llm",
        .stage = STAGE_LLM,
        .dtype = p->recipe.dtype_llm,
        .nodes = 1U << needs,
        .n_positions = n_positions,
        .gflop = plan_gflop_llm(&s->captioner.config, &p->recipe),
        .bytes = plan_bytes_llm(&s->captioner.config, p->recipe.dtype_llm, n_positions, p->device == DEVICE_CUDA),
    };
    memcpy(p->workers[p->n_workers - 1].model_dir, s->captioner.dir, sizeof(s->captioner.dir));
    if (!s->scorer.present || tasks == 0)
        return;
    needs = tasks & (MSG_TASK_SCORE | MSG_TASK_ITC_TEXT) ? 1U << needs : 0;
    if (!fingerprint_equal(&s->captioner.encoder, &s->scorer.encoder))
        encode = add_encoder(p, "score-encoder", &s->scorer);
    (void)add_qformer(p, "score-qformer", &s->scorer, needs | 1U << encode, tasks);
}

/* Null workers compute nothing: one process serves all nodes of a stage. */
static void merge_null_workers(struct plan *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_workers; i++) {
        uint32_t k = 0;

        while (k < n && p->workers[k].stage != p->workers[i].stage)
            k++;
        if (k < n)
            p->workers[k].nodes |= p->workers[i].nodes;
        else
            p->workers[n++] = p->workers[i];
    }
    p->n_workers = n;
}

static bool is_demo_name(const struct plan_side *s)
{
    size_t n = strlen(s->name);

    return n > 5 && strcmp(s->name + n - 5, "-demo") == 0;
}

static int asked_too_much(int rc)
{
    return rc == -EINVAL || rc == -EBADMSG ? -EDOM : rc;
}

int plan_make(const struct plan_options *o, struct plan *ret, struct err *err)
{
    struct sides *s = calloc(1, sizeof(*s));
    int n_positions = 0, rc;

    if (!s)
        return err_set(err, -ENOMEM, "no memory");
    *ret = (struct plan){.device = o->device};
    rc = recipe_check(o->recipe, RECIPE_OPTIONS, err);
    s->dtypes = known_dtypes(o);
    s->prints = !o->no_fingerprints ? STAGES_ALL : o->model_dir && o->score_model_dir ? STAGE_BIT(STAGE_ENCODE) : 0;
    if (rc == 0)
        rc = plan_choose_dtypes(o, &s->dtypes, err);
    if (rc == 0)
        rc = open_sides(o, s, err);
    if (rc == 0)
        rc = plan_check_dtypes(&s->dtypes, o, s->captioner.config.lm, err);
    if (rc == 0) {
        set_recipe(o->recipe, s, &ret->recipe);
        rc = plan_set_prompts(ret, o->recipe, &s->captioner, &n_positions, err);
    }
    if (rc == 0 && ret->recipe.decode.max_new_tokens)
        rc = asked_too_much(plan_check_captions(&ret->recipe, &s->captioner.config, err));
    if (rc == 0 && needs_heads(o->recipe))
        rc = plan_check_scorer(&s->scorer, err);
    if (rc == 0) {
        build_graph(ret, s, n_positions);
        if (o->device == DEVICE_NULL)
            merge_null_workers(ret);
        ret->is_demo = is_demo_name(&s->captioner) || is_demo_name(&s->scorer);
        memcpy(ret->note, s->captioner.config.note, sizeof(ret->note));
        rc = asked_too_much(plan_check_sizes(ret, s->scorer.present ? &s->scorer.config : &s->captioner.config, err));
    }
    if (rc == 0)
        rc = asked_too_much(msg_recipe_check(&ret->recipe, err));
    free(s);
    return rc;
}
