#include "client/plan_show.h"

#include "base/buf.h"
#include "console/printable.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} tasks[] = {
    {MSG_TASK_PROJECT, "project"}, {MSG_TASK_SCORE, "score"},       {MSG_TASK_QUERY, "query"},
    {MSG_TASK_ITC, "itc"},         {MSG_TASK_ITC_TEXT, "itc_text"}, {MSG_TASK_CLS, "cls"},
};

enum { N_TASKS = sizeof(tasks) / sizeof(*tasks) };

static const struct plan_worker *worker_of(const struct plan *p, uint32_t node)
{
    for (uint32_t i = 0; i < p->n_workers; i++)
        if (p->workers[i].nodes >> node & 1)
            return &p->workers[i];
    return NULL;
}

static void show_node(const struct plan *p, uint32_t node, FILE *out)
{
    const struct msg_node *n = &p->nodes[node];
    const struct plan_worker *w = worker_of(p, node);
    const char *between = "";

    fprintf(out, "#   %u  %-8s %s in %s", node, stage_name(n->stage), n->model,
            w && w->dtype ? dtype_word(w->dtype) : "fp32");
    if (n->needs)
        fputs(", after", out);
    for (uint32_t i = 0; i < node; i++)
        if (n->needs >> i & 1)
            fprintf(out, " %u", i);
    if (n->tasks)
        fputs("; computes ", out);
    for (int i = 0; i < N_TASKS; i++) {
        if (!(n->tasks & tasks[i].bit))
            continue;
        fprintf(out, "%s%s", between, tasks[i].name);
        between = ", ";
    }
    if (n->out_bytes)
        fprintf(out, "; sends on %" PRIu64 " bytes per picture", n->out_bytes);
    fputc('\n', out);
}

static void show_place(const struct place *at, FILE *out)
{
    fprintf(out, "#   %-15s on %s", at->name, at->device);
    if (at->memory_share > 0)
        fprintf(out, ", %.0f %% of its memory", at->memory_share * 100);
    fprintf(out, ", %d thread%s", at->n_threads, at->n_threads == 1 ? "" : "s");
    if (at->worker->stage == STAGE_ENCODE)
        fprintf(out, " and %d to decode", at->n_decode_threads);
    fputc('\n', out);
}

int plan_show(const struct plan *p, const struct placement *where, const struct recipe *r, FILE *out)
{
    struct buf text;
    int rc;

    buf_init(&text, 0);
    rc = recipe_print(r, &text);
    if (rc == 0)
        fwrite(text.data, 1, text.size_bytes, out);
    buf_release(&text);
    if (rc < 0)
        return rc;
    if (p->recipe.n_prompts)
        fputs("\n# prompts as the model reads them\n", out);
    for (uint32_t i = 0; i < p->recipe.n_prompts; i++) {
        fprintf(out, "#   %u  ", i);
        printable_write(out, p->recipe.prompts[i], strlen(p->recipe.prompts[i]));
        fputc('\n', out);
    }
    if (p->n_fields)
        fputs("\n# columns of lists that are used\n", out);
    for (uint32_t i = 0; i < p->n_fields; i++)
        fprintf(out, "#   %s%s\n", p->fields[i].name, p->fields[i].needed ? "" : " (where there is one)");
    fputs("\n# stages\n", out);
    for (uint32_t i = 0; i < p->n_nodes; i++)
        show_node(p, i, out);
    if (where)
        fputs("\n# workers\n", out);
    for (int i = 0; where && i < where->n; i++)
        show_place(&where->list[i], out);
    return 0;
}

/* -- JSON -- */

static json_t *decode_json(const struct generation_options *d)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:s, s:f, s:i, s:b, s:f, s:i, s:f, s:o}", "max_new_tokens",
                     (int)d->max_new_tokens, "min_new_tokens", (int)d->min_new_tokens, "beams", (int)d->n_beams,
                     "captions", (int)d->n_return, "length_penalty", (double)d->length_penalty, "early_stopping",
                     early_stopping_name(d->early_stopping), "repetition_penalty", (double)d->repetition_penalty,
                     "no_repeat_ngram", (int)d->no_repeat_ngram, "sample", d->sample, "temperature",
                     (double)d->temperature, "top_k", (int)d->top_k, "top_p", (double)d->top_p, "seed",
                     json_sprintf("%" PRIu64, d->seed)); /* as text: numbers of jansson end at 2^63 */
}

static json_t *recipe_json(const struct msg_recipe *r)
{
    json_t *prompts = json_array(), *fields = json_array(), *embeddings = json_array(), *scores = json_array();

    for (uint32_t i = 0; i < r->n_prompts; i++)
        (void)json_array_append_new(prompts, json_string(r->prompts[i]));
    for (uint32_t i = 0; i < r->n_text_fields; i++)
        (void)json_array_append_new(fields, json_string(r->text_fields[i]));
    for (uint32_t i = 0; i < r->n_embeddings; i++)
        (void)json_array_append_new(
            embeddings, json_pack("{s:s, s:s, s:b}", "kind", msg_embedding_name(r->embeddings[i].kind), "dtype",
                                  dtype_word(r->embeddings[i].dtype), "first_row", r->embeddings[i].first_row));
    if (r->itc)
        (void)json_array_append_new(scores, json_string("itc"));
    if (r->itm)
        (void)json_array_append_new(scores, json_string("itm"));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "name", r->name, "model", r->model,
                     "score_model", r->score_model, "prompts", prompts, "decode",
                     r->decode.max_new_tokens ? decode_json(&r->decode) : json_null(), "scores", scores, "text_fields",
                     fields, "embeddings", embeddings, "exif_orientation", r->exif_orientation, "grey16_high_byte",
                     r->grey16_high_byte);
}

static json_t *node_json(const struct plan *p, uint32_t node)
{
    const struct msg_node *n = &p->nodes[node];
    const struct plan_worker *w = worker_of(p, node);
    json_t *needs = json_array(), *gives = json_array();
    char hex[FINGERPRINT_HEX_SIZE];

    for (uint32_t i = 0; i < node; i++)
        if (n->needs >> i & 1)
            (void)json_array_append_new(needs, json_integer(i));
    for (int i = 0; i < N_TASKS; i++)
        if (n->tasks & tasks[i].bit)
            (void)json_array_append_new(gives, json_string(tasks[i].name));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:I}", "stage", stage_name(n->stage), "worker",
                     w ? w->name : "", "model", n->model, "fingerprint", fingerprint_to_hex(&n->fingerprint, hex),
                     "dtype", w && w->dtype ? dtype_word(w->dtype) : "fp32", "needs", needs, "gives", gives,
                     "out_bytes", (json_int_t)n->out_bytes);
}

static json_t *place_json(const struct place *at)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:i, s:o}", "name", at->name, "stage", stage_name(at->worker->stage),
                     "device", at->device, "dtype", at->worker->dtype ? dtype_word(at->worker->dtype) : "fp32",
                     "memory_share", at->memory_share > 0 ? json_real(at->memory_share) : json_null(), "threads",
                     at->n_threads, "decode_threads",
                     at->worker->stage == STAGE_ENCODE ? json_integer(at->n_decode_threads) : json_null());
}

struct json_t *plan_json(const struct plan *p, const struct placement *where)
{
    json_t *stages = json_array(), *columns = json_array(), *workers = json_array();

    for (uint32_t i = 0; i < p->n_nodes; i++)
        (void)json_array_append_new(stages, node_json(p, i));
    for (uint32_t i = 0; i < p->n_fields; i++)
        (void)json_array_append_new(columns,
                                    json_pack("{s:s, s:b}", "name", p->fields[i].name, "needed", p->fields[i].needed));
    for (int i = 0; where && i < where->n; i++)
        (void)json_array_append_new(workers, place_json(&where->list[i]));
    return json_pack("{s:o, s:o, s:o, s:o}", "recipe", recipe_json(&p->recipe), "stages", stages, "columns", columns,
                     "workers", workers);
}
