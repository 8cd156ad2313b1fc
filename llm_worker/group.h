/* group.h - one request on its way to a result: its beams or samples over one prompt, and the queues it stands in.
 *
 * A "strand" is one sequence that grows: a beam, a sample, or the only one of greedy decoding. All strands share the
 * rows of the prompt; which rows of the cache a strand consists of beyond that is its tail (lm.h). The rows of a request
 * are one run: the prompt, T5's start token, then for each token that is fed back one row a strand.
 * Who may call: generate.c. Units: tokens, rows of the cache.
 * Memory: group_new copies the request; group_start allocates what grows. A group is in one list at a time.
 * Errors: NULL or -ENOMEM. */
#ifndef BLIPLINE_LLM_WORKER_GROUP_H
#define BLIPLINE_LLM_WORKER_GROUP_H

#include "llm_worker/generate.h"
#include "llm_worker/lm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct beam;

/* Greedy and sampling; beams are in `beam`. */
struct strand {
    int32_t *ids; /* [max_new_tokens] */
    double logprob;
    bool done;
    int n_ids;
    enum generate_finish finish;
};

struct group {
    struct group *next;
    uint64_t tag, key;
    struct generation_options options;
    int32_t eos[GENERATE_MAX_EOS];
    int n_eos;
    void *image_rows; /* [n_image_rows, L] */
    enum dtype image_dtype;
    int n_image_rows;
    int32_t *prompt;
    int n_prompt;
    int32_t *head; /* [n_head] what penalties look at before the first new token */
    int n_head;
    int n_strands;
    int n_prefix, n_start; /* rows of the prompt; of the start token: 0 or 1 */
    int n_kv_rows;         /* all of its rows of the cache */

    /* from group_start on */
    int kv_first;
    int n_live; /* strands that still grow */
    int n_new;  /* tokens of each of those */
    bool failed;
    bool cancelled;         /* while a pass held it: it goes when that has ended */
    struct beam *beam;      /* NULL: greedy or sampling */
    struct strand *strands; /* [n_strands]; with beams NULL */
    int32_t *tails, *spare; /* [n_strands, n_start + max_new_tokens - 1] each, in tail_block */
    int32_t *tail_block;
    int *choices; /* [n_strands] the strand's entry among the choices of this step */
};

struct group_list {
    struct group *first, *last;
    int n;
};

/* What a token is chosen from: n_best candidates, the first one for greedy and sampling. */
struct group_choice {
    const int32_t *ids;
    const float *values, *logprobs;
    bool none; /* nothing finite was left: all values are -inf */
};

/* Beams or samples that a request with these options grows. */
int group_n_strands(const struct generation_options *o);
/* Rows of the cache that a request holds. */
int64_t group_n_kv_rows(const struct lm *m, const struct generate_request *r);

/* image_id: stands for each image row in the history, -1: none. NULL: no memory. */
struct group *group_new(const struct lm *m, const struct generate_request *r, int32_t image_id);
void group_free(struct group *g);

/* Begin with rows kv_first .. of the cache. -ENOMEM: nothing has changed. */
int group_start(struct group *g, int kv_first) CHECK_RESULT;
/* The first pass, which gives one row of logits for all strands. */
struct lm_start group_first(const struct group *g);
/* The newest token of each live strand, which takes a row for it; ret has room for n_live. Returns n_live. */
int group_next(struct group *g, struct lm_token *ret);
/* The i-th live strand. */
int group_live(const struct group *g, int i);
/* Head and new ids of a strand into ret [n_head + n_new]. Returns how many. */
int group_history(const struct group *g, int strand, int32_t *ret);
/* Give each live strand its token; choices: one for each strand. Returns true when the request is finished. */
bool group_advance(struct group *g, const struct group_choice *choices);
/* Of a finished group. */
int group_result(const struct group *g, struct generate_result *ret) CHECK_RESULT;

void group_list_push(struct group_list *l, struct group *g);
struct group *group_list_pop(struct group_list *l); /* NULL: empty */
/* Free every group with this tag, or all of them (tag NULL). Returns how many. */
int group_list_drop(struct group_list *l, const uint64_t *tag);

#endif
