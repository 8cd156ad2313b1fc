#include "tests/bench/llm_flow.h"

#include "base/clock.h"
#include "llm_worker/generate.h"
#include "llm_worker/lm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct llm_flow {
    struct ops *ops;
    const struct config *config;
    struct llm_flow_conf conf;
    struct lm *lm;
    struct generate *generate;
    void *image_rows; /* of the activations' type, as the worker gets them */
    uint64_t serial;  /* of the last request */
    int running;
};

int bench_natural_length(uint64_t i)
{
    const double u = (double)(uint32_t)(i * 2654435761U) / 4294967296.0;
    const int n = (int)(LLM_FLOW_LONGEST * u * u);

    return 1 + (n < LLM_FLOW_LONGEST - 1 ? n : LLM_FLOW_LONGEST - 1);
}

/* n values from -1 to 1 that look random. */
static void *image_rows_new(enum dtype dtype, size_t n)
{
    const size_t size = dtype_size_bytes(dtype);
    unsigned char *x = reallocarray(NULL, n, size);

    for (size_t i = 0; x && i < n; i++) {
        const float value = (float)((i * 2654435761U >> 16) & 0xffff) / 32768.0F - 1;

        tensor_from_f32(x + i * size, dtype, &value, 1);
    }
    return x;
}

static int open_model(struct llm_flow *f, const struct checkpoint *c, struct err *err)
{
    const int n = f->conf.most * f->conf.n_beams, prompt = f->config->n_queries + 1;
    const int longest = f->conf.n_new > LLM_FLOW_LONGEST ? f->conf.n_new : LLM_FLOW_LONGEST;
    int rows = f->conf.pass_rows, rc;

    if (rows == 0)
        rows = f->conf.most * prompt < GENERATE_PROMPT_ROWS ? f->conf.most * prompt : GENERATE_PROMPT_ROWS;
    f->image_rows = image_rows_new(f->ops->act_dtype, (size_t)f->config->n_queries * (size_t)f->config->lm_width);
    if (!f->image_rows)
        return err_set(err, -ENOMEM, "no memory for query rows");
    rc = lm_open(f->ops, c,
                 &(struct lm_limits){
                     .n_sequences = n, .n_kv_rows = f->conf.most * (prompt + 1) + n * longest, .max_rows = n + rows},
                 &f->lm, err);
    return rc < 0 ? rc : generate_new(f->lm, f->conf.most, -1, &f->generate, err);
}

int llm_flow_new(struct ops *o, const struct checkpoint *c, const struct llm_flow_conf *conf, struct llm_flow **ret,
                 struct err *err)
{
    struct llm_flow *f = calloc(1, sizeof(*f));
    int rc;

    if (!f)
        return err_set(err, -ENOMEM, "no memory");
    *f = (struct llm_flow){.ops = o, .config = &c->config, .conf = *conf};
    rc = open_model(f, c, err);
    if (rc < 0) {
        llm_flow_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void llm_flow_free(struct llm_flow *f)
{
    if (!f)
        return;
    generate_free(f->generate);
    lm_free(f->lm);
    free(f->image_rows);
    free(f);
}

size_t llm_flow_cache_bytes(const struct llm_flow *f)
{
    return lm_kv_bytes(f->lm);
}

static int submit(struct llm_flow *f, bool natural, struct err *err)
{
    struct generation_options options = generation_options_default();
    int rc;

    options.max_new_tokens = natural ? bench_natural_length(f->serial) : f->conf.n_new;
    options.min_new_tokens = options.max_new_tokens;
    options.n_beams = f->conf.n_beams;
    rc = generate_submit(f->generate,
                         &(struct generate_request){.tag = f->serial,
                                                    .image_rows = f->image_rows,
                                                    .image_dtype = f->ops->act_dtype,
                                                    .n_image_rows = f->config->n_queries,
                                                    .prompt = &f->config->bos,
                                                    .n_prompt = 1,
                                                    .options = options,
                                                    .eos = f->config->eos,
                                                    .n_eos = f->config->n_eos},
                         err);
    if (rc < 0)
        return rc;
    f->serial++;
    f->running++;
    return 0;
}

/* A step, with as many requests in flight as are wanted. */
static int step(struct llm_flow *f, const struct llm_flow_run *run, struct llm_flow_result *r, struct err *err)
{
    struct generate_result done;
    int rc = 0;

    if (!run->in_batches || f->running == 0)
        while (rc == 0 && f->running < run->at_once)
            rc = submit(f, run->natural, err);
    if (rc < 0)
        return rc;
    rc = generate_step(f->generate);
    if (rc < 0)
        return err_set(err, rc, "a step: %s", f->ops->why.text[0] ? f->ops->why.text : strerror(-rc));
    r->steps++;
    while ((rc = generate_take(f->generate, &done)) == 1) {
        if (done.n_sequences < 1)
            return err_set(err, -EDOM, "a caption without tokens: are the weights finite?");
        r->images++;
        r->tokens += done.sequences[0].n_ids;
        f->running--;
        generate_result_release(&done);
    }
    return rc < 0 ? err_set(err, rc, "no memory for a result") : 0;
}

/* What is left from before, so that the next run begins with nothing. */
static int drain(struct llm_flow *f, struct err *err)
{
    const struct llm_flow_run none = {.at_once = 0};
    struct llm_flow_result ignored = {0};
    int rc = 0;

    while (rc == 0 && f->running > 0)
        rc = step(f, &none, &ignored, err);
    return rc;
}

int llm_flow_run(struct llm_flow *f, const struct llm_flow_run *run, struct llm_flow_result *ret, struct err *err)
{
    struct llm_flow_result warm = {0}, r = {0};
    int64_t start, took = 0;
    int rc = 0;

    assert(run->at_once <= f->conf.most && f->running == 0);
    while (rc == 0 && (warm.images < run->at_once || (run->in_batches && f->running > 0)))
        rc = step(f, run, &warm, err);
    start = clock_mono_ns();
    while (rc == 0 && (r.images == 0 || (double)took < run->seconds * 1e9 || (run->in_batches && f->running > 0))) {
        rc = step(f, run, &r, err);
        took = clock_mono_ns() - start;
    }
    r.seconds = (double)took / 1e9;
    if (rc == 0)
        rc = drain(f, err);
    if (rc == 0)
        *ret = r;
    return rc;
}
