#include "proto/recipe_pb.h"

#include "proto/msg_pb.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void msg_recipe_init(struct msg_recipe *r)
{
    memset(r, 0, sizeof(*r));
    (void)msg_text_set(r->name, sizeof(r->name), "caption");
    r->decode = generation_options_default();
    r->dtype_encode = r->dtype_qformer = r->dtype_llm = DTYPE_F32;
}

static const char *name_of(const char *const *names, size_t n_names, unsigned number)
{
    return number < n_names && names[number] ? names[number] : "?";
}

#define NAME_OF(names, number) name_of(names, sizeof(names) / sizeof(*(names)), (unsigned)(number))

const char *msg_embedding_name(enum msg_embedding kind)
{
    static const char *const names[] = {[MSG_EMBEDDING_QUERY] = "query",
                                        [MSG_EMBEDDING_ITC] = "itc",
                                        [MSG_EMBEDDING_ITC_TEXT] = "itc_text",
                                        [MSG_EMBEDDING_CLS] = "cls"};

    return NAME_OF(names, kind);
}

/* -- to and from bytes -- */

static Blipline__Decode *decode_to_pb(const struct generation_options *from, struct msg_recipe_pb *to)
{
    Blipline__Decode *d = &to->decode;

    blipline__decode__init(d);
    d->max_new_tokens = (uint32_t)from->max_new_tokens;
    d->min_new_tokens = (uint32_t)from->min_new_tokens;
    d->n_beams = (uint32_t)from->n_beams;
    d->n_return = (uint32_t)from->n_return;
    d->length_penalty = from->length_penalty;
    d->early_stopping = (Blipline__Decode__EarlyStopping)from->early_stopping;
    d->repetition_penalty = from->repetition_penalty;
    d->no_repeat_ngram = (uint32_t)from->no_repeat_ngram;
    d->sample = from->sample;
    d->temperature = from->temperature;
    d->top_k = (uint32_t)from->top_k;
    d->top_p = from->top_p;
    d->seed = from->seed;
    return d;
}

void msg_recipe_to_pb(const struct msg_recipe *from, struct msg_recipe_pb *to)
{
    Blipline__Recipe *r = &to->recipe;

    blipline__recipe__init(r);
    r->name = msg_text_to_pb(from->name);
    r->model = msg_text_to_pb(from->model);
    r->score_model = msg_text_to_pb(from->score_model);
    for (uint32_t i = 0; i < from->n_prompts; i++)
        to->prompts[i] = msg_text_to_pb(from->prompts[i]);
    r->n_prompts = from->n_prompts;
    r->prompts = to->prompts;
    if (from->decode.max_new_tokens)
        r->decode = decode_to_pb(&from->decode, to);
    r->dtype_encode = (Blipline__DType)from->dtype_encode;
    r->dtype_qformer = (Blipline__DType)from->dtype_qformer;
    r->dtype_llm = (Blipline__DType)from->dtype_llm;
    for (uint32_t i = 0; i < from->n_text_fields; i++)
        to->text_fields[i] = msg_text_to_pb(from->text_fields[i]);
    r->n_text_fields = from->n_text_fields;
    r->text_fields = to->text_fields;
    r->itc = from->itc;
    r->itm = from->itm;
    for (uint32_t i = 0; i < from->n_embeddings; i++) {
        blipline__embedding_spec__init(&to->embeddings[i]);
        to->embeddings[i].kind = (Blipline__EmbeddingKind)from->embeddings[i].kind;
        to->embeddings[i].dtype = (Blipline__DType)from->embeddings[i].dtype;
        to->embeddings[i].first_row = from->embeddings[i].first_row;
        to->embedding_list[i] = &to->embeddings[i];
    }
    r->n_embeddings = from->n_embeddings;
    r->embeddings = to->embedding_list;
    r->exif_orientation = from->exif_orientation;
    r->grey16_high_byte = from->grey16_high_byte;
}

static void decode_from_pb(const Blipline__Decode *from, struct generation_options *to)
{
    *to = (struct generation_options){
        .max_new_tokens = (int)from->max_new_tokens,
        .min_new_tokens = (int)from->min_new_tokens,
        .n_beams = (int)from->n_beams,
        .n_return = (int)from->n_return,
        .length_penalty = from->length_penalty,
        .early_stopping = (enum early_stopping)from->early_stopping,
        .repetition_penalty = from->repetition_penalty,
        .no_repeat_ngram = (int)from->no_repeat_ngram,
        .sample = from->sample,
        .temperature = from->temperature,
        .top_k = (int)from->top_k,
        .top_p = from->top_p,
        .seed = from->seed,
    };
}

static int lists_from_pb(const Blipline__Recipe *from, struct msg_recipe *to, struct err *err)
{
    int rc = 0;

    if (from->n_prompts > MSG_MAX_PROMPTS || from->n_text_fields > MSG_MAX_TEXT_FIELDS ||
        from->n_embeddings > MSG_MAX_EMBEDDINGS)
        return err_set(err, -EMSGSIZE, "recipe: %zu prompts, %zu text fields, %zu embeddings: at most %d, %d, %d",
                       from->n_prompts, from->n_text_fields, from->n_embeddings, MSG_MAX_PROMPTS, MSG_MAX_TEXT_FIELDS,
                       MSG_MAX_EMBEDDINGS);
    to->n_prompts = (uint32_t)from->n_prompts;
    for (size_t i = 0; rc == 0 && i < from->n_prompts; i++)
        rc = TEXT_FROM_PB(to->prompts[i], from->prompts[i], "prompt", err);
    to->n_text_fields = (uint32_t)from->n_text_fields;
    for (size_t i = 0; rc == 0 && i < from->n_text_fields; i++)
        rc = TEXT_FROM_PB(to->text_fields[i], from->text_fields[i], "text field", err);
    to->n_embeddings = (uint32_t)from->n_embeddings;
    for (size_t i = 0; rc == 0 && i < from->n_embeddings; i++)
        to->embeddings[i] = (struct msg_embedding_spec){.kind = (enum msg_embedding)from->embeddings[i]->kind,
                                                        .dtype = (enum dtype)from->embeddings[i]->dtype,
                                                        .first_row = from->embeddings[i]->first_row};
    return rc;
}

int msg_recipe_from_pb(const Blipline__Recipe *from, struct msg_recipe *to, struct err *err)
{
    int rc;

    if (!from)
        return err_set(err, -EBADMSG, "recipe is missing");
    memset(to, 0, sizeof(*to));
    if (from->decode)
        decode_from_pb(from->decode, &to->decode);
    to->dtype_encode = (enum dtype)from->dtype_encode;
    to->dtype_qformer = (enum dtype)from->dtype_qformer;
    to->dtype_llm = (enum dtype)from->dtype_llm;
    to->itc = from->itc;
    to->itm = from->itm;
    to->exif_orientation = from->exif_orientation;
    to->grey16_high_byte = from->grey16_high_byte;
    if ((rc = TEXT_FROM_PB(to->name, from->name, "recipe name", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->model, from->model, "recipe model", err)) < 0 ||
        (rc = TEXT_FROM_PB(to->score_model, from->score_model, "recipe score model", err)) < 0)
        return rc;
    return lists_from_pb(from, to, err);
}

uint64_t msg_recipe_hash(const struct msg_recipe *r)
{
    struct msg_recipe_pb pb;
    uint8_t bytes[sizeof(r->prompts) + sizeof(r->text_fields) + 1024];
    size_t n;

    msg_recipe_to_pb(r, &pb);
    pb.recipe.name = pb.recipe.model = pb.recipe.score_model = (ProtobufCBinaryData){0};
    n = blipline__recipe__get_packed_size(&pb.recipe);
    if (n > sizeof(bytes))
        abort(); /* cannot happen: all parts are bounded */
    n = blipline__recipe__pack(&pb.recipe, bytes);
    return XXH3_64bits(bytes, n);
}

/* -- ranges -- */

static bool float_known(enum dtype d)
{
    return (unsigned)d <= DTYPE_BF16 || d == DTYPE_F8_E4M3; /* 0: not given */
}

static int check_decode(const struct generation_options *d, struct err *err)
{
    if (d->max_new_tokens == 0) /* nothing is generated */
        return 0;
    if (d->max_new_tokens < 0 || d->max_new_tokens > MSG_MAX_NEW_TOKENS)
        return err_set(err, -EBADMSG, "recipe: max_new_tokens %u, the limit is %d", d->max_new_tokens,
                       MSG_MAX_NEW_TOKENS);
    if (d->min_new_tokens < 0 || d->min_new_tokens > d->max_new_tokens)
        return err_set(err, -EBADMSG, "recipe: min_new_tokens %u is more than max_new_tokens %u", d->min_new_tokens,
                       d->max_new_tokens);
    if (d->n_beams < 1 || d->n_beams > GENERATION_MAX_BEAMS)
        return err_set(err, -EBADMSG, "recipe: %u beams, not 1 to %d", d->n_beams, GENERATION_MAX_BEAMS);
    if (d->n_return < 1 || d->n_return > GENERATION_MAX_RETURN || (!d->sample && d->n_return > d->n_beams))
        return err_set(err, -EBADMSG, "recipe: %u captions per prompt, not 1 to %u (%s)", d->n_return,
                       d->sample ? GENERATION_MAX_RETURN : d->n_beams, d->sample ? "samples" : "at most one per beam");
    if (d->sample && d->n_beams > 1)
        return err_set(err, -EBADMSG, "recipe: sampling with %u beams is not supported; use 1 beam", d->n_beams);
    if ((unsigned)d->early_stopping > EARLY_STOPPING_NEVER)
        return err_set(err, -EBADMSG, "recipe: unknown early_stopping %u", (unsigned)d->early_stopping);
    if (!isfinite(d->length_penalty) || fabsf(d->length_penalty) > 100)
        return err_set(err, -EBADMSG, "recipe: length_penalty %g, not -100 to 100", (double)d->length_penalty);
    if (!(d->repetition_penalty > 0) || !(d->repetition_penalty <= 100))
        return err_set(err, -EBADMSG, "recipe: repetition_penalty %g, it must be above 0 (1: none)",
                       (double)d->repetition_penalty);
    if (!(d->temperature > 0) || !(d->temperature <= 1000))
        return err_set(err, -EBADMSG, "recipe: temperature %g, it must be above 0", (double)d->temperature);
    if (!(d->top_p > 0) || !(d->top_p <= 1))
        return err_set(err, -EBADMSG, "recipe: top_p %g, it must be above 0 and at most 1", (double)d->top_p);
    if (d->no_repeat_ngram < 0 || d->no_repeat_ngram > MSG_MAX_NEW_TOKENS || d->top_k < 0 || d->top_k > 1 << 22)
        return err_set(err, -EBADMSG, "recipe: no_repeat_ngram %u or top_k %u is too large", d->no_repeat_ngram,
                       d->top_k);
    return 0;
}

static int check_embeddings(const struct msg_recipe *r, struct err *err)
{
    unsigned seen = 0;

    for (uint32_t i = 0; i < r->n_embeddings; i++) {
        const struct msg_embedding_spec *e = &r->embeddings[i];

        if (e->kind < MSG_EMBEDDING_QUERY || e->kind > MSG_EMBEDDING_CLS)
            return err_set(err, -EBADMSG, "recipe: unknown embedding %u", (unsigned)e->kind);
        if (seen & 1U << e->kind)
            return err_set(err, -EBADMSG, "recipe: embedding %s twice", msg_embedding_name(e->kind));
        if (e->dtype != DTYPE_F32 && e->dtype != DTYPE_F16)
            return err_set(err, -EBADMSG, "recipe: embedding %s as %s, not fp16 or fp32", msg_embedding_name(e->kind),
                           dtype_word(e->dtype));
        if (e->first_row && e->kind != MSG_EMBEDDING_ITC)
            return err_set(err, -EBADMSG, "recipe: first row of %s; only itc supports that",
                           msg_embedding_name(e->kind));
        seen |= 1U << e->kind;
    }
    return 0;
}

int msg_recipe_check(const struct msg_recipe *r, struct err *err)
{
    int rc;

    if (!float_known(r->dtype_encode) || !float_known(r->dtype_qformer) || !float_known(r->dtype_llm))
        return err_set(err, -EBADMSG, "recipe: no stage can compute in this dtype");
    if (r->n_prompts > MSG_MAX_PROMPTS || r->n_text_fields > MSG_MAX_TEXT_FIELDS ||
        r->n_embeddings > MSG_MAX_EMBEDDINGS)
        return err_set(err, -EBADMSG, "recipe: %u prompts, %u text fields, %u embeddings: at most %d, %d, %d",
                       r->n_prompts, r->n_text_fields, r->n_embeddings, MSG_MAX_PROMPTS, MSG_MAX_TEXT_FIELDS,
                       MSG_MAX_EMBEDDINGS);
    for (uint32_t i = 0; i < r->n_text_fields; i++)
        if (!r->text_fields[i][0])
            return err_set(err, -EBADMSG, "recipe: a text field without a name");
    rc = check_decode(&r->decode, err);
    return rc < 0 ? rc : check_embeddings(r, err);
}

const struct msg_embedding_spec *msg_recipe_embedding(const struct msg_recipe *r, enum msg_embedding kind)
{
    for (uint32_t i = 0; i < r->n_embeddings; i++)
        if (r->embeddings[i].kind == kind)
            return &r->embeddings[i];
    return NULL;
}

/* -- differences -- */

struct difference {
    struct buf *words;
    int n, rc;
};

static void differ(struct difference *d, const char *field, const char *was, const char *is)
{
    if (d->rc < 0 || strcmp(was, is) == 0)
        return;
    d->rc = buf_appendf(d->words, "%s: %s, was %s\n", field, is, was);
    d->n++;
}

static void differ_number(struct difference *d, const char *field, double was, double is)
{
    char a[32], b[32];

    if (was == is)
        return;
    (void)snprintf(a, sizeof(a), "%g", was);
    (void)snprintf(b, sizeof(b), "%g", is);
    if (strcmp(a, b) == 0) { /* differ in the last digits only */
        (void)snprintf(a, sizeof(a), "%.9g", was);
        (void)snprintf(b, sizeof(b), "%.9g", is);
    }
    differ(d, field, a, b);
}

static void differ_text(struct difference *d, const char *field, const char *was, const char *is)
{
    char a[MSG_PROMPT_SIZE + 2] = "none", b[MSG_PROMPT_SIZE + 2] = "none";

    if (was)
        (void)snprintf(a, sizeof(a), "\"%s\"", was);
    if (is)
        (void)snprintf(b, sizeof(b), "\"%s\"", is);
    differ(d, field, a, b);
}

static void differ_decode(struct difference *d, const struct generation_options *a, const struct generation_options *b)
{
    char was[32], is[32];

    differ_number(d, "max-new-tokens", a->max_new_tokens, b->max_new_tokens);
    if (a->max_new_tokens == 0 || b->max_new_tokens == 0)
        return;
    differ_number(d, "min-new-tokens", a->min_new_tokens, b->min_new_tokens);
    differ_number(d, "beams", a->n_beams, b->n_beams);
    differ_number(d, "captions", a->n_return, b->n_return);
    differ_number(d, "length-penalty", (double)a->length_penalty, (double)b->length_penalty);
    differ(d, "early-stopping", early_stopping_name(a->early_stopping), early_stopping_name(b->early_stopping));
    differ_number(d, "repetition-penalty", (double)a->repetition_penalty, (double)b->repetition_penalty);
    differ_number(d, "no-repeat-ngram", a->no_repeat_ngram, b->no_repeat_ngram);
    differ(d, "sample", a->sample ? "yes" : "no", b->sample ? "yes" : "no");
    differ_number(d, "temperature", (double)a->temperature, (double)b->temperature);
    differ_number(d, "top-k", a->top_k, b->top_k);
    differ_number(d, "top-p", (double)a->top_p, (double)b->top_p);
    (void)snprintf(was, sizeof(was), "%llu", (unsigned long long)a->seed);
    (void)snprintf(is, sizeof(is), "%llu", (unsigned long long)b->seed);
    differ(d, "seed", was, is);
}

static const char *embedding_words(const struct msg_recipe *r, enum msg_embedding kind, char buf[32])
{
    const struct msg_embedding_spec *e = msg_recipe_embedding(r, kind);

    (void)snprintf(buf, 32, "%s%s", e ? dtype_word(e->dtype) : "none", e && e->first_row ? ", first row" : "");
    return buf;
}

static void differ_lists(struct difference *d, const struct msg_recipe *a, const struct msg_recipe *b)
{
    char field[32], was[32], is[32];

    for (uint32_t i = 0; i < MSG_MAX_PROMPTS; i++) {
        (void)snprintf(field, sizeof(field), "prompt %u", i + 1);
        differ_text(d, field, i < a->n_prompts ? a->prompts[i] : NULL, i < b->n_prompts ? b->prompts[i] : NULL);
    }
    for (uint32_t i = 0; i < MSG_MAX_TEXT_FIELDS; i++) {
        (void)snprintf(field, sizeof(field), "text field %u", i + 1);
        differ_text(d, field, i < a->n_text_fields ? a->text_fields[i] : NULL,
                    i < b->n_text_fields ? b->text_fields[i] : NULL);
    }
    for (int k = MSG_EMBEDDING_QUERY; k <= MSG_EMBEDDING_CLS; k++) {
        (void)snprintf(field, sizeof(field), "embedding %s", msg_embedding_name((enum msg_embedding)k));
        differ(d, field, embedding_words(a, (enum msg_embedding)k, was), embedding_words(b, (enum msg_embedding)k, is));
    }
}

int msg_recipe_diff(const struct msg_recipe *a, const struct msg_recipe *b, struct buf *words)
{
    struct difference d = {.words = words};

    differ_text(&d, "recipe", a->name, b->name);
    differ_text(&d, "model", a->model[0] ? a->model : NULL, b->model[0] ? b->model : NULL);
    differ_text(&d, "score model", a->score_model[0] ? a->score_model : NULL,
                b->score_model[0] ? b->score_model : NULL);
    differ_lists(&d, a, b);
    differ_decode(&d, &a->decode, &b->decode);
    differ(&d, "encoder dtype", dtype_word(a->dtype_encode), dtype_word(b->dtype_encode));
    differ(&d, "qformer dtype", dtype_word(a->dtype_qformer), dtype_word(b->dtype_qformer));
    differ(&d, "llm dtype", dtype_word(a->dtype_llm), dtype_word(b->dtype_llm));
    differ(&d, "itc", a->itc ? "yes" : "no", b->itc ? "yes" : "no");
    differ(&d, "itm", a->itm ? "yes" : "no", b->itm ? "yes" : "no");
    differ(&d, "exif-orientation", a->exif_orientation ? "apply" : "ignore", b->exif_orientation ? "apply" : "ignore");
    differ(&d, "grey16", a->grey16_high_byte ? "high-byte" : "clip", b->grey16_high_byte ? "high-byte" : "clip");
    return d.rc < 0 ? d.rc : d.n;
}
