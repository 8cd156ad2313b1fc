/* bench_stages - each CPU stage against the products it is made of.
 *
 *     bench_stages [MODEL_DIR [THREADS [SECONDS [STAGE [DTYPE]]]]] default: models/blip2-opt-demo, 2 threads, 5 s, all,
 *     F32
 *
 * The ceiling of a stage is the sum over its distinct products of count x measured time (packed weights, the same
 * threads, attention's two products included; tests/bench/products.h). Printed: that table, what the stage takes, and
 * the share of the ceiling it reaches. Weights decide nothing here but the end of a caption: the language model runs 20
 * forced tokens. */
#include "base/clock.h"
#include "model/checkpoint.h"
#include "tensor/device.h"
#include "tests/bench/budget.h"
#include "tests/bench/products.h"
#include "tests/bench/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VIT_BATCH = 16 /* and of the Q-Former */, LLM_BATCH = 64, NEW_TOKENS = 20 };

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_stages: %s: %s\n", what, err ? err->text : "failed");
    exit(1);
}

/* The line's name with its shape, and what it takes once. */
static double line_ns(const struct budget_line *l, enum dtype dtype, int threads, char *ret_name, size_t name_size)
{
    if (l->kind == BUDGET_PRODUCT) {
        (void)snprintf(ret_name, name_size, "%-9s %6lld x %5lld x %5lld", l->what, (long long)l->m, (long long)l->n,
                       (long long)l->k);
        return bench_product_dtype_ns(dtype, threads, l->m, l->n, l->k);
    }
    (void)snprintf(ret_name, name_size, "%-9s %4lld x%2d heads %3lld:%3lld", l->what, (long long)l->n_seqs, l->n_heads,
                   (long long)l->q, (long long)l->kv);
    return bench_attention_products_ns(threads, l->n_seqs, l->n_heads, l->head_dim, l->q, l->kv);
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

static void report(const char *stage, const struct budget *b, enum dtype dtype, double ns, int threads)
{
    double ceiling = 0;

    printf("\n%s, %d images a run, %d threads\n", stage, b->n_images, threads);
    for (int i = 0; i < b->n_lines; i++) {
        const struct budget_line *l = &b->lines[i];
        char name[96];
        const double once = line_ns(l, dtype, threads, name, sizeof(name)), total = l->count * once;

        ceiling += total;
        printf("  %-34s x %3.0f  %9.1f us each  %7.2f ms  %6.1f GFLOP/s\n", name, l->count, once / 1e3, total / 1e6,
               budget_line_flop(l) / once);
    }
    printf("  products %.2f ms, stage %.2f ms: %.0f %% of the ceiling; %.1f img/s; %.2f GFLOP an image\n",
           ceiling / 1e6, ns / 1e6, 100 * ceiling / ns, b->n_images / ns * 1e9, budget_flop(b) / b->n_images / 1e9);
    printf("CSV,%s%s,%d,%.3f,%.3f,%.3f,%.1f\n", stage, dtype == DTYPE_F32 ? "" : "-bf16", threads, ceiling / 1e6,
           ns / 1e6, ceiling / ns, b->n_images / ns * 1e9);
}

/* A pass of the language model takes prompts as its row limit allows; their products are counted as if all ran
 * together. */
static void bench_table(const char *stage, const struct checkpoint *c, struct ops *o, int threads, double seconds)
{
    const int n_images = strcmp(stage, "llm") == 0 ? LLM_BATCH : VIT_BATCH;
    const double ns = stage_ns(stage, c, o, n_images, seconds);
    struct budget b;

    if (strcmp(stage, "encoder") == 0)
        budget_encoder(&c->config, n_images, &b);
    else if (strcmp(stage, "qformer") == 0)
        budget_qformer(&c->config, n_images, &b);
    else
        budget_lm(&c->config, n_images, 1, NEW_TOKENS, &b);
    report(stage, &b, o->act_dtype, ns, threads);
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
        bench_table("encoder", c, o, threads, seconds);
    if (!stage || strcmp(stage, "qformer") == 0)
        bench_table("qformer", c, o, threads, seconds);
    if (c->config.qformer.has_text && (!stage || strcmp(stage, "score") == 0))
        bench_rate("score", VIT_BATCH, c, o, threads, seconds);
    if (c->config.lm != CONFIG_LM_NONE && (!stage || strcmp(stage, "llm") == 0))
        bench_table("llm", c, o, threads, seconds);
    if (c->config.lm != CONFIG_LM_NONE && (!stage || strcmp(stage, "beams") == 0))
        bench_rate("beams", LLM_BATCH, c, o, threads, seconds);
    ops_free(o);
    checkpoint_free(c);
    return 0;
}
