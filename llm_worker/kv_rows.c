#include "llm_worker/kv_rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct run {
    int first, n;
};

struct kv_rows {
    int n_rows, max_runs, n_runs;
    struct run runs[]; /* [max_runs] the first n_runs are used, in order of rows */
};

struct kv_rows *kv_rows_new(int n, int max_runs)
{
    struct kv_rows *k = calloc(1, sizeof(*k) + (size_t)max_runs * sizeof(k->runs[0]));

    if (!k)
        return NULL;
    k->n_rows = n;
    k->max_runs = max_runs;
    return k;
}

void kv_rows_free(struct kv_rows *k)
{
    free(k);
}

int kv_rows_take(struct kv_rows *k, int n)
{
    int at = 0, i;

    assert(n >= 1);
    if (k->n_runs == k->max_runs)
        return -1;
    for (i = 0; i < k->n_runs && k->runs[i].first - at < n; i++)
        at = k->runs[i].first + k->runs[i].n;
    if (k->n_rows - at < n)
        return -1;
    memmove(k->runs + i + 1, k->runs + i, (size_t)(k->n_runs - i) * sizeof(k->runs[0]));
    k->runs[i] = (struct run){at, n};
    k->n_runs++;
    return at;
}

void kv_rows_give(struct kv_rows *k, int first)
{
    int i = 0;

    while (i < k->n_runs && k->runs[i].first != first)
        i++;
    assert(i < k->n_runs);
    k->n_runs--;
    memmove(k->runs + i, k->runs + i + 1, (size_t)(k->n_runs - i) * sizeof(k->runs[0]));
}

bool kv_rows_validate(const struct kv_rows *k)
{
    int at = 0;

    for (int i = 0; i < k->n_runs; i++) {
        if (k->runs[i].n < 1 || k->runs[i].first < at)
            return false;
        at = k->runs[i].first + k->runs[i].n;
    }
    return k->n_runs <= k->max_runs && at <= k->n_rows;
}
