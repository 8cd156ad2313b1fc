#include "tests/bench/stages.h"

#include "encoder_worker/vit.h"
#include "llm_worker/lm.h"
#include "qformer_worker/qformer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_ROWS = 512 /* positions of a pass of the language model */ };

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

/* -- scores: ITC and ITM of a few texts an image -- */

enum { TEXTS_PER_IMAGE = 5, TEXT_TOKENS = 12 };

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

/* -- language model: prompts in one pass each, then a token a sequence and pass, the most likely one -- */

struct greedy {
    struct lm *lm;
    float *image_rows;
    int32_t *tails; /* [n, n_tail] rows of the sequences */
    int32_t *ids;   /* [n] newest tokens */
    float *logprobs, *values;
    struct ops_choose_row *rows; /* [n] each writes its newest token */
    struct lm_token *tokens;
    int n_prefix, n_tail; /* rows of a prompt; of a whole sequence */
};

static bool has_lm(const struct checkpoint *c)
{
    return c->config.lm != CONFIG_LM_NONE;
}

static int open_llm(struct bench_stage *s, struct err *err)
{
    const struct config *c = &s->checkpoint->config;
    const size_t n = (size_t)s->n_images;
    struct greedy *g = calloc(1, sizeof(*g));
    int rc;

    s->model = g;
    if (!g)
        return err_set(err, -ENOMEM, "no memory");
    /* As many rows as any prompt may take: queries, one token, and the start token beside the new ones. */
    g->n_prefix = c->n_queries + 1;
    g->n_tail = s->n_new + 1;
    g->image_rows = floats_new((size_t)c->n_queries * (size_t)c->lm_width);
    g->tails = calloc(n, (size_t)g->n_tail * sizeof(int32_t));
    g->ids = calloc(n, sizeof(int32_t));
    g->logprobs = calloc(n, sizeof(float));
    g->values = calloc(n, sizeof(float));
    g->rows = calloc(n, sizeof(struct ops_choose_row));
    g->tokens = calloc(n, sizeof(struct lm_token));
    if (!g->image_rows || !g->tails || !g->ids || !g->logprobs || !g->values || !g->rows || !g->tokens)
        return err_set(err, -ENOMEM, "no memory for query rows");
    for (int i = 0; i < s->n_images * g->n_tail; i++)
        g->tails[i] = s->n_images * g->n_prefix + i;
    for (int i = 0; i < s->n_images; i++)
        g->rows[i] = (struct ops_choose_row){.n_best = 1,
                                             .repetition_penalty = 1,
                                             .temperature = 1,
                                             .top_p = 1,
                                             .ret_ids = g->ids + i,
                                             .ret_values = g->values + i,
                                             .ret_logprobs = g->logprobs + i};
    rc = lm_open(s->ops, s->checkpoint,
                 &(struct lm_limits){.n_sequences = s->n_images,
                                     .n_kv_rows = s->n_images * (g->n_prefix + g->n_tail),
                                     .max_rows = s->n_images > PASS_ROWS ? s->n_images : PASS_ROWS},
                 &g->lm, err);
    if (rc == 0)
        s->cache_bytes = lm_kv_bytes(g->lm);
    return rc;
}

static int take_best(struct bench_stage *s, struct greedy *g, int first, int n, const float *logits)
{
    const int vocab = lm_vocab_size(g->lm);

    return s->ops->f->choose(
        s->ops,
        &(struct ops_choose_args){.n_rows = n, .vocab = vocab, .logits = logits, .ld = vocab, .rows = g->rows + first});
}

/* The prompts, as many of them a pass as its rows allow. */
static int run_prompts(struct bench_stage *s, struct greedy *g)
{
    const struct config *c = &s->checkpoint->config;
    const int a_pass = lm_get_limits(g->lm)->max_rows / lm_pass_rows(g->lm, c->n_queries, 1);
    struct lm_start starts[PASS_ROWS];
    const float *logits;
    int rc = 0;

    for (int first = 0, n; first < s->n_images && rc == 0; first += n) {
        n = s->n_images - first < a_pass ? s->n_images - first : a_pass;
        for (int i = 0; i < n; i++)
            starts[i] = (struct lm_start){.image_rows = g->image_rows,
                                          .n_image_rows = c->n_queries,
                                          .ids = &c->bos,
                                          .n_ids = 1,
                                          .prefix_row = (first + i) * g->n_prefix,
                                          .first_row = g->tails[(first + i) * g->n_tail]};
        rc = lm_forward(g->lm, n, starts, 0, NULL, &logits);
        if (rc == 0)
            rc = take_best(s, g, first, n, logits);
    }
    return rc;
}

static int run_llm(struct bench_stage *s)
{
    struct greedy *g = s->model;
    const int n_prefix = lm_prefix_rows(g->lm, s->checkpoint->config.n_queries, 1), n_start = lm_start_rows(g->lm);
    const float *logits;
    int rc = run_prompts(s, g);

    for (int step = 1; step < s->n_new && rc == 0; step++) {
        for (int i = 0; i < s->n_images; i++)
            g->tokens[i] = (struct lm_token){.id = g->ids[i],
                                             .prefix_row = i * g->n_prefix,
                                             .n_prefix = n_prefix,
                                             .tail = g->tails + i * g->n_tail,
                                             .n_tail = n_start + step};
        rc = lm_forward(g->lm, 0, NULL, s->n_images, g->tokens, &logits);
        if (rc == 0)
            rc = take_best(s, g, 0, s->n_images, logits);
    }
    return rc;
}

static void close_llm(struct bench_stage *s)
{
    struct greedy *g = s->model;

    if (!g)
        return;
    lm_free(g->lm);
    free(g->image_rows);
    free(g->tails);
    free(g->ids);
    free(g->logprobs);
    free(g->values);
    free(g->rows);
    free(g->tokens);
    free(g);
}

/* -- all -- */

const struct bench_stage_kind bench_stage_kinds[] = {
    {"encoder", MODEL_STAGE_ENCODER, always, open_encoder, run_encoder, close_encoder},
    {"qformer", MODEL_STAGE_QFORMER, always, open_qformer, run_qformer, close_qformer},
    {"score", MODEL_STAGE_QFORMER, reads_text, open_score, run_score, close_score},
    {"llm", MODEL_STAGE_LLM, has_lm, open_llm, run_llm, close_llm},
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
