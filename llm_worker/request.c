#include "llm_worker/request.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/beam.h"

int request_n_sequences(const struct generation_options *o)
{
    return o->n_beams > 1 ? o->n_beams : o->n_return;
}

int64_t request_n_kv_rows(const struct lm *m, const struct generate_request *r)
{
    return (int64_t)lm_prefix_rows(m, r->n_image_rows, r->n_prompt) + lm_start_rows(m) +
           (int64_t)request_n_sequences(&r->options) * (r->options.max_new_tokens - 1);
}

/* Sets the ids before the first new token: T5's start token, or image tokens and prompt. */
static void fill_head(struct request *q, const struct lm *m, int32_t image_id)
{
    if (lm_is_encoder_decoder(m)) {
        q->head[q->n_head++] = lm_start_id(m);
        return;
    }
    for (int i = 0; image_id >= 0 && i < q->n_image_rows; i++)
        q->head[q->n_head++] = image_id;
    memcpy(q->head + q->n_head, q->prompt, (size_t)q->n_prompt * sizeof(*q->head));
    q->n_head += q->n_prompt;
}

struct request *request_new(const struct lm *m, const struct generate_request *r, int32_t image_id)
{
    const size_t n_bytes = (size_t)r->n_image_rows * (size_t)lm_width(m) * dtype_size_bytes(r->image_dtype);
    const size_t image_bytes = (n_bytes + sizeof(int32_t) - 1) / sizeof(int32_t) * sizeof(int32_t);
    const size_t n_prompt = (size_t)r->n_prompt;
    const size_t n_head = 1 + (size_t)r->n_image_rows + n_prompt;
    struct request *q = malloc(sizeof(*q) + image_bytes + (n_prompt + n_head) * sizeof(int32_t));

    assert(r->n_image_rows == 0 || n_bytes > 0);
    if (!q)
        return NULL;
    *q = (struct request){
        .tag = r->tag,
        .key = r->key,
        .options = r->options,
        .n_eos = r->n_eos,
        .image_rows = q + 1,
        .image_dtype = r->image_dtype,
        .n_image_rows = r->n_image_rows,
        .n_prompt = r->n_prompt,
        .n_sequences = request_n_sequences(&r->options),
        .n_prefix = lm_prefix_rows(m, r->n_image_rows, r->n_prompt),
        .n_start = lm_start_rows(m),
        .n_kv_rows = (int)request_n_kv_rows(m, r),
    };
    q->prompt = (int32_t *)(void *)((char *)q->image_rows + image_bytes);
    q->head = q->prompt + n_prompt;
    if (n_bytes)
        memcpy(q->image_rows, r->image_rows, n_bytes);
    memcpy(q->prompt, r->prompt, n_prompt * sizeof(int32_t));
    if (r->n_eos)
        memcpy(q->eos, r->eos, (size_t)r->n_eos * sizeof(int32_t));
    fill_head(q, m, image_id);
    return q;
}

static void release_growth(struct request *q)
{
    beam_free(q->beam);
    free(q->sequences);
    free(q->tail_block);
    free(q->entries);
    q->beam = NULL;
    q->sequences = NULL;
    q->tail_block = NULL;
    q->entries = NULL;
}

void request_free(struct request *q)
{
    if (!q)
        return;
    release_growth(q);
    free(q);
}

static size_t max_tail(const struct request *q)
{
    return (size_t)q->n_start + (size_t)q->options.max_new_tokens - 1;
}

static int32_t *tail(const struct request *q, int sequence)
{
    return q->tails + (size_t)sequence * max_tail(q);
}

static struct sequence *sequences_new(int n, int max_new_tokens)
{
    const size_t ids_at = (size_t)n * sizeof(struct sequence);
    struct sequence *s = calloc(1, ids_at + (size_t)n * (size_t)max_new_tokens * sizeof(int32_t));

    for (int i = 0; s && i < n; i++)
        s[i].ids = (int32_t *)(void *)((char *)s + ids_at) + (size_t)i * (size_t)max_new_tokens;
    return s;
}

int request_start(struct request *q, int kv_first)
{
    const struct generation_options *o = &q->options;
    const size_t n = (size_t)q->n_sequences;

    if (o->n_beams > 1)
        q->beam = beam_new(&(struct beam_options){.n_beams = o->n_beams,
                                                  .max_new_tokens = o->max_new_tokens,
                                                  .length_penalty = o->length_penalty,
                                                  .early_stopping = o->early_stopping,
                                                  .eos = q->eos,
                                                  .n_eos = q->n_eos});
    else
        q->sequences = sequences_new(q->n_sequences, o->max_new_tokens);
    q->tail_block = calloc(2 * n * max_tail(q) + 1, sizeof(*q->tail_block));
    q->entries = calloc(n, sizeof(*q->entries));
    if (!(q->beam || q->sequences) || !q->tail_block || !q->entries) {
        release_growth(q);
        return -ENOMEM;
    }
    q->tails = q->tail_block;
    q->spare = q->tails + n * max_tail(q);
    q->kv_first = kv_first;
    q->n_live = q->n_sequences;
    for (int s = 0; q->n_start && s < q->n_sequences; s++)
        tail(q, s)[0] = kv_first + q->n_prefix;
    return 0;
}

struct lm_start request_first(const struct request *q)
{
    return (struct lm_start){.image_rows = q->image_rows,
                             .image_dtype = q->image_dtype,
                             .n_image_rows = q->n_image_rows,
                             .ids = q->prompt,
                             .n_ids = q->n_prompt,
                             .prefix_row = q->kv_first,
                             .first_row = q->kv_first + q->n_prefix};
}

int request_live(const struct request *q, int i)
{
    int s = 0;

    if (q->beam)
        return i;
    for (;; s++)
        if (!q->sequences[s].done && i-- == 0)
            return s;
}

int request_next(struct request *q, struct lm_token *ret)
{
    const int n_tail = q->n_start + q->n_new, rows = q->kv_first + q->n_prefix + q->n_start;
    int n = 0;

    for (int s = 0; s < q->n_sequences; s++) {
        if (!q->beam && q->sequences[s].done)
            continue;
        tail(q, s)[n_tail - 1] = rows + (q->n_new - 1) * q->n_sequences + s;
        ret[n++] = (struct lm_token){.id = q->beam ? beam_last_id(q->beam, s) : q->sequences[s].ids[q->n_new - 1],
                                     .prefix_row = q->kv_first,
                                     .n_prefix = q->n_prefix,
                                     .tail = tail(q, s),
                                     .n_tail = n_tail};
    }
    assert(n == q->n_live);
    return n;
}

int request_ids(const struct request *q, int sequence, int32_t *ret)
{
    memcpy(ret, q->head, (size_t)q->n_head * sizeof(*ret));
    if (q->beam)
        beam_path(q->beam, sequence, ret + q->n_head);
    else
        memcpy(ret + q->n_head, q->sequences[sequence].ids, (size_t)q->n_new * sizeof(*ret));
    return q->n_head + q->n_new;
}

/* A beam takes over its parent's rows: copies the tables, not the rows. */
static void follow_parents(struct request *q, const int *parents)
{
    const size_t n = ((size_t)q->n_start + (size_t)q->n_new - 1) * sizeof(int32_t);
    int32_t *tails = q->tails;
    bool moved = false;

    for (int s = 0; s < q->n_sequences; s++)
        moved |= parents[s] != s;
    if (!moved)
        return;
    for (int s = 0; s < q->n_sequences; s++)
        memcpy(q->spare + (size_t)s * max_tail(q), tail(q, parents[s]), n);
    q->tails = q->spare;
    q->spare = tails;
}

static bool advance_beams(struct request *q, const struct sampling_result *sampled)
{
    struct beam_candidates candidates[GENERATION_MAX_BEAMS];
    int parents[GENERATION_MAX_BEAMS];
    bool over;

    for (int s = 0; s < q->n_sequences; s++) {
        candidates[s] = (struct beam_candidates){sampled[s].ids, sampled[s].values, sampled[s].logprobs};
        q->failed |= sampled[s].none;
    }
    if (q->failed)
        return true;
    over = beam_step(q->beam, candidates, parents);
    q->n_new++;
    if (!over)
        follow_parents(q, parents);
    return over;
}

static bool is_eos(const struct request *q, int32_t id)
{
    for (int i = 0; i < q->n_eos; i++)
        if (q->eos[i] == id)
            return true;
    return false;
}

static bool advance_sequences(struct request *q, const struct sampling_result *sampled)
{
    for (int i = 0; i < q->n_sequences; i++) {
        struct sequence *s = &q->sequences[i];

        if (s->done)
            continue;
        if ((q->failed = sampled[i].none))
            return true;
        s->ids[s->n_ids++] = sampled[i].ids[0];
        s->logprob += (double)sampled[i].logprobs[0];
        s->finish = is_eos(q, sampled[i].ids[0]) ? GENERATE_FINISH_EOS : GENERATE_FINISH_LENGTH;
        s->done = s->finish == GENERATE_FINISH_EOS || s->n_ids == q->options.max_new_tokens;
        q->n_live -= s->done;
    }
    q->n_new++;
    return q->n_live == 0;
}

bool request_advance(struct request *q, const struct sampling_result *sampled)
{
    return q->beam ? advance_beams(q, sampled) : advance_sequences(q, sampled);
}

static struct generate_sequence sequence_of(const struct request *q, int i)
{
    if (q->beam) {
        const struct beam_hypothesis h = beam_hypothesis(q->beam, i);

        return (struct generate_sequence){
            .n_ids = h.n_ids, .logprob = h.logprob, .score = (double)h.score, .finish = h.finish};
    }
    return (struct generate_sequence){.n_ids = q->sequences[i].n_ids,
                                      .logprob = q->sequences[i].logprob,
                                      .score = q->sequences[i].logprob,
                                      .finish = q->sequences[i].finish};
}

int request_result(const struct request *q, struct generate_result *ret)
{
    const int n = q->failed ? 0 : q->options.n_return;
    struct generate_sequence *sequences;
    size_t n_ids = 0;
    int32_t *ids;

    for (int i = 0; i < n; i++)
        n_ids += (size_t)sequence_of(q, i).n_ids;
    sequences = calloc(1, (size_t)n * sizeof(*sequences) + n_ids * sizeof(*ids) + 1);
    if (!sequences)
        return -ENOMEM;
    ids = (int32_t *)(void *)(sequences + n);
    for (int i = 0; i < n; i++) {
        sequences[i] = sequence_of(q, i);
        sequences[i].ids = ids;
        if (q->beam)
            beam_hypothesis_path(q->beam, i, ids);
        else
            memcpy(ids, q->sequences[i].ids, (size_t)sequences[i].n_ids * sizeof(*ids));
        ids += sequences[i].n_ids;
    }
    *ret = (struct generate_result){.tag = q->tag, .n_sequences = n, .sequences = sequences};
    return 0;
}

void request_list_push(struct request_list *l, struct request *q)
{
    q->next = NULL;
    if (l->last)
        l->last->next = q;
    else
        l->first = q;
    l->last = q;
    l->n++;
}

struct request *request_list_pop(struct request_list *l)
{
    struct request *q = l->first;

    if (!q)
        return NULL;
    l->first = q->next;
    if (!l->first)
        l->last = NULL;
    l->n--;
    q->next = NULL;
    return q;
}

int request_list_drop(struct request_list *l, const uint64_t *tag)
{
    struct request_list kept = {0};
    struct request *q;
    int n = 0;

    while ((q = request_list_pop(l))) {
        if (tag && q->tag != *tag) {
            request_list_push(&kept, q);
            continue;
        }
        request_free(q);
        n++;
    }
    *l = kept;
    return n;
}
