#include "llm_worker/penalties.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct penalties {
    int vocab;
    uint32_t round;   /* number of the current call */
    uint32_t marks[]; /* [vocab] the last call that listed the id */
};

struct penalties *penalties_new(int vocab)
{
    struct penalties *p = calloc(1, sizeof(*p) + (size_t)vocab * sizeof(p->marks[0]));

    if (p)
        p->vocab = vocab;
    return p;
}

void penalties_free(struct penalties *p)
{
    free(p);
}

static void begin(struct penalties *p)
{
    if (++p->round == 0) {
        memset(p->marks, 0, (size_t)p->vocab * sizeof(p->marks[0]));
        p->round = 1;
    }
}

/* The image token of some checkpoints is beyond the vocabulary and is ignored. */
static bool is_new(struct penalties *p, int32_t id)
{
    if (id < 0 || id >= p->vocab || p->marks[id] == p->round)
        return false;
    p->marks[id] = p->round;
    return true;
}

int penalties_seen(struct penalties *p, const int32_t *ids, int n, int32_t *ret)
{
    int n_seen = 0;

    begin(p);
    for (int i = 0; i < n; i++)
        if (is_new(p, ids[i]))
            ret[n_seen++] = ids[i];
    return n_seen;
}

int penalties_banned(struct penalties *p, const int32_t *ids, int n, int ngram, const int32_t *never, int n_never,
                     int32_t *ret)
{
    int n_banned = 0;

    begin(p);
    for (int i = 0; i < n_never; i++)
        if (is_new(p, never[i]))
            ret[n_banned++] = never[i];
    if (ngram < 1 || ngram > n)
        return n_banned;
    for (int i = 0; i + ngram <= n; i++)
        if (memcmp(ids + i, ids + n - (ngram - 1), (size_t)(ngram - 1) * sizeof(*ids)) == 0 &&
            is_new(p, ids[i + ngram - 1]))
            ret[n_banned++] = ids[i + ngram - 1];
    return n_banned;
}
