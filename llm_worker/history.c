#include "llm_worker/history.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct history {
    int vocab;
    uint32_t round;   /* of the current call */
    uint32_t marks[]; /* [vocab] the round in which the id was last listed */
};

struct history *history_new(int vocab)
{
    struct history *h = calloc(1, sizeof(*h) + (size_t)vocab * sizeof(h->marks[0]));

    if (h)
        h->vocab = vocab;
    return h;
}

void history_free(struct history *h)
{
    free(h);
}

static void begin(struct history *h)
{
    if (++h->round == 0) {
        memset(h->marks, 0, (size_t)h->vocab * sizeof(h->marks[0]));
        h->round = 1;
    }
}

/* The image token of some checkpoints lies past the vocabulary: nothing to penalise there. */
static bool is_new(struct history *h, int32_t id)
{
    if (id < 0 || id >= h->vocab || h->marks[id] == h->round)
        return false;
    h->marks[id] = h->round;
    return true;
}

int history_seen(struct history *h, const int32_t *ids, int n, int32_t *ret)
{
    int n_seen = 0;

    begin(h);
    for (int i = 0; i < n; i++)
        if (is_new(h, ids[i]))
            ret[n_seen++] = ids[i];
    return n_seen;
}

int history_banned(struct history *h, const int32_t *ids, int n, int ngram, const int32_t *never, int n_never,
                   int32_t *ret)
{
    int n_banned = 0;

    begin(h);
    for (int i = 0; i < n_never; i++)
        if (is_new(h, never[i]))
            ret[n_banned++] = never[i];
    if (ngram < 1 || ngram > n)
        return n_banned;
    for (int i = 0; i + ngram <= n; i++)
        if (memcmp(ids + i, ids + n - (ngram - 1), (size_t)(ngram - 1) * sizeof(*ids)) == 0 &&
            is_new(h, ids[i + ngram - 1]))
            ret[n_banned++] = ids[i + ngram - 1];
    return n_banned;
}
