/* bench_gpu - the stages of one checkpoint on a GPU, each beside the ceiling that the card reaches in the same run.
 *
 *     bench_gpu MODEL_DIR [--only encoder,llm] [--batches 64,256] [--seconds 10] [--dtype bf16|fp8|fp16|fp32] [--json
 *     FILE] ... bench_gpu MODEL_DIR --serve commands on stdin, answers on stdout (tests/bench/gpu.py drives it)
 *
 * A row: part, images (requests) at once, images a second, time of one run of the batch, TFLOP/s of the stage's
 * products and attentions by formula (tests/bench/budget.h), and the share that those alone, measured right after it,
 * take of the stage's time (tests/bench/gpu_ceiling.h). copy has GB/s instead. Without the device: one line, exit code
 * 77. A command is {"part": "encoder", "batch": 256, "seconds": 10, "ceiling": 10}; {"part": "close"} frees the
 * stage. */
#include "base/clock.h"
#include "model/checkpoint.h"
#include "tensor/device.h"
#include "tests/bench/budget.h"
#include "tests/bench/gpu_ceiling.h"
#include "tests/bench/llm_flow.h"
#include "tests/bench/stages.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BEAMS = 5, EXIT_SKIPPED = 77, MAX_BATCHES = 16 };

struct bench {
    struct ops *ops;
    struct checkpoint *checkpoint;
    const char *dir, *dtype, *device;
    int n_new, pass_rows;
    struct bench_stage *stage; /* what is open, and for what */
    struct llm_flow *flow;
    char open[32];
    int capacity;
};

struct part {
    const char *name, *model; /* what is open for it */
    const char *batches;      /* by default */
    int (*measure)(struct bench *b, const struct part *p, int batch, double seconds, json_t *out, struct budget *budget,
                   struct err *err);
    int n_beams;
    bool natural, in_batches;
};

static void put(json_t *to, const char *key, double value)
{
    (void)json_object_set_new(to, key, json_real(value));
}

static void die(const char *what, const struct err *err)
{
    (void)fprintf(stderr, "bench_gpu: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    exit(1);
}

/* -- what is open -- */

static void close_model(struct bench *b)
{
    bench_stage_free(b->stage);
    llm_flow_free(b->flow);
    b->stage = NULL;
    b->flow = NULL;
    b->open[0] = '\0';
}

/* The part's model with room for `batch`; the one that is open stays if it will do. */
static int open_model(struct bench *b, const struct part *p, int batch, struct err *err)
{
    int rc;

    if (strcmp(b->open, p->model) == 0 && batch <= b->capacity)
        return 0;
    close_model(b);
    if (p->n_beams)
        rc = b->checkpoint->config.lm == CONFIG_LM_NONE
                 ? err_set(err, -ENOTSUP, "the checkpoint has no language model")
                 : llm_flow_new(b->ops, b->checkpoint,
                                &(struct llm_flow_conf){
                                    .most = batch, .n_beams = p->n_beams, .n_new = b->n_new, .pass_rows = b->pass_rows},
                                &b->flow, err);
    else
        rc = bench_stage_new(bench_stage_find(p->model), b->checkpoint, b->ops, batch, b->n_new, &b->stage, err);
    if (rc < 0)
        return rc;
    (void)snprintf(b->open, sizeof(b->open), "%s", p->model);
    b->capacity = batch;
    return 0;
}

/* -- parts -- */

static int measure_stage(struct bench *b, const struct part *p, int batch, double seconds, json_t *out,
                         struct budget *budget, struct err *err)
{
    int64_t start, took = 0, n = 0;
    int rc;

    b->stage->n_images = batch;
    rc = bench_stage_run(b->stage);
    start = clock_mono_ns();
    while (rc == 0 && (n == 0 || (double)took < seconds * 1e9)) {
        rc = bench_stage_run(b->stage);
        took = clock_mono_ns() - start;
        n++;
    }
    if (rc < 0)
        return err_set(err, rc, "%s", b->ops->why.text[0] ? b->ops->why.text : strerror(-rc));
    put(out, "seconds", (double)took / 1e9);
    put(out, "ms", (double)took / 1e6 / (double)n);
    (void)json_object_set_new(out, "images", json_integer(n * batch));
    put(out, "images_per_s", (double)(n * batch) / ((double)took / 1e9));
    if (strcmp(p->name, "encoder") == 0)
        budget_encoder(&b->checkpoint->config, batch, budget);
    else if (strncmp(p->name, "qformer", strlen("qformer")) == 0)
        budget_qformer(&b->checkpoint->config, batch, budget);
    return 0;
}

static int measure_flow(struct bench *b, const struct part *p, int batch, double seconds, json_t *out,
                        struct budget *budget, struct err *err)
{
    const struct llm_flow_run run = {
        .at_once = batch, .natural = p->natural, .in_batches = p->in_batches, .seconds = seconds};
    struct llm_flow_result r;
    int rc = llm_flow_run(b->flow, &run, &r, err);

    if (rc < 0)
        return rc;
    put(out, "seconds", r.seconds);
    put(out, "ms", 1e3 * r.seconds * batch / (double)r.images);
    (void)json_object_set_new(out, "images", json_integer(r.images));
    (void)json_object_set_new(out, "tokens", json_integer(r.tokens));
    (void)json_object_set_new(out, "steps", json_integer(r.steps));
    put(out, "images_per_s", (double)r.images / r.seconds);
    put(out, "tokens_per_s", (double)r.tokens / r.seconds);
    put(out, "cache_bytes", (double)llm_flow_cache_bytes(b->flow));
    budget_lm(&b->checkpoint->config, batch, p->n_beams, (double)r.tokens / (double)r.images, budget);
    return 0;
}

static int measure_copy(struct bench *b, const struct part *p, int batch, double seconds, json_t *out,
                        struct budget *budget, struct err *err)
{
    struct gpu_bandwidth w;
    int rc = gpu_bandwidth_measure(b->ops, seconds, &w, err);

    (void)p;
    (void)batch;
    (void)budget;
    if (rc < 0)
        return rc;
    put(out, "gb_per_s", w.copy_gb_s);
    put(out, "upload_gb_per_s", w.upload_gb_s);
    put(out, "download_gb_per_s", w.download_gb_s);
    return 0;
}

static const struct part parts[] = {
    {"copy", "", "1", measure_copy, 0, false, false},
    {"encoder", "encoder", "32,64,128,256,512", measure_stage, 0, false, false},
    {"qformer", "qformer", "64,256", measure_stage, 0, false, false},
    {"qformer-device", "qformer-device", "64,256", measure_stage, 0, false, false},
    {"score", "score", "64", measure_stage, 0, false, false},
    {"llm", "llm", "64,128,256,512,768", measure_flow, 1, false, false},
    {"llm-batches", "llm", "256", measure_flow, 1, false, true},
    {"natural", "llm", "256", measure_flow, 1, true, false},
    {"natural-batches", "llm", "256", measure_flow, 1, true, true},
    {"beams", "beams", "64", measure_flow, N_BEAMS, false, false},
    {.name = NULL},
};

static const struct part *find_part(const char *name)
{
    for (const struct part *p = parts; p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* The products and attentions of what was just measured, alone. */
static int add_ceiling(struct bench *b, const struct budget *budget, double seconds, json_t *out, struct err *err)
{
    const double stage_s = json_real_value(json_object_get(out, "ms")) / 1e3;
    struct gpu_ceiling c;
    int rc;

    put(out, "tflops", budget_flop(budget) / stage_s / 1e12);
    put(out, "gflop_per_image", budget_flop(budget) / budget->n_images / 1e9);
    if (seconds <= 0)
        return 0;
    rc = gpu_ceiling_measure(b->ops, budget, seconds, &c, err);
    if (rc < 0)
        return rc;
    put(out, "products_ms", 1e3 * c.products_s);
    put(out, "products_tflops", c.products_flop / c.products_s / 1e12);
    put(out, "attention_ms", 1e3 * c.attention_s);
    put(out, "attention_tflops", c.attention_flop / c.attention_s / 1e12);
    if (c.kv_bytes > 0)
        put(out, "kv_gb", c.kv_bytes / 1e9);
    put(out, "share", (c.products_s + c.attention_s) / stage_s);
    return 0;
}

/* Always gives an object: the answer, or what went wrong. */
static json_t *measure(struct bench *b, const struct part *p, int batch, double seconds, double ceiling_s)
{
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "who", "blipline", "dtype", b->dtype, "device", b->device,
                            "model", b->dir, "part", p->name, "batch", batch);
    struct budget budget = {0};
    struct err err = {""};
    int rc = p->model[0] ? open_model(b, p, batch, &err) : 0;

    if (rc == 0)
        rc = p->measure(b, p, batch, seconds, out, &budget, &err);
    if (rc == 0 && budget.n_lines)
        rc = add_ceiling(b, &budget, ceiling_s, out, &err);
    if (rc < 0)
        (void)json_object_set_new(out, "error", json_string(err.text[0] ? err.text : strerror(-rc)));
    return out;
}

/* -- serving -- */

static int serve(struct bench *b)
{
    char *line = NULL;
    size_t size = 0;

    while (getline(&line, &size, stdin) > 0) {
        json_t *in = json_loads(line, 0, NULL), *out;
        const char *name = json_string_value(json_object_get(in, "part"));
        const struct part *p = find_part(name ? name : "");

        if (p) {
            out = measure(b, p, (int)json_integer_value(json_object_get(in, "batch")),
                          json_number_value(json_object_get(in, "seconds")),
                          json_number_value(json_object_get(in, "ceiling")));
        } else {
            out = json_pack("{s:s, s:s?}", "who", "blipline", "part", name);
            if (!name || strcmp(name, "close") != 0)
                (void)json_object_set_new(out, "error", json_string("no such part"));
            close_model(b);
        }
        (void)json_dumpf(out, stdout, JSON_REAL_PRECISION(8));
        (void)puts("");
        (void)fflush(stdout);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}

/* -- a table -- */

struct options {
    const char *dir, *only, *batches, *json, *library;
    double seconds, ceiling_s, limit_s, memory_share;
    int rounds, threads;
    bool serve;
};

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void print_row(const json_t *r)
{
    const char *error = json_string_value(json_object_get(r, "error"));
    const char *part = json_string_value(json_object_get(r, "part"));

    printf("  %-16s %-5s %5d ", part, json_string_value(json_object_get(r, "dtype")), (int)number(r, "batch"));
    if (error)
        printf(" %s\n", error);
    else if (json_object_get(r, "gb_per_s"))
        printf("%9.0f GB/s in the device, %.1f up, %.1f down\n", number(r, "gb_per_s"), number(r, "upload_gb_per_s"),
               number(r, "download_gb_per_s"));
    else {
        printf("%9.1f img/s %9.2f ms", number(r, "images_per_s"), number(r, "ms"));
        if (json_object_get(r, "tflops"))
            printf(" %7.1f TFLOP/s", number(r, "tflops"));
        if (json_object_get(r, "share"))
            printf("  %3.0f %% of the ceiling (products %.1f TFLOP/s, attention %.1f)", 100 * number(r, "share"),
                   number(r, "products_tflops"), number(r, "attention_tflops"));
        printf("\n");
    }
    (void)fflush(stdout);
}

static void keep(const char *path, const json_t *r)
{
    FILE *f = path ? fopen(path, "a") : NULL;

    if (path && !f)
        die(path, &(struct err){"cannot be written"});
    if (!f)
        return;
    (void)json_dumpf(r, f, JSON_REAL_PRECISION(8));
    (void)fputc('\n', f);
    (void)fclose(f);
}

/* Largest first: what is open for it serves the smaller ones too. */
static int parse_batches(const char *text, int ret[MAX_BATCHES])
{
    int n = 0;

    for (const char *p = text; *p && n < MAX_BATCHES; p += *p == ',') {
        char *end;

        ret[n++] = (int)strtol(p, &end, 10);
        if (end == p || ret[n - 1] < 1)
            die("--batches wants numbers and commas", NULL);
        for (int i = n - 1; i > 0 && ret[i] > ret[i - 1]; i--) {
            const int t = ret[i];

            ret[i] = ret[i - 1];
            ret[i - 1] = t;
        }
        p = end;
    }
    return n;
}

static bool wanted(const struct bench *b, const struct options *q, const struct part *p)
{
    const size_t n = strlen(p->name);

    if (!q->only)
        return (b->checkpoint->config.lm != CONFIG_LM_NONE || !p->n_beams) &&
               (b->checkpoint->config.qformer.has_text || strcmp(p->name, "score") != 0);
    for (const char *at = q->only; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, p->name, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

static void table(struct bench *b, const struct options *q)
{
    const int64_t start = clock_mono_ms();

    printf("bench_gpu: %s, %s on %s, %d new tokens, %.3g s a measurement\n", b->dir, b->dtype, b->device, b->n_new,
           q->seconds);
    for (int round = 0; round < q->rounds; round++)
        for (const struct part *p = parts; p->name; p++) {
            int batches[MAX_BATCHES], n = parse_batches(q->batches && p->model[0] ? q->batches : p->batches, batches);

            for (int i = 0; i < n && wanted(b, q, p); i++) {
                json_t *r;

                if (q->limit_s > 0 && (double)(clock_mono_ms() - start) / 1e3 > q->limit_s) {
                    printf("  %-16s left out: --limit %g s are over\n", p->name, q->limit_s);
                    break;
                }
                r = measure(b, p, batches[i], q->seconds, q->ceiling_s);
                print_row(r);
                keep(q->json, r);
                json_decref(r);
            }
        }
}

/* -- main -- */

static const char usage[] =
    "usage: bench_gpu MODEL_DIR [OPTIONS]\n"
    "  --only PARTS     of copy, encoder, qformer, qformer-device, score, llm, llm-batches, natural, natural-batches,\n"
    "                   beams (all that the checkpoint has)\n"
    "  --batches LIST   images or requests at once, for every part but copy (each part has its own)\n"
    "  --seconds S      of a measurement, at least (10; 2 is a quick look: a card's power limit shows later)\n"
    "  --ceiling S      of the products alone, and of the attentions (as --seconds; 0: none)\n"
    "  --limit S        begin nothing new after this long (0: never)\n"
    "  --rounds N       all of it N times (1)\n"
    "  --dtype TYPE     bf16 (default), fp8, fp16, fp32\n"
    "  --device NAME    cuda:0 (default), another GPU, or cpu\n"
    "  --cuda-library FILE\n"
    "                   the CUDA operators (beside the program, or what BLIPLINE_TEST_CUDA_LIBRARY names)\n"
    "  --memory-share X of the card's memory (0.9)\n"
    "  --new-tokens N   forced, of each caption (20)\n"
    "  --pass-rows N    rows of prompts in one pass of the language model (as the worker on a GPU)\n"
    "  --threads N      of the host (4)\n"
    "  --json FILE      append each row as a JSON object\n"
    "  --serve          commands on stdin\n";

/* One of the pointers is where the value goes. */
struct option_place {
    const char *name;
    const char **text;
    double *number;
    int *integer;
};

/* Where argv[i] is "--name" of a place: take the value that follows it. Returns how many arguments were used; 0: no
 * option that is known, or a value is missing. */
static int take_option(const struct option_place *places, char **argv)
{
    for (const struct option_place *p = places; p->name; p++) {
        if (strncmp(argv[0], "--", 2) != 0 || strcmp(argv[0] + 2, p->name) != 0 || !argv[1])
            continue;
        if (p->text)
            *p->text = argv[1];
        else if (p->number)
            *p->number = atof(argv[1]);
        else
            *p->integer = atoi(argv[1]);
        return 2;
    }
    return 0;
}

static void parse(int argc, char **argv, struct bench *b, struct options *q)
{
    const struct option_place places[] = {{"only", .text = &q->only},
                                          {"batches", .text = &q->batches},
                                          {"seconds", .number = &q->seconds},
                                          {"ceiling", .number = &q->ceiling_s},
                                          {"limit", .number = &q->limit_s},
                                          {"rounds", .integer = &q->rounds},
                                          {"dtype", .text = &b->dtype},
                                          {"device", .text = &b->device},
                                          {"cuda-library", .text = &q->library},
                                          {"memory-share", .number = &q->memory_share},
                                          {"new-tokens", .integer = &b->n_new},
                                          {"pass-rows", .integer = &b->pass_rows},
                                          {"threads", .integer = &q->threads},
                                          {"json", .text = &q->json},
                                          {.name = NULL}};

    for (int i = 1; i < argc;) {
        int used = take_option(places, argv + i);

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            (void)fputs(usage, stdout);
            exit(0);
        }
        if (used == 0 && strcmp(argv[i], "--serve") == 0) {
            q->serve = true;
            used = 1;
        }
        if (used == 0 && argv[i][0] != '-' && !b->dir) {
            b->dir = argv[i];
            used = 1;
        }
        if (used == 0)
            break;
        i += used;
        if (i == argc && b->dir && b->n_new > 0)
            return;
    }
    (void)fputs(usage, stderr);
    exit(2);
}

/* The device, or one line and the end. */
static void open_device(struct bench *b, const struct options *q)
{
    struct device_conf conf = {.device = b->device,
                               .cuda_library = q->library ? q->library : getenv("BLIPLINE_TEST_CUDA_LIBRARY"),
                               .n_threads = q->threads,
                               .act_dtype = DTYPE_BF16,
                               .fp8 = strcmp(b->dtype, "fp8") == 0,
                               .memory_share = q->memory_share};
    struct err err = {""};
    int rc;

    if (!conf.fp8 && dtype_parse(b->dtype, &conf.act_dtype) < 0)
        die("--dtype: bf16, fp8, fp16 or fp32 is wanted", NULL);
    rc = device_open(&conf, &b->ops, &err);
    if (rc == -ENODEV || (rc == -ENOTSUP && device_is_cuda(b->device))) {
        (void)fprintf(stderr, "bench_gpu: skipped: %s\n", err.text);
        exit(EXIT_SKIPPED);
    }
    if (rc < 0)
        die(b->device, &err);
}

int main(int argc, char **argv)
{
    struct bench b = {.dtype = "bf16", .device = "cuda:0", .n_new = 20};
    struct options q = {.seconds = 10, .ceiling_s = -1, .memory_share = 0.9, .rounds = 1, .threads = 4};
    struct err err = {""};

    parse(argc, argv, &b, &q);
    if (q.ceiling_s < 0)
        q.ceiling_s = q.seconds;
    open_device(&b, &q);
    if (checkpoint_open(b.dir, &b.checkpoint, &err) < 0)
        die(b.dir, &err);
    if (q.serve)
        (void)serve(&b);
    else
        table(&b, &q);
    close_model(&b);
    checkpoint_free(b.checkpoint);
    ops_free(b.ops);
    return 0;
}
