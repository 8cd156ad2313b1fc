/* cmd_stats.c - `blipline stats`: statistics of a store. */
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "console/answer.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/named_store.h"
#include "console/printable.h"
#include "console/shell.h"
#include "client/stats.h"

struct stats_options {
    const char *broker;
    bool json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct stats_options),
    {"json", 0, CLI_FLAG, offsetof(struct stats_options, json), NULL, "print one JSON object (blipline help json)", 0,
     0, NULL},
    {0},
};

/* A row for each number from the first to the last that occurs. */
static void print_histogram(const char *what, const uint64_t bins[STATS_BINS], uint64_t sum, uint64_t n)
{
    unsigned first = 0, last = STATS_BINS - 1;
    uint64_t most = 1;

    while (first < last && bins[first] == 0)
        first++;
    while (last > first && bins[last] == 0)
        last--;
    for (unsigned i = first; i <= last; i++)
        most = bins[i] > most ? bins[i] : most;
    printf("\n%s a caption: mean %.1f, median %u, 95 %% up to %u\n", what, (double)sum / (double)n,
           stats_quantile(bins, 0.5), stats_quantile(bins, 0.95));
    for (unsigned i = first; i <= last; i++) {
        int width = (int)(bins[i] * 40 / most);

        printf("  %2u%c %10" PRIu64 "  %.*s%s\n", i, i == STATS_BINS - 1 ? '+' : ' ', bins[i], width,
               "########################################", bins[i] && width == 0 ? "." : "");
    }
}

/* A histogram from the first bin that is not empty to the last. More than two empty bins in a row become "...". */
static void print_score(const char *what, const struct stats_score *s, double low, double high)
{
    unsigned first = 0, last = STATS_SCORE_BINS - 1;
    uint64_t most = 1;

    if (s->n == 0)
        return;
    while (s->bins[first] == 0)
        first++;
    while (s->bins[last] == 0)
        last--;
    for (unsigned i = first; i <= last; i++)
        most = s->bins[i] > most ? s->bins[i] : most;
    printf("\n%s: mean %.3f over %" PRIu64 "\n", what, s->sum / (double)s->n, s->n);
    for (unsigned i = first; i <= last; i++) {
        int width = (int)(s->bins[i] * 40 / most);
        unsigned empty = 0;

        while (s->bins[i + empty] == 0) /* the last bin is not empty */
            empty++;
        if (empty > 2) {
            printf("  ...\n");
            i += empty - 1;
            continue;
        }

        printf("  %6.3f to %6.3f %10" PRIu64 "  %.*s%s\n", stats_score_edge(low, high, i),
               stats_score_edge(low, high, i + 1), s->bins[i], width, "########################################",
               s->bins[i] && width == 0 ? "." : "");
    }
}

static void print_scores(const struct stats *s)
{
    print_score("ITM of generated captions", &s->itm[0], 0, 1);
    print_score("ITM of given texts", &s->itm[1], 0, 1);
    print_score("ITC of generated captions", &s->itc[0], -1, 1);
    print_score("ITC of given texts", &s->itc[1], -1, 1);
}

/* Decoding options that differ from their defaults, named as on the command line. */
static void print_decode(const struct generation_options *d)
{
    if (d->max_new_tokens == 0) {
        printf("no captions are generated\n");
        return;
    }
    printf("%s, at most %" PRIu32 " new tokens",
           d->sample        ? "sampling"
           : d->n_beams > 1 ? "beams"
                            : "greedy",
           d->max_new_tokens);
    if (d->n_beams > 1)
        printf(", %" PRIu32 " beams, length penalty %g", d->n_beams, (double)d->length_penalty);
    if (d->sample)
        printf(", temperature %g, top-k %" PRIu32 ", top-p %g, seed %" PRIu64, (double)d->temperature, d->top_k,
               (double)d->top_p, d->seed);
    if (d->min_new_tokens)
        printf(", at least %" PRIu32, d->min_new_tokens);
    if (d->n_return > 1)
        printf(", %" PRIu32 " captions per prompt", d->n_return);
    putchar('\n');
}

static void print_made(const struct stored_job_meta *m)
{
    char when[64] = "?", hex[FINGERPRINT_HEX_SIZE], source[256], prompt[256];
    time_t t = (time_t)(m->created_ms / 1000);
    struct tm tm;

    if (localtime_r(&t, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    printf("created  %s by %s\nsource   %s\n", when, m->program,
           printable_text(m->source, strlen(m->source), source, sizeof(source)));
    printf("recipe   %s", m->recipe.name);
    if (m->recipe.model[0])
        printf(" with %s", m->recipe.model);
    if (m->recipe.score_model[0])
        printf(", scored by %s", m->recipe.score_model);
    printf(": ");
    print_decode(&m->recipe.decode);
    for (uint32_t i = 0; i < m->recipe.n_prompts; i++)
        printf("prompt   \"%s\"\n",
               printable_text(m->recipe.prompts[i], strlen(m->recipe.prompts[i]), prompt, sizeof(prompt)));
    for (uint32_t i = 0; i < m->recipe.n_embeddings; i++)
        printf("keeps    %s embeddings in %s%s\n", msg_embedding_name(m->recipe.embeddings[i].kind),
               dtype_word(m->recipe.embeddings[i].dtype), m->recipe.embeddings[i].first_row ? ", first row" : "");
    if (m->recipe.exif_orientation || m->recipe.grey16_high_byte)
        printf("pixels   %s%s%s\n", m->recipe.exif_orientation ? "EXIF orientation applied" : "",
               m->recipe.exif_orientation && m->recipe.grey16_high_byte ? ", " : "",
               m->recipe.grey16_high_byte ? "upper byte of 16-bit grey" : "");
    for (uint32_t i = 0; i < m->n_nodes; i++)
        printf("%s %-8s%s\n", i ? "        " : "stages  ", stage_name(m->nodes[i].stage),
               fingerprint_is_none(&m->nodes[i].fingerprint) ? "any worker"
                                                             : fingerprint_to_hex(&m->nodes[i].fingerprint, hex));
}

static void print_words(const struct stats *s, const struct stored_job_meta *m, const struct named_store *store)
{
    const struct stored_job_counters *c = &s->counters;
    char disk[32], images[32], command[SHELL_SIZE], passed[512];

    print_made(m);
    printf("items    %" PRIu64 " in %" PRIu32 " units%s; %" PRIu64 " captions, %" PRIu64 " failed, %" PRIu64
           " not done yet\n",
           c->n_items, c->n_units, c->sealed ? "" : " (the list is not complete yet)", s->n_captions, s->n_failed,
           s->n_pending);
    if (c->n_again || c->n_redone)
        printf("again    %" PRIu64 " done again so far, %" PRIu64 " to be done again (their records stay until then)\n",
               c->n_redone, c->n_again);
    if (s->passed_over.n)
        printf("besides  passed over in the sources: %s\n", passed_over_words(&s->passed_over, passed, sizeof(passed)));
    if (s->n_given)
        printf("texts    %" PRIu64 " came with the pictures\n", s->n_given);
    printf("size     %s on disk for %s of images\n", printable_size(s->disk_bytes, disk),
           printable_size(s->image_bytes, images));
    if (s->n_damaged)
        printf("damaged  %" PRIu64 " items (%s)\n", s->n_damaged,
               named_store_hint(store, "verify", command, sizeof(command)));
    if (s->n_codes)
        printf("\nfailures\n");
    for (size_t i = 0; i < s->n_codes; i++)
        printf("  %-20s %10" PRIu64 "\n", s->codes[i].code, s->codes[i].n);
    if (s->n_attempts)
        printf("\n%" PRIu64
               " attempt%s of units failed (a worker died, stopped responding or could not do it); they were retried\n",
               s->n_attempts, cli_s(s->n_attempts));
    print_scores(s);
    if (s->n_captions == 0)
        return;
    print_histogram("tokens", s->tokens, s->n_tokens, s->n_captions);
    print_histogram("words", s->words, s->n_words, s->n_captions);
    printf("\nmean logprob %.3f a caption, %.3f a token\n", s->logprob / (double)s->n_captions,
           s->n_tokens ? s->logprob / (double)s->n_tokens : 0.0);
}

static json_t *json_histogram(const uint64_t bins[STATS_BINS])
{
    json_t *a = json_array();
    unsigned last = STATS_BINS - 1;

    while (last > 0 && bins[last] == 0)
        last--;
    for (unsigned i = 0; i <= last; i++)
        (void)json_array_append_new(a, json_integer((json_int_t)bins[i]));
    return a;
}

static json_t *json_score(const struct stats_score *s, double low, double high)
{
    json_t *bins = json_array();

    for (unsigned i = 0; i < STATS_SCORE_BINS; i++)
        (void)json_array_append_new(bins, json_integer((json_int_t)s->bins[i]));
    return json_pack("{s:I, s:f, s:f, s:f, s:o}", "n", (json_int_t)s->n, "mean", s->n ? s->sum / (double)s->n : 0.0,
                     "from", low, "to", high, "histogram", bins);
}

/* Scores, if the job computed them. */
static json_t *json_scores(const struct stats *s)
{
    static const char *const whose[2] = {"generated", "given"};
    json_t *all = json_object();

    for (int i = 0; i < 2; i++) {
        json_t *one = json_object();

        if (s->itm[i].n)
            (void)json_object_set_new(one, "itm", json_score(&s->itm[i], 0, 1));
        if (s->itc[i].n)
            (void)json_object_set_new(one, "itc", json_score(&s->itc[i], -1, 1));
        (void)json_object_set_new(all, whose[i], one);
    }
    return all;
}

static json_t *json_made(const struct stored_job_meta *m)
{
    char hex[FINGERPRINT_HEX_SIZE];
    json_t *stages = json_array();
    json_t *prompts = json_array();

    for (uint32_t i = 0; i < m->recipe.n_prompts; i++)
        (void)json_array_append_new(prompts, json_string(m->recipe.prompts[i]));

    for (uint32_t i = 0; i < m->n_nodes; i++)
        (void)json_array_append_new(stages, json_pack("{s:s, s:s, s:s}", "stage", stage_name(m->nodes[i].stage),
                                                      "model", m->nodes[i].model, "fingerprint",
                                                      fingerprint_to_hex(&m->nodes[i].fingerprint, hex)));
    return json_pack("{s:s, s:s*, s:o*, s:I, s:s, s:I, s:o}", "recipe", m->recipe.name, "model", m->recipe.model,
                     "prompts", prompts, "max_new_tokens", (json_int_t)m->recipe.decode.max_new_tokens, "program",
                     m->program, "created_ms", (json_int_t)m->created_ms, "stages", stages);
}

static void print_json(const struct stats *s, const struct stored_job_meta *m)
{
    const struct stored_job_counters *c = &s->counters;
    json_t *all = json_made(m);
    json_t *failures = json_object();

    for (size_t i = 0; i < s->n_codes; i++)
        (void)json_object_set_new(failures, s->codes[i].code, json_integer((json_int_t)s->codes[i].n));
    (void)json_object_update_new(
        all,
        json_pack("{s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:f}",
                  "done_again", (json_int_t)c->n_redone, "to_do_again", (json_int_t)c->n_again, "items",
                  (json_int_t)c->n_items, "units", (json_int_t)c->n_units, "sealed", c->sealed, "done",
                  (json_int_t)c->n_done, "captions", (json_int_t)s->n_captions, "failed", (json_int_t)s->n_failed,
                  "pending", (json_int_t)s->n_pending, "given", (json_int_t)s->n_given, "scores", json_scores(s),
                  "damaged", (json_int_t)s->n_damaged, "image_bytes", (json_int_t)s->image_bytes, "failures", failures,
                  "disk_bytes", (json_int_t)s->disk_bytes, "tokens", (json_int_t)s->n_tokens, "tokens_histogram",
                  json_histogram(s->tokens), "words_histogram", json_histogram(s->words), "mean_logprob",
                  s->n_captions ? s->logprob / (double)s->n_captions : 0.0));
    (void)json_object_set_new(all, "failed_attempts", json_integer((json_int_t)s->n_attempts));
    (void)json_object_set_new(all, "passed_over", passed_over_json(&s->passed_over));
    answer_print("stats", all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
}

static int show(struct named_store *store, bool json)
{
    struct err err = {""};
    struct stats s;
    int rc = stats_collect(store->reader, &s, &err);

    if (rc < 0)
        return named_store_fail(store, rc, &err);
    if (json)
        print_json(&s, reader_meta(store->reader));
    else
        print_words(&s, reader_meta(store->reader), store);
    return s.n_damaged == 0 ? CLI_EXIT_OK : CLI_EXIT_ERROR;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct stats_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o), code;
    struct named_store store;

    if (n_args < 0)
        return cli_exit_code(n_args);
    code = named_store_open("stats", o.broker, argv[argc - 1], &store);
    if (code == CLI_EXIT_OK)
        code = show(&store, o.json);
    named_store_close(&store);
    return code;
}

const struct cli_command cmd_stats = {
    .name = "stats",
    .line = "show statistics of a store or job",
    .usage = "STORE|JOB [--json]",
    .about = HELP_STATS,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
