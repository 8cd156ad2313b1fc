#include "llm_worker/generate.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/choice.h"
#include "llm_worker/opt.h"
#include "llm_worker/sequence.h"

struct generate {
    struct opt *m;
    int queue_limit;
    int32_t forbidden_id;
    struct sequence_list waiting, finished;
    struct sequence **active; /* [n_active], in order of start; the pass has this order too */
    int n_active;
    int *free_slots; /* [n_free] a stack */
    int n_free;
    struct opt_seq *seqs; /* [n_slots] the pass */
    int32_t *ids;         /* [n_slots] what was chosen */
    float *logprobs;
};

int generate_new(struct opt *m, int queue_limit, int32_t forbidden_id, struct generate **ret, struct err *err)
{
    struct generate *g = calloc(1, sizeof(*g));
    const size_t n = (size_t)opt_n_slots(m);

    assert(queue_limit >= 1);
    if (!g)
        return err_set(err, -ENOMEM, "no memory for the sequence scheduler");
    g->m = m;
    g->queue_limit = queue_limit;
    g->forbidden_id = forbidden_id;
    g->active = calloc(n, sizeof(*g->active));
    g->free_slots = calloc(n, sizeof(*g->free_slots));
    g->seqs = calloc(n, sizeof(*g->seqs));
    g->ids = calloc(n, sizeof(*g->ids));
    g->logprobs = calloc(n, sizeof(*g->logprobs));
    if (!g->active || !g->free_slots || !g->seqs || !g->ids || !g->logprobs) {
        generate_free(g);
        return err_set(err, -ENOMEM, "no memory for the sequence scheduler");
    }
    for (g->n_free = 0; g->n_free < (int)n; g->n_free++)
        g->free_slots[g->n_free] = (int)n - 1 - g->n_free;
    *ret = g;
    return 0;
}

void generate_free(struct generate *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_active; i++)
        free(g->active[i]);
    sequence_list_drop(&g->waiting, NULL);
    sequence_list_drop(&g->finished, NULL);
    free(g->active);
    free(g->free_slots);
    free(g->seqs);
    free(g->ids);
    free(g->logprobs);
    free(g);
}

int generate_check(const struct generate *g, const struct generate_request *r, struct err *err)
{
    const int vocab = opt_vocab_size(g->m), n_positions = opt_n_positions(g->m);
    int64_t need;

    if (r->n_image_rows < 0 || r->n_prompt < 1 || r->max_new_tokens < 1)
        return err_set(err, -EINVAL,
                       "%d image rows, a prompt of %d tokens and %d new tokens: a prompt and new tokens "
                       "need at least 1",
                       r->n_image_rows, r->n_prompt, r->max_new_tokens);
    if (r->n_eos < 0 || r->n_eos > GENERATE_MAX_EOS)
        return err_set(err, -EINVAL, "%d end-of-sequence ids, at most %d are possible", r->n_eos, GENERATE_MAX_EOS);
    /* the last new token is never fed back */
    need = (int64_t)r->n_image_rows + r->n_prompt + r->max_new_tokens - 1;
    if (need > n_positions)
        return err_set(err, -E2BIG,
                       "%d image rows, a prompt of %d tokens and %d new tokens need %lld positions, there are %d",
                       r->n_image_rows, r->n_prompt, r->max_new_tokens, (long long)need, n_positions);
    for (int i = 0; i < r->n_prompt; i++) {
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return err_set(err, -EINVAL, "token %d of the prompt is %d, the model knows 0 to %d", i, r->prompt[i],
                           vocab - 1);
        if (r->prompt[i] == g->forbidden_id)
            return err_set(err, -EINVAL, "token %d of the prompt is the image token (%d), which stands for the picture",
                           i, r->prompt[i]);
    }
    return 0;
}

int generate_submit(struct generate *g, const struct generate_request *r, struct err *err)
{
    struct sequence *s;
    int rc = generate_check(g, r, err);

    if (rc < 0)
        return rc;
    if (g->waiting.n >= g->queue_limit)
        return err_set(err, -EAGAIN, "%d requests are waiting", g->waiting.n);
    s = sequence_new(r, opt_width(g->m));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for a request of %d image rows", r->n_image_rows);
    sequence_list_push(&g->waiting, s);
    return 0;
}

/* Requests start in the order they came, as long as there is a slot and the pass has room for all their rows. */
static void start_waiting(struct generate *g)
{
    int n_rows = g->n_active;

    while (g->waiting.first && g->n_free > 0) {
        struct sequence *s = g->waiting.first;

        if (n_rows + s->n_image_rows + s->n_prompt > opt_max_rows(g->m))
            break;
        n_rows += s->n_image_rows + s->n_prompt;
        s = sequence_list_pop(&g->waiting);
        s->slot = g->free_slots[--g->n_free];
        g->active[g->n_active++] = s;
    }
}

static struct opt_seq next_rows(const struct sequence *s)
{
    if (s->n_new == 0)
        return (struct opt_seq){
            .slot = s->slot,
            .n_image_rows = s->n_image_rows,
            .image_rows = s->image_rows,
            .n_ids = s->n_prompt,
            .ids = s->prompt,
        };
    return (struct opt_seq){.slot = s->slot, .first_position = s->n_cached, .n_ids = 1, .ids = &s->ids[s->n_new - 1]};
}

/* Give the chosen tokens to their sequences; those that end leave. */
static void advance(struct generate *g)
{
    int n_kept = 0;

    for (int i = 0; i < g->n_active; i++) {
        struct sequence *s = g->active[i];

        s->n_cached += g->seqs[i].n_image_rows + g->seqs[i].n_ids;
        if (!sequence_push(s, g->ids[i], g->logprobs[i])) {
            g->active[n_kept++] = s;
            continue;
        }
        g->free_slots[g->n_free++] = s->slot;
        sequence_list_push(&g->finished, s);
    }
    g->n_active = n_kept;
}

int generate_step(struct generate *g)
{
    const float *logits;
    int n, rc;

    start_waiting(g);
    n = g->n_active;
    if (n == 0)
        return 0;
    for (int i = 0; i < n; i++)
        g->seqs[i] = next_rows(g->active[i]);
    if ((rc = opt_forward(g->m, n, g->seqs, &logits)) < 0 ||
        (rc = choice_greedy(opt_ops(g->m), n, opt_vocab_size(g->m), logits, g->ids, g->logprobs)) < 0)
        return rc;
    advance(g);
    return n;
}

int generate_take(struct generate *g, struct generate_result *ret)
{
    struct sequence *s = g->finished.first;
    int32_t *ids;

    if (!s)
        return 0;
    ids = malloc((size_t)s->n_new * sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    memcpy(ids, s->ids, (size_t)s->n_new * sizeof(*ids));
    *ret = (struct generate_result){
        .tag = s->tag, .ids = ids, .n_ids = s->n_new, .logprob = s->logprob, .finish = s->finish};
    free(sequence_list_pop(&g->finished));
    return 1;
}

void generate_result_release(struct generate_result *r)
{
    free(r->ids);
    r->ids = NULL;
    r->n_ids = 0;
}

int generate_cancel(struct generate *g, uint64_t tag)
{
    int n = sequence_list_drop(&g->waiting, &tag) + sequence_list_drop(&g->finished, &tag), n_kept = 0;

    for (int i = 0; i < g->n_active; i++) {
        struct sequence *s = g->active[i];

        if (s->tag != tag) {
            g->active[n_kept++] = s;
            continue;
        }
        g->free_slots[g->n_free++] = s->slot;
        free(s);
        n++;
    }
    g->n_active = n_kept;
    return n;
}

int generate_n_waiting(const struct generate *g)
{
    return g->waiting.n;
}

int generate_n_active(const struct generate *g)
{
    return g->n_active;
}

int generate_n_finished(const struct generate *g)
{
    return g->finished.n;
}

int generate_room(const struct generate *g)
{
    return g->queue_limit - g->waiting.n;
}
