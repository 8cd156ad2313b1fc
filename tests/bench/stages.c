#include "tests/bench/stages.h"

#include "encoder_worker/vit.h"
#include "llm_worker/generate.h"
#include "llm_worker/opt.h"
#include "qformer_worker/qformer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Values from -1 to 1 that look random. */
static float *floats_new(size_t n)
{
    float *x = reallocarray(NULL, n, sizeof(*x));

    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)((i * 2654435761U >> 16) & 0xffff) / 32768.0F - 1;
    return x;
}

static bool always(const struct checkpoint *c)
{
    (void)c;
    return true;
}

/* -- encoder -- */

static int open_encoder(struct bench_stage *s, struct err *err)
{
    const struct config_vision *v = &s->checkpoint->config.vision;
    const size_t n = (size_t)s->n_images * (size_t)v->image_size * (size_t)v->image_size * 3;
    uint8_t *rgb = malloc(n);
    struct vit *vit = NULL;
    int rc;

    s->in = rgb;
    if (!rgb)
        return err_set(err, -ENOMEM, "no memory for pictures");
    for (size_t i = 0; i < n; i++)
        rgb[i] = (uint8_t)(i * 2654435761U >> 24);
    rc = vit_new(s->ops, s->checkpoint, s->n_images, &vit, err);
    s->model = vit;
    return rc;
}

static int run_encoder(struct bench_stage *s)
{
    const void *out;
    int rc = vit_forward(s->model, s->n_images, s->in, &out);

    return rc < 0 ? rc : s->ops->f->sync(s->ops);
}

static void close_encoder(struct bench_stage *s)
{
    vit_free(s->model);
}

/* -- Q-Former -- */

static int open_qformer(struct bench_stage *s, struct err *err)
{
    const struct config *c = &s->checkpoint->config;
    const size_t n = (size_t)s->n_images;
    struct qformer *qformer = NULL;
    int rc;

    s->in = floats_new(n * (size_t)c->vision.n_tokens * (size_t)c->vision.width);
    s->out = floats_new(n * (size_t)c->n_queries * (size_t)(c->lm_width ? c->lm_width : c->qformer.width));
    if (!s->in || !s->out)
        return err_set(err, -ENOMEM, "no memory for features");
    rc = qformer_new(s->ops, s->checkpoint, s->n_images, &qformer, err);
    s->model = qformer;
    return rc;
}

static int run_qformer(struct bench_stage *s)
{
    const bool projects = s->checkpoint->config.lm_width > 0;

    return qformer_forward(
        s->model, s->n_images, s->in, false,
        &(struct qformer_out){.queries = projects ? NULL : s->out, .projected = projects ? s->out : NULL});
}

static void close_qformer(struct bench_stage *s)
{
    qformer_free(s->model);
}

/* -- language model -- */

static bool is_opt(const struct checkpoint *c)
{
    return c->config.lm == CONFIG_LM_OPT;
}

static int open_llm(struct bench_stage *s, struct err *err)
{
    const struct config *c = &s->checkpoint->config;
    const struct opt_limits limits = {.n_slots = s->n_images, .n_positions = c->n_queries + 1 + s->n_new};
    struct generate *generate = NULL;
    struct opt *opt = NULL;
    int rc;

    s->in = floats_new((size_t)c->n_queries * (size_t)c->lm_width);
    if (!s->in)
        return err_set(err, -ENOMEM, "no memory for query rows");
    rc = opt_new(s->ops, s->checkpoint, &limits, &opt, err);
    s->model = opt;
    if (rc < 0)
        return rc;
    s->cache_bytes = opt_kv_bytes(opt);
    rc = generate_new(opt, s->n_images, -1, &generate, err);
    s->generate = generate;
    return rc;
}

static int run_llm(struct bench_stage *s)
{
    const struct config *c = &s->checkpoint->config;
    struct generate_result done;
    int n_done = 0, rc = 0;

    for (int i = 0; i < s->n_images && rc == 0; i++)
        rc = generate_submit(s->generate,
                             &(struct generate_request){.tag = (uint64_t)i,
                                                        .image_rows = s->in,
                                                        .n_image_rows = c->n_queries,
                                                        .prompt = &c->bos,
                                                        .n_prompt = 1,
                                                        .max_new_tokens = s->n_new},
                             NULL);
    while (rc >= 0 && n_done < s->n_images) {
        rc = generate_step(s->generate);
        while (rc >= 0 && generate_take(s->generate, &done) == 1) {
            generate_result_release(&done);
            n_done++;
        }
    }
    return rc < 0 ? rc : 0;
}

static void close_llm(struct bench_stage *s)
{
    generate_free(s->generate);
    opt_free(s->model);
}

/* -- all -- */

const struct bench_stage_kind bench_stage_kinds[] = {
    {"encoder", MODEL_STAGE_ENCODER, always, open_encoder, run_encoder, close_encoder},
    {"qformer", MODEL_STAGE_QFORMER, always, open_qformer, run_qformer, close_qformer},
    {"llm", MODEL_STAGE_LLM, is_opt, open_llm, run_llm, close_llm},
    {.name = NULL},
};

const struct bench_stage_kind *bench_stage_find(const char *name)
{
    for (const struct bench_stage_kind *k = bench_stage_kinds; k->name; k++)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

int bench_stage_new(const struct bench_stage_kind *kind, const struct checkpoint *c, struct ops *o, int n_images,
                    int n_new, struct bench_stage **ret, struct err *err)
{
    struct bench_stage *s = calloc(1, sizeof(*s));
    int rc;

    if (!s)
        return err_set(err, -ENOMEM, "no memory");
    *s = (struct bench_stage){.kind = kind, .checkpoint = c, .ops = o, .n_images = n_images, .n_new = n_new};
    rc = kind->applies(c) ? kind->open(s, err) : err_set(err, -ENOTSUP, "%s: has no stage %s", c->dir, kind->name);
    if (rc < 0) {
        bench_stage_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void bench_stage_free(struct bench_stage *s)
{
    if (!s)
        return;
    s->kind->close(s);
    free(s->in);
    free(s->out);
    free(s);
}

int bench_stage_run(struct bench_stage *s)
{
    return s->kind->run(s);
}
