/* plan_check.c - the final text of prompts, and checks of prompts, decoding options, types and sizes. */
#include "recipe/plan_private.h"

#include "model/config_tokenizer.h"
#include "model/utf8.h"
#include "proto/row.h"
#include "proto/template.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    FIELD_TOKENS = 256,         /* room for the values of a prompt's fields; longer values are item errors */
    ROW_REST_BYTES = 64 * 1024, /* of a row, reserved for captions */
};

/* -- prompts -- */

static int add_field(struct plan *p, const char *name, size_t bytes, bool needed, struct err *err)
{
    for (uint32_t i = 0; i < p->n_fields; i++) {
        if (strlen(p->fields[i].name) == bytes && memcmp(p->fields[i].name, name, bytes) == 0) {
            p->fields[i].needed |= needed;
            return 0;
        }
    }
    if (p->n_fields == PLAN_MAX_FIELDS)
        return err_set(err, -EDOM, "the recipe uses more than %d columns", PLAN_MAX_FIELDS);
    memcpy(p->fields[p->n_fields].name, name, bytes);
    p->fields[p->n_fields++].needed = needed;
    return 0;
}

/* The question forms of LAVIS. */
static int set_prompt(struct msg_recipe *r, const struct recipe_prompt *from, enum config_lm lm, struct err *err)
{
    char *to = r->prompts[r->n_prompts];
    int n = !from->is_question ? snprintf(to, MSG_PROMPT_SIZE, "%s", from->text)
                               : snprintf(to, MSG_PROMPT_SIZE, "Question: %s %s", from->text,
                                          lm == CONFIG_LM_T5 ? "Short answer:" : "Answer:");

    if (n >= MSG_PROMPT_SIZE)
        return err_set(err, -EDOM, "the %s is longer than %d bytes", from->is_question ? "question" : "prompt",
                       MSG_PROMPT_SIZE - 1);
    if (!utf8_is_valid(to, strlen(to)))
        return err_set(err, -EDOM, "the prompt is not UTF-8");
    r->n_prompts++;
    return 0;
}

/* Counts the tokens around the fields, before the items are known. */
static int count_tokens(const struct tokenizer *tokenizer, const struct template *t, const struct config *c,
                        int64_t *ret_n, struct err *err)
{
    struct token_ids ids = {0};
    struct buf text;
    int64_t n_own = 0;
    int rc = 0;

    buf_init(&text, 0);
    for (uint32_t i = 0; rc == 0 && i < t->n_parts; i++)
        rc = t->parts[i].is_field ? 0 : buf_append(&text, t->parts[i].text, t->parts[i].bytes);
    if (rc == 0)
        rc = tokenizer_encode(tokenizer, text.size_bytes ? (const char *)text.data : "", text.size_bytes, false, &ids,
                              err);
    if (rc == 0)
        rc = config_tokenizer_check(c, ids.ids, ids.n, err);
    n_own = (int64_t)ids.n;
    ids.n = 0;
    if (rc == 0)
        rc = tokenizer_encode(tokenizer, text.size_bytes ? (const char *)text.data : "", text.size_bytes, true, &ids,
                              err);
    if (rc == 0 && n_own == 0 && template_is_constant(t))
        rc = err_set(err, -EINVAL, "the prompt has no tokens; omit --prompt for none");
    *ret_n = (int64_t)ids.n;
    token_ids_release(&ids);
    buf_release(&text);
    return rc;
}

/* Image, prompt and answer must fit the language model's positions. (The last new token is never fed back.) */
static int check_positions(const struct msg_recipe *r, const struct config *c, int64_t n_prompt, struct err *err)
{
    int64_t need = c->n_queries + n_prompt + r->decode.max_new_tokens - 1;

    if (c->lm != CONFIG_LM_OPT || need <= c->opt.max_positions)
        return 0;
    return err_set(err, -EDOM,
                   "%d image rows, a prompt of %lld tokens and %u new tokens need %lld positions; the model has %d",
                   c->n_queries, (long long)n_prompt, r->decode.max_new_tokens, (long long)need, c->opt.max_positions);
}

static int check_prompt(struct plan *p, const char *text, const struct tokenizer *tokenizer, const struct config *c,
                        int64_t *longest, struct err *err)
{
    struct template t;
    int64_t n = 1;
    int rc = template_parse(text, &t, err);

    for (uint32_t i = 0; rc == 0 && i < t.n_parts; i++)
        if (t.parts[i].is_field && !(t.parts[i].bytes == 3 && memcmp(t.parts[i].text, "key", 3) == 0))
            rc = add_field(p, t.parts[i].text, t.parts[i].bytes, true, err);
    if (rc == 0 && tokenizer)
        rc = count_tokens(tokenizer, &t, c, &n, err);
    if (rc == 0)
        rc = check_positions(&p->recipe, c, n, err);
    if (rc == 0 && !template_is_constant(&t))
        n += FIELD_TOKENS;
    if (rc == 0 && n > *longest)
        *longest = n;
    return rc < 0 ? err_prefix(err, rc == -ENOMEM ? rc : -EDOM, "prompt \"%.60s\"", text) : 0;
}

static int check_prompts(struct plan *p, const struct plan_side *captioner, int *ret_positions, struct err *err)
{
    const struct config *c = &captioner->config;
    struct tokenizer *tokenizer = NULL;
    int64_t longest = 1, need;
    int rc = captioner->dir[0] ? config_tokenizer_load(c, captioner->tokenizer_path, &tokenizer, err) : 0;

    if (rc == 0 && p->recipe.n_prompts == 0 && c->bos < 0)
        rc = err_set(err, -EDOM, "this checkpoint needs a --prompt because it has no start token");
    if (rc == 0 && p->recipe.n_prompts == 0)
        rc = check_positions(&p->recipe, c, 1, err);
    for (uint32_t i = 0; rc == 0 && i < p->recipe.n_prompts; i++)
        rc = check_prompt(p, p->recipe.prompts[i], tokenizer, c, &longest, err);
    tokenizer_free(tokenizer);
    need = c->n_queries + longest + p->recipe.decode.max_new_tokens - 1;
    *ret_positions = (int)(c->lm == CONFIG_LM_OPT && need > c->opt.max_positions ? c->opt.max_positions : need);
    return rc;
}

int plan_set_prompts(struct plan *p, const struct recipe *r, const struct plan_side *captioner, int *ret_positions,
                     struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && (r->stages & RECIPE_CAPTION) && i < r->n_prompts; i++)
        rc = set_prompt(&p->recipe, &r->prompts[i], captioner->config.lm, err);
    if (rc == 0 && p->recipe.decode.max_new_tokens)
        rc = check_prompts(p, captioner, ret_positions, err);
    for (uint32_t i = 0; rc == 0 && i < p->recipe.n_text_fields; i++)
        rc = add_field(p, p->recipe.text_fields[i], strlen(p->recipe.text_fields[i]),
                       p->recipe.decode.max_new_tokens == 0, err);
    return rc;
}

/* -- types -- */

static bool is_gpu_dtype(enum dtype d)
{
    return d == DTYPE_F16 || d == DTYPE_F8_E4M3;
}

int plan_check_dtypes(const struct plan_dtypes *d, const struct plan_options *o, enum config_lm lm, struct err *err)
{
    const bool captions = o->recipe->stages & RECIPE_CAPTION;
    const struct {
        const char *key;
        enum dtype dtype;
    } all[] = {{"encoder-dtype", d->encode}, {"qformer-dtype", d->qformer}, {"llm-dtype", d->llm}};

    for (size_t i = 0; o->device == DEVICE_CPU && !o->model && !o->score_model && i < (captions ? 3 : 2); i++)
        if (is_gpu_dtype(all[i].dtype))
            return err_set(err, -EDOM,
                           "--%s %s: CPUs compute in fp32, some also in bf16; use one of these, or a GPU "
                           "(--device cuda:0)",
                           d->qformer == d->encode && d->llm == d->encode ? "dtype" : all[i].key,
                           dtype_word(all[i].dtype));
    if (d->qformer == DTYPE_F8_E4M3)
        return err_set(err, -EDOM, "--qformer-dtype fp8: the Q-Former does not support fp8; use bf16");
    if (captions && lm == CONFIG_LM_T5 && d->llm == DTYPE_F16)
        return err_set(err, -EDOM, "--llm-dtype fp16: FlanT5 overflows fp16 (65504); use bf16 or fp32");
    if (captions && lm == CONFIG_LM_T5 && d->llm == DTYPE_F8_E4M3)
        return err_set(err, -EDOM,
                       "--llm-dtype fp8: the activations of FlanT5 exceed the range of fp8; use --llm-dtype bf16 (the "
                       "image encoder may keep fp8)");
    return 0;
}

/* -- options -- */

int plan_check_captions(const struct msg_recipe *r, const struct config *c, struct err *err)
{
    uint64_t candidates = (uint64_t)(c->n_eos + 1 > 2 ? c->n_eos + 1 : 2);
    uint32_t n_prompts = r->n_prompts ? r->n_prompts : 1;
    uint64_t n = (uint64_t)n_prompts * r->decode.n_return + r->n_text_fields;

    if (r->decode.n_beams > 1 && candidates * r->decode.n_beams > (uint64_t)c->lm_vocab_size)
        return err_set(err, -EINVAL,
                       "%u beams look at %llu candidates, more than the vocabulary of %d has; take at most %llu beams "
                       "(--beams)",
                       r->decode.n_beams, (unsigned long long)(candidates * r->decode.n_beams), c->lm_vocab_size,
                       (unsigned long long)((uint64_t)c->lm_vocab_size / candidates));
    if (n > ROW_MAX_CAPTIONS)
        return err_set(err, -EINVAL,
                       "%u prompts with %u captions each, and %u text fields, are %llu captions a picture; a record "
                       "holds %d",
                       n_prompts, r->decode.n_return, r->n_text_fields, (unsigned long long)n, ROW_MAX_CAPTIONS);
    return 0;
}

int plan_check_scorer(const struct plan_side *scorer, struct err *err)
{
    struct tokenizer *tokenizer = NULL;
    int rc = scorer->dir[0] ? config_tokenizer_load(&scorer->config, scorer->tokenizer_path, &tokenizer, err) : 0;

    tokenizer_free(tokenizer);
    return rc;
}

/* Of the estimate: LMDB's pages; of a row its key, number, CRC and share of half-filled pages; of a caption its scores
 * and a text as long as is allowed. */
enum {
    PAGE_BYTES = 4096,
    LARGEST_ON_SHARED_PAGE = 2000,
    PER_ROW_BYTES = 60,
    PER_CAPTION_BYTES = 20,
    PER_TOKEN_BYTES = 4
};

static uint64_t embedding_bytes(const struct msg_embedding_spec *e, const struct msg_recipe *r, const struct config *c)
{
    uint64_t element = e->dtype == DTYPE_F16 ? 2 : 4, n_prompts = r->n_prompts ? r->n_prompts : 1;
    uint64_t n_texts = n_prompts * r->decode.n_return + r->n_text_fields;

    switch (e->kind) {
    case MSG_EMBEDDING_QUERY:
        return element * (uint64_t)c->n_queries * (uint64_t)c->qformer.width;
    case MSG_EMBEDDING_ITC:
        return element * (uint64_t)c->embed_width * (e->first_row ? 1 : (uint64_t)c->n_queries);
    case MSG_EMBEDDING_ITC_TEXT:
        return element * (uint64_t)c->embed_width * n_texts;
    case MSG_EMBEDDING_CLS:
        return element * (uint64_t)c->vision.width;
    }
    return 0;
}

/* A large value has pages of its own. */
static uint64_t stored_bytes(uint64_t value)
{
    return value <= LARGEST_ON_SHARED_PAGE ? value + PER_ROW_BYTES
                                           : (value + PER_ROW_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

int plan_check_sizes(struct plan *p, const struct config *c, struct err *err)
{
    const struct msg_recipe *r = &p->recipe;
    const uint64_t n_captions = (uint64_t)(r->n_prompts ? r->n_prompts : 1) * r->decode.n_return + r->n_text_fields;
    uint64_t bytes = 0;

    p->result_bytes =
        stored_bytes(n_captions * (PER_CAPTION_BYTES + (uint64_t)PER_TOKEN_BYTES * r->decode.max_new_tokens));
    for (uint32_t i = 0; i < r->n_embeddings; i++) {
        bytes += embedding_bytes(&r->embeddings[i], r, c);
        p->result_bytes += stored_bytes(embedding_bytes(&r->embeddings[i], r, c));
    }
    if (bytes > ROW_MAX_BYTES - ROW_REST_BYTES)
        return err_set(err, -EINVAL,
                       "the embeddings of a picture take %llu bytes, a record has room for %d: keep fewer, or use fp16 "
                       "(--embed query:fp16)",
                       (unsigned long long)bytes, ROW_MAX_BYTES - ROW_REST_BYTES);
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (p->nodes[i].out_bytes > MSG_MAX_TENSOR_FRAME_BYTES)
            return err_set(err, -EINVAL,
                           "the %s stage of %s produces %llu bytes per picture, a message has room for %zu",
                           stage_name(p->nodes[i].stage), p->nodes[i].model, (unsigned long long)p->nodes[i].out_bytes,
                           MSG_MAX_TENSOR_FRAME_BYTES);
    return 0;
}

/* The weights of all processes are in memory at the same time. */
static int check_memory(const struct plan *p, double machine_bytes, struct err *err)
{
    const double gib = 1 << 30;
    double bytes = 0;

    for (uint32_t i = 0; i < p->n_workers; i++)
        bytes += p->workers[i].bytes;
    if (bytes <= machine_bytes)
        return 0;
    return err_set(err, -ENOMEM,
                   "the weights of all stages take %.1f GiB, and this machine has %.1f GiB of memory and swap: take a "
                   "smaller checkpoint, a GPU (--device cuda:0), or bf16 where the processor has it (--dtype bf16)",
                   bytes / gib, machine_bytes / gib);
}

int plan_check_machine(const struct plan *p, enum cpu_isa isa, double machine_bytes, struct err *err)
{
    if (p->device != DEVICE_CPU)
        return 0;
    for (uint32_t i = 0; i < p->n_workers; i++)
        if (p->workers[i].dtype == DTYPE_BF16 && !cpu_isa_has_bf16(isa))
            return err_set(
                err, -EDOM,
                "the %s in bf16: this needs AVX512_BF16, which this CPU lacks%s; use fp32 (--dtype fp32) or a "
                "GPU (--device cuda:0)",
                p->workers[i].name, isa == CPU_ISA_AUTO ? "" : " at this --cpu-isa");
    return check_memory(p, machine_bytes, err);
}
