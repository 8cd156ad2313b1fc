#include "llm_worker/group.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/beam.h"

int group_n_strands(const struct generation_options *o)
{
    return o->n_beams > 1 ? o->n_beams : o->n_return;
}

int64_t group_n_kv_rows(const struct lm *m, const struct generate_request *r)
{
    return (int64_t)lm_prefix_rows(m, r->n_image_rows, r->n_prompt) + lm_start_rows(m) +
           (int64_t)group_n_strands(&r->options) * (r->options.max_new_tokens - 1);
}

/* What a decoder has seen before its first new token: for T5 its start token, else pictures and prompt. */
static void fill_head(struct group *g, const struct lm *m, int32_t image_id)
{
    if (lm_is_encoder_decoder(m)) {
        g->head[g->n_head++] = lm_start_id(m);
        return;
    }
    for (int i = 0; image_id >= 0 && i < g->n_image_rows; i++)
        g->head[g->n_head++] = image_id;
    memcpy(g->head + g->n_head, g->prompt, (size_t)g->n_prompt * sizeof(*g->head));
    g->n_head += g->n_prompt;
}

struct group *group_new(const struct lm *m, const struct generate_request *r, int32_t image_id)
{
    const size_t n_bytes = (size_t)r->n_image_rows * (size_t)lm_width(m) * dtype_size_bytes(r->image_dtype);
    const size_t image_bytes = (n_bytes + sizeof(int32_t) - 1) / sizeof(int32_t) * sizeof(int32_t);
    const size_t n_prompt = (size_t)r->n_prompt;
    const size_t n_head = 1 + (size_t)r->n_image_rows + n_prompt;
    struct group *g = malloc(sizeof(*g) + image_bytes + (n_prompt + n_head) * sizeof(int32_t));

    assert(r->n_image_rows == 0 || n_bytes > 0);
    if (!g)
        return NULL;
    *g = (struct group){
        .tag = r->tag,
        .key = r->key,
        .options = r->options,
        .n_eos = r->n_eos,
        .image_rows = g + 1,
        .image_dtype = r->image_dtype,
        .n_image_rows = r->n_image_rows,
        .n_prompt = r->n_prompt,
        .n_strands = group_n_strands(&r->options),
        .n_prefix = lm_prefix_rows(m, r->n_image_rows, r->n_prompt),
        .n_start = lm_start_rows(m),
        .n_kv_rows = (int)group_n_kv_rows(m, r),
    };
    g->prompt = (int32_t *)(void *)((char *)g->image_rows + image_bytes);
    g->head = g->prompt + n_prompt;
    if (n_bytes)
        memcpy(g->image_rows, r->image_rows, n_bytes);
    memcpy(g->prompt, r->prompt, n_prompt * sizeof(int32_t));
    if (r->n_eos)
        memcpy(g->eos, r->eos, (size_t)r->n_eos * sizeof(int32_t));
    fill_head(g, m, image_id);
    return g;
}

static void release_growth(struct group *g)
{
    beam_free(g->beam);
    free(g->strands);
    free(g->tail_block);
    free(g->choices);
    g->beam = NULL;
    g->strands = NULL;
    g->tail_block = NULL;
    g->choices = NULL;
}

void group_free(struct group *g)
{
    if (!g)
        return;
    release_growth(g);
    free(g);
}

static size_t max_tail(const struct group *g)
{
    return (size_t)g->n_start + (size_t)g->options.max_new_tokens - 1;
}

static int32_t *tail(const struct group *g, int strand)
{
    return g->tails + (size_t)strand * max_tail(g);
}

static struct strand *strands_new(int n, int max_new_tokens)
{
    const size_t ids_at = (size_t)n * sizeof(struct strand);
    struct strand *s = calloc(1, ids_at + (size_t)n * (size_t)max_new_tokens * sizeof(int32_t));

    for (int i = 0; s && i < n; i++)
        s[i].ids = (int32_t *)(void *)((char *)s + ids_at) + (size_t)i * (size_t)max_new_tokens;
    return s;
}

int group_start(struct group *g, int kv_first)
{
    const struct generation_options *o = &g->options;
    const size_t n = (size_t)g->n_strands;

    if (o->n_beams > 1)
        g->beam = beam_new(&(struct beam_options){.n_beams = o->n_beams,
                                                  .max_new_tokens = o->max_new_tokens,
                                                  .length_penalty = o->length_penalty,
                                                  .early_stopping = o->early_stopping,
                                                  .eos = g->eos,
                                                  .n_eos = g->n_eos});
    else
        g->strands = strands_new(g->n_strands, o->max_new_tokens);
    g->tail_block = calloc(2 * n * max_tail(g) + 1, sizeof(*g->tail_block));
    g->choices = calloc(n, sizeof(*g->choices));
    if (!(g->beam || g->strands) || !g->tail_block || !g->choices) {
        release_growth(g);
        return -ENOMEM;
    }
    g->tails = g->tail_block;
    g->spare = g->tails + n * max_tail(g);
    g->kv_first = kv_first;
    g->n_live = g->n_strands;
    for (int s = 0; g->n_start && s < g->n_strands; s++)
        tail(g, s)[0] = kv_first + g->n_prefix;
    return 0;
}

struct lm_start group_first(const struct group *g)
{
    return (struct lm_start){.image_rows = g->image_rows,
                             .image_dtype = g->image_dtype,
                             .n_image_rows = g->n_image_rows,
                             .ids = g->prompt,
                             .n_ids = g->n_prompt,
                             .prefix_row = g->kv_first,
                             .first_row = g->kv_first + g->n_prefix};
}

int group_live(const struct group *g, int i)
{
    int s = 0;

    if (g->beam)
        return i;
    for (;; s++)
        if (!g->strands[s].done && i-- == 0)
            return s;
}

int group_next(struct group *g, struct lm_token *ret)
{
    const int n_tail = g->n_start + g->n_new, rows = g->kv_first + g->n_prefix + g->n_start;
    int n = 0;

    for (int s = 0; s < g->n_strands; s++) {
        if (!g->beam && g->strands[s].done)
            continue;
        tail(g, s)[n_tail - 1] = rows + (g->n_new - 1) * g->n_strands + s;
        ret[n++] = (struct lm_token){.id = g->beam ? beam_last_id(g->beam, s) : g->strands[s].ids[g->n_new - 1],
                                     .prefix_row = g->kv_first,
                                     .n_prefix = g->n_prefix,
                                     .tail = tail(g, s),
                                     .n_tail = n_tail};
    }
    assert(n == g->n_live);
    return n;
}

int group_history(const struct group *g, int strand, int32_t *ret)
{
    memcpy(ret, g->head, (size_t)g->n_head * sizeof(*ret));
    if (g->beam)
        beam_path(g->beam, strand, ret + g->n_head);
    else
        memcpy(ret + g->n_head, g->strands[strand].ids, (size_t)g->n_new * sizeof(*ret));
    return g->n_head + g->n_new;
}

/* The rows that a beam consists of are its parent's: the table moves, the rows stay. */
static void follow_parents(struct group *g, const int *parents)
{
    const size_t n = ((size_t)g->n_start + (size_t)g->n_new - 1) * sizeof(int32_t);
    int32_t *tails = g->tails;
    bool moved = false;

    for (int s = 0; s < g->n_strands; s++)
        moved |= parents[s] != s;
    if (!moved)
        return;
    for (int s = 0; s < g->n_strands; s++)
        memcpy(g->spare + (size_t)s * max_tail(g), tail(g, parents[s]), n);
    g->tails = g->spare;
    g->spare = tails;
}

static bool advance_beams(struct group *g, const struct group_choice *choices)
{
    struct beam_candidates candidates[GENERATION_MAX_BEAMS];
    int parents[GENERATION_MAX_BEAMS];
    bool over;

    for (int s = 0; s < g->n_strands; s++) {
        candidates[s] = (struct beam_candidates){choices[s].ids, choices[s].values, choices[s].logprobs};
        g->failed |= choices[s].none;
    }
    if (g->failed)
        return true;
    over = beam_step(g->beam, candidates, parents);
    g->n_new++;
    if (!over)
        follow_parents(g, parents);
    return over;
}

static bool is_eos(const struct group *g, int32_t id)
{
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos[i] == id)
            return true;
    return false;
}

static bool advance_strands(struct group *g, const struct group_choice *choices)
{
    for (int i = 0; i < g->n_strands; i++) {
        struct strand *s = &g->strands[i];

        if (s->done)
            continue;
        if ((g->failed = choices[i].none))
            return true;
        s->ids[s->n_ids++] = choices[i].ids[0];
        s->logprob += (double)choices[i].logprobs[0];
        s->finish = is_eos(g, choices[i].ids[0]) ? GENERATE_FINISH_EOS : GENERATE_FINISH_LENGTH;
        s->done = s->finish == GENERATE_FINISH_EOS || s->n_ids == g->options.max_new_tokens;
        g->n_live -= s->done;
    }
    g->n_new++;
    return g->n_live == 0;
}

bool group_advance(struct group *g, const struct group_choice *choices)
{
    return g->beam ? advance_beams(g, choices) : advance_strands(g, choices);
}

static struct generate_sequence sequence_of(const struct group *g, int i)
{
    if (g->beam) {
        const struct beam_hypothesis h = beam_hypothesis(g->beam, i);

        return (struct generate_sequence){
            .n_ids = h.n_ids, .logprob = h.logprob, .score = (double)h.score, .finish = h.finish};
    }
    return (struct generate_sequence){.n_ids = g->strands[i].n_ids,
                                      .logprob = g->strands[i].logprob,
                                      .score = g->strands[i].logprob,
                                      .finish = g->strands[i].finish};
}

int group_result(const struct group *g, struct generate_result *ret)
{
    const int n = g->failed ? 0 : g->options.n_return;
    struct generate_sequence *sequences;
    size_t n_ids = 0;
    int32_t *ids;

    for (int i = 0; i < n; i++)
        n_ids += (size_t)sequence_of(g, i).n_ids;
    sequences = calloc(1, (size_t)n * sizeof(*sequences) + n_ids * sizeof(*ids) + 1);
    if (!sequences)
        return -ENOMEM;
    ids = (int32_t *)(void *)(sequences + n);
    for (int i = 0; i < n; i++) {
        sequences[i] = sequence_of(g, i);
        sequences[i].ids = ids;
        if (g->beam)
            beam_hypothesis_path(g->beam, i, ids);
        else
            memcpy(ids, g->strands[i].ids, (size_t)sequences[i].n_ids * sizeof(*ids));
        ids += sequences[i].n_ids;
    }
    *ret = (struct generate_result){.tag = g->tag, .n_sequences = n, .sequences = sequences};
    return 0;
}

void group_list_push(struct group_list *l, struct group *g)
{
    g->next = NULL;
    if (l->last)
        l->last->next = g;
    else
        l->first = g;
    l->last = g;
    l->n++;
}

struct group *group_list_pop(struct group_list *l)
{
    struct group *g = l->first;

    if (!g)
        return NULL;
    l->first = g->next;
    if (!l->first)
        l->last = NULL;
    l->n--;
    g->next = NULL;
    return g;
}

int group_list_drop(struct group_list *l, const uint64_t *tag)
{
    struct group_list kept = {0};
    struct group *g;
    int n = 0;

    while ((g = group_list_pop(l))) {
        if (tag && g->tag != *tag) {
            group_list_push(&kept, g);
            continue;
        }
        group_free(g);
        n++;
    }
    *l = kept;
    return n;
}
