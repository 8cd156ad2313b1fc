#include "tests/bench/stages.h"

#include "encoder_worker/vit.h"
#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "qformer_worker/qformer.h"
#include "tests/unit/qformer_probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_ROWS = 512 /* of prompts in a pass of the language model */, N_BEAMS = 5 };

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
    if (s->ops->act_dtype != DTYPE_F32) /* in place: never more bytes than there were */
        for (size_t i = 0; i < n * (size_t)c->vision.n_tokens * (size_t)c->vision.width; i++) {
            const float value = ((const float *)s->in)[i];

            tensor_from_f32((char *)s->in + i * dtype_size_bytes(s->ops->act_dtype), s->ops->act_dtype, &value, 1);
        }
    rc = qformer_new(s->ops, s->checkpoint, s->n_images, &qformer, err);
    s->model = qformer;
    return rc;
}

/* As the worker does it: what has arrived, in the activations' type, is copied to where it goes to the device from. */
static int run_qformer(struct bench_stage *s)
{
    const struct config_vision *v = &s->checkpoint->config.vision;
    const bool projects = s->checkpoint->config.lm_width > 0;
    void *input;
    int rc = qformer_input(s->model, s->n_images, &input);

    if (rc < 0)
        return rc;
    memcpy(input, s->in,
           (size_t)s->n_images * (size_t)v->n_tokens * (size_t)v->width * dtype_size_bytes(s->ops->act_dtype));
    return qformer_forward(
        s->model, s->n_images, NULL, false,
        &(struct qformer_out){.queries = projects ? NULL : s->out, .projected = projects ? s->out : NULL});
}

static void close_qformer(struct bench_stage *s)
{
    qformer_free(s->model);
}

/* -- Q-Former, from device memory to device memory: what the stage costs apart from the way there -- */

struct on_device {
    struct qformer *qformer;
    void *d_trunk;
};

static int open_on_device(struct bench_stage *s, struct err *err)
{
    const struct config_vision *v = &s->checkpoint->config.vision;
    const size_t n = (size_t)s->n_images * (size_t)v->n_tokens * (size_t)v->width;
    struct on_device *d = s->model = calloc(1, sizeof(*d));
    int rc;

    s->in = floats_new(n);
    if (!d || !s->in)
        return err_set(err, -ENOMEM, "no memory for features");
    rc = qformer_new(s->ops, s->checkpoint, s->n_images, &d->qformer, err);
    if (rc == 0)
        rc = s->ops->f->alloc(s->ops, n * dtype_size_bytes(s->ops->act_dtype), &d->d_trunk);
    return rc < 0 ? rc : s->ops->f->upload(s->ops, d->d_trunk, s->ops->act_dtype, s->in, DTYPE_F32, n);
}

static int run_on_device(struct bench_stage *s)
{
    struct on_device *d = s->model;
    int rc = qformer_load_device(d->qformer, s->n_images, d->d_trunk);

    if (rc == 0)
        rc = qformer_look(d->qformer, s->checkpoint->config.lm_width > 0);
    return rc < 0 ? rc : s->ops->f->sync(s->ops);
}

static void close_on_device(struct bench_stage *s)
{
    struct on_device *d = s->model;

    if (!d)
        return;
    qformer_free(d->qformer);
    s->ops->f->release(s->ops, d->d_trunk);
    free(d);
}

/* -- scores: ITC and ITM of a few texts an image -- */

enum { TEXTS_PER_IMAGE = BENCH_TEXTS, TEXT_TOKENS = BENCH_TEXT_TOKENS };

struct score {
    struct qformer *qformer;
    float *itc, *text_itc, *logits;
    int32_t *ids, *start, *image;
};

static bool reads_text(const struct checkpoint *c)
{
    return c->config.qformer.has_text;
}

static int open_score(struct bench_stage *s, struct err *err)
{
    const struct config *c = &s->checkpoint->config;
    const size_t n = (size_t)s->n_images, n_texts = n * TEXTS_PER_IMAGE, d = (size_t)c->embed_width;
    struct score *p = calloc(1, sizeof(*p));

    s->model = p;
    s->in = floats_new(n * (size_t)c->vision.n_tokens * (size_t)c->vision.width);
    if (!p || !s->in)
        return err_set(err, -ENOMEM, "no memory for features");
    p->itc = floats_new(n * (size_t)c->n_queries * d);
    p->text_itc = floats_new(n_texts * d);
    p->logits = floats_new(n_texts * 2);
    p->ids = calloc(n_texts, TEXT_TOKENS * sizeof(int32_t));
    p->start = calloc(n_texts + 1, sizeof(int32_t));
    p->image = calloc(n_texts, sizeof(int32_t));
    if (!p->itc || !p->text_itc || !p->logits || !p->ids || !p->start || !p->image)
        return err_set(err, -ENOMEM, "no memory for texts");
    for (size_t i = 0; i < n_texts * TEXT_TOKENS; i++)
        p->ids[i] = (int32_t)(i * 2654435761U % (uint32_t)c->qformer.vocab_size);
    for (size_t i = 0; i <= n_texts; i++)
        p->start[i] = (int32_t)i * TEXT_TOKENS;
    for (size_t i = 0; i < n_texts; i++)
        p->image[i] = (int32_t)(i / TEXTS_PER_IMAGE);
    return qformer_new(s->ops, s->checkpoint, s->n_images, &p->qformer, err);
}

static int run_score(struct bench_stage *s)
{
    struct score *p = s->model;
    const struct qformer_texts texts = {.n = s->n_images * TEXTS_PER_IMAGE, .ids = p->ids, .start = p->start};
    int rc = qformer_forward(p->qformer, s->n_images, s->in, false, &(struct qformer_out){.itc = p->itc});

    if (rc == 0)
        rc = qformer_text(p->qformer, &texts, p->text_itc);
    if (rc == 0)
        rc = qformer_match(p->qformer, &texts, p->image, p->logits);
    return rc;
}

static void close_score(struct bench_stage *s)
{
    struct score *p = s->model;

    if (!p)
        return;
    qformer_free(p->qformer);
    free(p->itc);
    free(p->text_itc);
    free(p->logits);
    free(p->ids);
    free(p->start);
    free(p->image);
    free(p);
}

/* -- language model, greedy or with beams -- */

struct llm {
    struct lm *lm;
    struct generate *generate;
    float *image_rows;
    int n_beams;
};

static bool has_lm(const struct checkpoint *c)
{
    return c->config.lm != CONFIG_LM_NONE;
}

static int open_lm(struct bench_stage *s, int n_beams, struct err *err)
{
    const struct config *c = &s->checkpoint->config;
    const int n = s->n_images * n_beams;
    struct llm *l = calloc(1, sizeof(*l));
    int rc;

    s->model = l;
    if (!l)
        return err_set(err, -ENOMEM, "no memory");
    l->n_beams = n_beams;
    l->image_rows = floats_new((size_t)c->n_queries * (size_t)c->lm_width);
    if (!l->image_rows)
        return err_set(err, -ENOMEM, "no memory for query rows");
    /* A prompt of one token, a start token (T5), and each beam's new ones. */
    rc = lm_open(s->ops, s->checkpoint,
                 &(struct lm_limits){.n_sequences = n,
                                     .n_kv_rows = s->n_images * (c->n_queries + 2) + n * s->n_new,
                                     .max_rows = n + PASS_ROWS},
                 &l->lm, err);
    if (rc < 0)
        return rc;
    s->cache_bytes = lm_kv_bytes(l->lm);
    return generate_new(l->lm, s->n_images, -1, &l->generate, err);
}

static int open_greedy(struct bench_stage *s, struct err *err)
{
    return open_lm(s, 1, err);
}

static int open_beams(struct bench_stage *s, struct err *err)
{
    return open_lm(s, N_BEAMS, err);
}

static int submit(struct bench_stage *s, struct llm *l)
{
    const struct config *c = &s->checkpoint->config;
    struct generation_options options = generation_options_default();
    int rc = 0;

    options.max_new_tokens = s->n_new;
    options.n_beams = l->n_beams;
    for (int i = 0; i < s->n_images && rc == 0; i++)
        rc = generate_submit(l->generate,
                             &(struct generate_request){.tag = (uint64_t)i,
                                                        .image_rows = l->image_rows,
                                                        .image_dtype = DTYPE_F32,
                                                        .n_image_rows = c->n_queries,
                                                        .prompt = &c->bos,
                                                        .n_prompt = 1,
                                                        .options = options},
                             NULL);
    return rc;
}

static int run_llm(struct bench_stage *s)
{
    struct llm *l = s->model;
    struct generate_result done;
    int n_done = 0, rc = submit(s, l);

    while (rc >= 0 && n_done < s->n_images) {
        rc = generate_step(l->generate);
        while (rc >= 0 && generate_take(l->generate, &done) == 1) {
            generate_result_release(&done);
            n_done++;
        }
    }
    return rc < 0 ? rc : 0;
}

static void close_llm(struct bench_stage *s)
{
    struct llm *l = s->model;

    if (!l)
        return;
    generate_free(l->generate);
    lm_free(l->lm);
    free(l->image_rows);
    free(l);
}

/* -- all -- */

const struct bench_stage_kind bench_stage_kinds[] = {
    {"encoder", STAGE_ENCODE, always, open_encoder, run_encoder, close_encoder},
    {"qformer", STAGE_QFORMER, always, open_qformer, run_qformer, close_qformer},
    {"qformer-device", STAGE_QFORMER, always, open_on_device, run_on_device, close_on_device},
    {"score", STAGE_QFORMER, reads_text, open_score, run_score, close_score},
    {"llm", STAGE_LLM, has_lm, open_greedy, run_llm, close_llm},
    {"beams", STAGE_LLM, has_lm, open_beams, run_llm, close_llm},
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
