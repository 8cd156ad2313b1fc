/* bench_stages - each CPU stage against the products it is made of.
 *
 *     bench_stages [MODEL_DIR [THREADS [SECONDS [STAGE [DTYPE]]]]]   default: models/blip2-opt-demo, 2 threads, 5 s, all, F32
 *
 * The ceiling of a stage is the sum over its distinct products of count x measured time (packed weights, the same
 * threads, attention's two products included; tests/bench/products.h). Printed: that table, what the stage takes, and
 * the share of the ceiling it reaches. Weights decide nothing here but the end of a caption: the language model runs 20
 * forced tokens. */
#include "base/clock.h"
#include "model/checkpoint.h"
#include "tensor/device.h"
#include "tests/bench/products.h"
#include "tests/bench/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VIT_BATCH = 16, QFORMER_BATCH = 16, LLM_BATCH = 64, NEW_TOKENS = 20, MAX_LINES = 32 };

struct budget {
    const char *stage;
    int n_images; /* of one run */
    enum dtype dtype;
    int n_lines;
    struct {
        char name[96];
        double count, ns, flop;
    } lines[MAX_LINES];
};

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_stages: %s: %s\n", what, err ? err->text : "failed");
    exit(1);
}

static void add_line(struct budget *b, const char *name, double count, double ns, double flop)
{
    (void)snprintf(b->lines[b->n_lines].name, sizeof(b->lines[0].name), "%s", name);
    b->lines[b->n_lines].count = count;
    b->lines[b->n_lines].flop = flop;
    b->lines[b->n_lines++].ns = ns;
}

static void add_product(struct budget *b, int threads, const char *what, double count, int64_t m, int64_t n, int64_t k)
{
    char name[96];

    (void)snprintf(name, sizeof(name), "%-9s %6lld x %5lld x %5lld", what, (long long)m, (long long)n, (long long)k);
    add_line(b, name, count, bench_product_dtype_ns(b->dtype, threads, m, n, k),
             2.0 * (double)m * (double)n * (double)k);
}

static void add_attention(struct budget *b, int threads, const char *what, double count, int64_t n, int heads, int d,
                          int64_t q, int64_t kv)
{
    char name[96];

    (void)snprintf(name, sizeof(name), "%-9s %4lld x%2d heads %3lld:%3lld", what, (long long)n, heads, (long long)q,
                   (long long)kv);
    add_line(b, name, count, bench_attention_products_ns(threads, n, heads, d, q, kv),
             4.0 * (double)n * heads * d * (double)q * (double)kv);
}

/* One run of the stage, the median of runs that fill `seconds`. */
static double measure_ns(struct bench_stage *s, double seconds)
{
    double times[4096];
    const int64_t until = clock_mono_ns() + (int64_t)(seconds * 1e9);
    int n = 0;

    if (bench_stage_run(s) < 0) /* warm */
        die("run", NULL);
    do {
        const int64_t start = clock_mono_ns();

        if (bench_stage_run(s) < 0)
            die("run", NULL);
        times[n++] = (double)(clock_mono_ns() - start);
    } while (n < 4096 && clock_mono_ns() < until);
    for (int i = 1; i < n; i++) /* few and nearly sorted */
        for (int k = i; k > 0 && times[k] < times[k - 1]; k--) {
            const double t = times[k];

            times[k] = times[k - 1];
            times[k - 1] = t;
        }
    return times[n / 2];
}

/* Load the stage, measure a run, let it go. */
static double stage_ns(const char *name, const struct checkpoint *c, struct ops *o, int n_images, double seconds)
{
    struct bench_stage *s;
    struct err err;
    double ns;

    if (bench_stage_new(bench_stage_find(name), c, o, n_images, NEW_TOKENS, &s, &err) < 0)
        die(name, &err);
    ns = measure_ns(s, seconds);
    bench_stage_free(s);
    return ns;
}

static void report(const struct budget *b, double ns, int threads)
{
    double ceiling = 0, flop = 0;

    printf("\n%s, %d images a run, %d threads\n", b->stage, b->n_images, threads);
    for (int i = 0; i < b->n_lines; i++) {
        const double total = b->lines[i].count * b->lines[i].ns;

        ceiling += total;
        flop += b->lines[i].count * b->lines[i].flop;
        printf("  %-34s x %3.0f  %9.1f us each  %7.2f ms  %6.1f GFLOP/s\n", b->lines[i].name, b->lines[i].count,
               b->lines[i].ns / 1e3, total / 1e6, b->lines[i].flop / b->lines[i].ns);
    }
    printf("  products %.2f ms, stage %.2f ms: %.0f %% of the ceiling; %.1f img/s; %.2f GFLOP an image\n",
           ceiling / 1e6, ns / 1e6, 100 * ceiling / ns, b->n_images / ns * 1e9, flop / b->n_images / 1e9);
    printf("CSV,%s%s,%d,%.3f,%.3f,%.3f,%.1f\n", b->stage, b->dtype == DTYPE_F32 ? "" : "-bf16", threads, ceiling / 1e6,
           ns / 1e6, ceiling / ns, b->n_images / ns * 1e9);
}

/* -- the stages -- */

static void bench_vit(const struct checkpoint *c, struct ops *o, int threads, double seconds)
{
    const struct config_vision *v = &c->config.vision;
    const int64_t rows = (int64_t)VIT_BATCH * v->n_tokens, patches = (int64_t)VIT_BATCH * (v->n_tokens - 1);
    const double ns = stage_ns("encoder", c, o, VIT_BATCH, seconds);
    struct budget b = {.stage = "encoder", .n_images = VIT_BATCH, .dtype = o->act_dtype};

    add_product(&b, threads, "patches", 1, patches, v->width, 3 * v->patch_size * v->patch_size);
    add_product(&b, threads, "qkv", v->n_layers, rows, 3 * v->width, v->width);
    add_attention(&b, threads, "attention", v->n_layers, VIT_BATCH, v->n_heads, v->head_dim, v->n_tokens, v->n_tokens);
    add_product(&b, threads, "proj", v->n_layers, rows, v->width, v->width);
    add_product(&b, threads, "fc1", v->n_layers, rows, v->ffn_width, v->width);
    add_product(&b, threads, "fc2", v->n_layers, rows, v->width, v->ffn_width);
    report(&b, ns, threads);
}

static void bench_qformer(const struct checkpoint *c, struct ops *o, int threads, double seconds)
{
    const struct config_qformer *q = &c->config.qformer;
    const int64_t rows = (int64_t)QFORMER_BATCH * c->config.n_queries,
                  image_rows = (int64_t)QFORMER_BATCH * c->config.vision.n_tokens;
    const int n_cross = (q->n_layers + q->cross_attention_freq - 1) / q->cross_attention_freq;
    const double ns = stage_ns("qformer", c, o, QFORMER_BATCH, seconds);
    struct budget b = {.stage = "qformer", .n_images = QFORMER_BATCH, .dtype = o->act_dtype};

    add_product(&b, threads, "qkv", q->n_layers, rows, 3 * q->width, q->width);
    add_attention(&b, threads, "attention", q->n_layers, QFORMER_BATCH, q->n_heads, q->head_dim, c->config.n_queries,
                  c->config.n_queries);
    add_product(&b, threads, "dense", q->n_layers + 2 * n_cross, rows, q->width, q->width);
    add_product(&b, threads, "cross kv", n_cross, image_rows, 2 * q->width, q->vision_width);
    add_attention(&b, threads, "cross", n_cross, QFORMER_BATCH, q->n_heads, q->head_dim, c->config.n_queries,
                  c->config.vision.n_tokens);
    add_product(&b, threads, "ffn in", q->n_layers, rows, q->ffn_width, q->width);
    add_product(&b, threads, "ffn out", q->n_layers, rows, q->width, q->ffn_width);
    if (c->config.lm_width)
        add_product(&b, threads, "language", 1, rows, c->config.lm_width, q->width);
    report(&b, ns, threads);
}

static void add_opt_layer(struct budget *b, int threads, const struct config_opt *c, double count, int64_t rows)
{
    add_product(b, threads, "qkv", count, rows, 3 * c->width, c->width);
    add_product(b, threads, "out", count, rows, c->width, c->width);
    add_product(b, threads, "fc1", count, rows, c->ffn_width, c->width);
    add_product(b, threads, "fc2", count, rows, c->width, c->ffn_width);
}

static void bench_opt(const struct checkpoint *c, struct ops *o, int threads, double seconds)
{
    const struct config_opt *l = &c->config.opt;
    const int64_t prompt = c->config.n_queries + 1, steps = NEW_TOKENS - 1;
    const double ns = stage_ns("llm", c, o, LLM_BATCH, seconds);
    struct budget b = {.stage = "llm", .n_images = LLM_BATCH, .dtype = o->act_dtype};

    /* A pass takes prompts as its row limit allows; their products are counted as if all ran together. */
    add_opt_layer(&b, threads, l, l->n_layers, LLM_BATCH * prompt);
    add_attention(&b, threads, "prompt", l->n_layers, LLM_BATCH, l->n_heads, l->head_dim, prompt, prompt);
    add_opt_layer(&b, threads, l, (double)(l->n_layers * steps), LLM_BATCH);
    add_attention(&b, threads, "token", (double)(l->n_layers * steps), LLM_BATCH, l->n_heads, l->head_dim, 1,
                  prompt + steps / 2);
    add_product(&b, threads, "lm_head", NEW_TOKENS, LLM_BATCH, l->vocab_size, l->width);
    report(&b, ns, threads);
}

/* Rows of the prompts (encoder) and of one step (decoder); cross-attention's keys and values come once. */
static void add_t5_encoder(struct budget *b, int threads, const struct config_t5 *t, int64_t prompt)
{
    const int64_t rows = LLM_BATCH * prompt, inner = (int64_t)t->n_heads * t->head_dim;

    add_product(b, threads, "enc qkv", t->n_encoder_layers, rows, 3 * inner, t->width);
    add_attention(b, threads, "enc att", t->n_encoder_layers, LLM_BATCH, t->n_heads, t->head_dim, prompt, prompt);
    add_product(b, threads, "enc o", t->n_encoder_layers, rows, t->width, inner);
    add_product(b, threads, "enc wi", t->n_encoder_layers, rows, 2 * t->ffn_width, t->width);
    add_product(b, threads, "enc wo", t->n_encoder_layers, rows, t->width, t->ffn_width);
    add_product(b, threads, "cross kv", t->n_decoder_layers, rows, 2 * inner, t->width);
}

static void bench_t5(const struct checkpoint *c, struct ops *o, int threads, double seconds)
{
    const struct config_t5 *t = &c->config.t5;
    const int64_t prompt = c->config.n_queries + 1, inner = (int64_t)t->n_heads * t->head_dim;
    const double ns = stage_ns("llm", c, o, LLM_BATCH, seconds), steps = (double)t->n_decoder_layers * NEW_TOKENS;
    struct budget b = {.stage = "llm", .n_images = LLM_BATCH, .dtype = o->act_dtype};

    add_t5_encoder(&b, threads, t, prompt);
    add_product(&b, threads, "qkv", steps, LLM_BATCH, 3 * inner, t->width);
    add_attention(&b, threads, "self", steps, LLM_BATCH, t->n_heads, t->head_dim, 1, NEW_TOKENS / 2);
    add_product(&b, threads, "o, q, o", 3 * steps, LLM_BATCH, t->width, inner);
    add_attention(&b, threads, "cross", steps, LLM_BATCH, t->n_heads, t->head_dim, 1, prompt);
    add_product(&b, threads, "wi", steps, LLM_BATCH, 2 * t->ffn_width, t->width);
    add_product(&b, threads, "wo", steps, LLM_BATCH, t->width, t->ffn_width);
    add_product(&b, threads, "lm_head", NEW_TOKENS, LLM_BATCH, t->vocab_size, t->width);
    report(&b, ns, threads);
}

/* Without a table: what five beams cost beside greedy decoding, and what scores cost beside the query pass. */
static void bench_rate(const char *name, int n_images, const struct checkpoint *c, struct ops *o, int threads,
                       double seconds)
{
    const double ns = stage_ns(name, c, o, n_images, seconds);

    printf("\n%s, %d images a run, %d threads: %.2f ms; %.1f img/s\n", name, n_images, threads, ns / 1e6,
           n_images / ns * 1e9);
    printf("CSV,%s%s,%d,,%.3f,,%.1f\n", name, o->act_dtype == DTYPE_F32 ? "" : "-bf16", threads, ns / 1e6,
           n_images / ns * 1e9);
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "models/blip2-opt-demo";
    const int threads = argc > 2 ? atoi(argv[2]) : 2;
    const double seconds = argc > 3 ? atof(argv[3]) : 5;
    const char *stage = argc > 4 && strcmp(argv[4], "all") != 0 ? argv[4] : NULL;
    enum dtype dtype = DTYPE_F32;
    struct checkpoint *c;
    struct ops *o;
    struct err err = {"no such data type"};

    if ((argc > 5 && dtype_parse(argv[5], &dtype) < 0) || checkpoint_open(dir, &c, &err) < 0 ||
        device_open(&(struct device_conf){.device = "cpu", .n_threads = threads, .act_dtype = dtype}, &o, &err) < 0)
        die(dir, &err);
    printf("bench_stages: %s, %s\n", dir, dtype_name(dtype));
    if (!stage || strcmp(stage, "encoder") == 0)
        bench_vit(c, o, threads, seconds);
    if (!stage || strcmp(stage, "qformer") == 0)
        bench_qformer(c, o, threads, seconds);
    if (c->config.qformer.has_text && (!stage || strcmp(stage, "score") == 0))
        bench_rate("score", QFORMER_BATCH, c, o, threads, seconds);
    if (c->config.lm != CONFIG_LM_NONE && (!stage || strcmp(stage, "llm") == 0))
        (c->config.lm == CONFIG_LM_OPT ? bench_opt : bench_t5)(c, o, threads, seconds);
    if (c->config.lm != CONFIG_LM_NONE && (!stage || strcmp(stage, "beams") == 0))
        bench_rate("beams", LLM_BATCH, c, o, threads, seconds);
    ops_free(o);
    checkpoint_free(c);
    return 0;
}
