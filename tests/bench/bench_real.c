/* bench_real - one stage of one checkpoint as its daemon loads it: times, rate, and memory against the rule.
 *
 *     bench_real MODEL_DIR STAGE [THREADS [SECONDS [IMAGES [NEW_TOKENS [DTYPE]]]]] one JSON object; real_size.py reads
 *     it bench_real MODEL_DIR check the whole checkpoint against its config.json
 *
 * The order is the daemon's: check the stage's tensors, load, fingerprint (which reads every byte), run. The rule: the
 * most that is ever resident (VmHWM) is at most 1.1 x the packed weights + 1.5 GiB, the KV cache included. One stage a
 * process, because the high-water mark is the process's. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"
#include "tensor/device.h"
#include "tests/bench/stages.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double slack_bytes = 1.5 * (1 << 30);

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_real: %s: %s\n", what, err ? err->text : "failed");
    exit(1);
}

/* A line of /proc/self/status in bytes, 0 where there is none. */
static double status_bytes(const char *key)
{
    struct buf text = {0};
    double kib = 0;
    char *at;

    if (file_read("/proc/self/status", 1 << 16, &text, NULL) == 0 && buf_append(&text, "", 1) == 0) {
        at = strstr((char *)text.data, key);
        if (at)
            kib = strtod(at + strlen(key) + 1, NULL);
    }
    buf_release(&text);
    return kib * 1024;
}

/* The high-water mark starts again from what is resident now. */
static void reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");

    if (!f)
        return;
    (void)fputs("5", f);
    (void)fclose(f);
}

/* Tables are read in place from the file, row by row. The tied embedding of OPT is packed as the head. */
static bool is_table(const struct checkpoint *c, const char *name)
{
    static const char *const tables[] = {"language_model.model.decoder.embed_positions.weight",
                                         "language_model.shared.weight", "embeddings.word_embeddings.weight",
                                         "embeddings.position_embeddings.weight"};

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        if (strcmp(name, tables[i]) == 0)
            return strcmp(name, "language_model.shared.weight") != 0 ||
                   safetensors_find(c->tensors, "language_model.lm_head.weight") != NULL;
    return strcmp(name, "language_model.model.decoder.embed_tokens.weight") == 0 &&
           safetensors_find(c->tensors, "language_model.lm_head.weight") != NULL;
}

/* The stage's parameters in the data type of the arithmetic, and as they are in the file. */
static void weigh(const struct checkpoint *c, enum stage stage, enum dtype dtype, double *ret_packed, double *ret_file)
{
    *ret_packed = *ret_file = 0;
    for (size_t i = 0; i < c->weights.n_specs; i++) {
        const struct weight_spec *s = &c->weights.specs[i];
        const struct safetensors_entry *e = safetensors_find(c->tensors, s->name);
        int64_t n;

        if (s->stage != stage || s->kind == WEIGHT_ALIAS || !e || tensor_n_elements(&e->tensor, &n) < 0)
            continue;
        *ret_file += (double)e->size_bytes;
        if (!is_table(c, s->name))
            *ret_packed += (double)n * (double)dtype_size_bytes(dtype);
    }
}

/* The shortest of the runs that fit `seconds`, the first one apart if there is more than one: it makes oneDNN's
 * primitives and touches memory. */
static double run_s(struct bench_stage *s, double seconds, double *ret_first_s, int *ret_n)
{
    const int64_t until = clock_mono_ns() + (int64_t)(seconds * 1e9);
    double best = 0;

    *ret_n = 0;
    do {
        const int64_t start = clock_mono_ns();

        if (bench_stage_run(s) < 0)
            die("run", NULL);
        const double took = (double)(clock_mono_ns() - start) / 1e9;

        if (*ret_n == 0)
            *ret_first_s = took;
        else if (*ret_n == 1 || took < best)
            best = took;
        ++*ret_n;
    } while (clock_mono_ns() < until);
    return *ret_n == 1 ? *ret_first_s : best;
}

struct options {
    const char *dir;
    const struct bench_stage_kind *kind;
    int threads, n_images, n_new;
    double seconds;
    enum dtype dtype;
};

static double elapsed_s(int64_t *since_ns)
{
    const int64_t now = clock_mono_ns(), start = *since_ns;

    *since_ns = now;
    return (double)(now - start) / 1e9;
}

static void put(json_t *to, const char *key, double value)
{
    (void)json_object_set_new(to, key, json_real(value));
}

/* Peak and what remains after a phase; the next one counts its own peak. Returns the peak. */
static double put_memory(json_t *to, const char *phase)
{
    const double peak = status_bytes("VmHWM:");
    json_t *row = json_object();

    put(row, "peak", peak);
    put(row, "anon", status_bytes("RssAnon:"));
    put(row, "file", status_bytes("RssFile:"));
    (void)json_object_set_new(to, phase, row);
    reset_peak();
    return peak;
}

static struct checkpoint *open_checkpoint(const char *dir, unsigned stages)
{
    struct checkpoint *c;
    struct err err;

    if (checkpoint_open(dir, &c, &err) < 0 || checkpoint_check(c, stages, &err) < 0)
        die(dir, &err);
    return c;
}

static void measure(const struct options *q, json_t *out)
{
    struct fingerprint fingerprint;
    struct bench_stage *stage;
    struct err err;
    struct ops *o;
    json_t *memory = json_object();
    double packed, in_file, first_s, peak = 0, limit, p;
    int64_t clock_ns = clock_mono_ns();
    int n_runs;

    if (device_open(&(struct device_conf){.device = "cpu", .n_threads = q->threads, .act_dtype = q->dtype}, &o, &err) <
        0)
        die("device", &err);
    struct checkpoint *c = open_checkpoint(q->dir, STAGE_BIT(q->kind->weights));

    put(out, "open_s", elapsed_s(&clock_ns));
    if (bench_stage_new(q->kind, c, o, q->n_images, q->n_new, &stage, &err) < 0)
        die(q->dir, &err);
    put(out, "load_s", elapsed_s(&clock_ns));
    peak = put_memory(memory, "load");
    clock_ns = clock_mono_ns();
    if (stage_fingerprint(c, q->kind->weights, q->dtype, &fingerprint, &err) < 0)
        die(q->dir, &err);
    put(out, "fingerprint_s", elapsed_s(&clock_ns));
    p = put_memory(memory, "fingerprint");
    peak = p > peak ? p : peak;
    const double seconds = run_s(stage, q->seconds, &first_s, &n_runs);

    p = put_memory(memory, "run");
    peak = p > peak ? p : peak;
    weigh(c, q->kind->weights, q->dtype, &packed, &in_file);
    limit = 1.1 * packed + slack_bytes;
    put(out, "run_s", seconds);
    put(out, "first_run_s", first_s);
    (void)json_object_set_new(out, "n_runs", json_integer(n_runs));
    put(out, "images_per_s", q->n_images / seconds);
    if (q->kind->weights == STAGE_LLM)
        put(out, "tokens_per_s", q->n_images * q->n_new / seconds);
    put(out, "file_bytes", in_file);
    put(out, "packed_bytes", packed);
    put(out, "cache_bytes", (double)stage->cache_bytes);
    put(out, "peak_bytes", peak);
    put(out, "limit_bytes", limit);
    (void)json_object_set_new(out, "within_limit", json_boolean(peak <= limit));
    (void)json_object_set_new(out, "memory", memory);
    bench_stage_free(stage);
    checkpoint_free(c);
    ops_free(o);
}

int main(int argc, char **argv)
{
    struct options q = {.dir = argc > 1 ? argv[1] : "models/blip2-opt-demo",
                        .threads = argc > 3 ? atoi(argv[3]) : 2,
                        .seconds = argc > 4 ? atof(argv[4]) : 5,
                        .n_images = argc > 5 ? atoi(argv[5]) : 4,
                        .n_new = argc > 6 ? atoi(argv[6]) : 20};
    const char *stage = argc > 2 ? argv[2] : "check";
    json_t *out = json_object();

    if (dtype_parse(argc > 7 ? argv[7] : "F32", &q.dtype) < 0 || q.threads < 1 || q.n_images < 1 || q.n_new < 1)
        die("usage: bench_real MODEL_DIR STAGE [THREADS [SECONDS [IMAGES [NEW_TOKENS [DTYPE]]]]]", NULL);
    (void)json_object_set_new(out, "model", json_string(q.dir));
    (void)json_object_set_new(out, "stage", json_string(stage));
    if (strcmp(stage, "check") == 0) {
        int64_t clock_ns = clock_mono_ns();

        checkpoint_free(open_checkpoint(q.dir, STAGES_ALL));
        put(out, "open_s", elapsed_s(&clock_ns));
    } else {
        q.kind = bench_stage_find(stage);
        if (!q.kind)
            die(stage, &(struct err){"no such stage"});
        (void)json_object_set_new(out, "dtype", json_string(dtype_name(q.dtype)));
        (void)json_object_set_new(out, "threads", json_integer(q.threads));
        (void)json_object_set_new(out, "images", json_integer(q.n_images));
        (void)json_object_set_new(out, "new_tokens", json_integer(q.n_new));
        measure(&q, out);
    }
    (void)json_dumpf(out, stdout, JSON_REAL_PRECISION(6));
    (void)puts("");
    json_decref(out);
    return 0;
}
