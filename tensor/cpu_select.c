#include "tensor/cpu_select.h"

#include <stdlib.h>

float cpu_kth_largest(float *x, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1;

    while (lo < hi) {
        float a = x[lo], b = x[lo + (hi - lo) / 2], c = x[hi];
        float pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        int64_t i = lo, j = hi;

        while (i <= j) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i <= j) {
                float swap = x[i];

                x[i++] = x[j];
                x[j--] = swap;
            }
        }
        if (k - 1 <= j)
            hi = j;
        else if (k - 1 >= i)
            lo = i;
        else
            break;
    }
    return x[k - 1];
}

/* The largest first, the lowest id first among equals. */
static bool is_better(const struct cpu_candidate *a, const struct cpu_candidate *b)
{
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

static int compare_better(const void *left, const void *right)
{
    return is_better(left, right) ? -1 : is_better(right, left);
}

static void swap_candidates(struct cpu_candidate *a, struct cpu_candidate *b)
{
    struct cpu_candidate swap = *a;

    *a = *b;
    *b = swap;
}

/* Moves the candidates that come before the middle one of first, middle and last to the front, then that one; returns
 * its place in lo .. hi-1. */
static int64_t partition(struct cpu_candidate *c, int64_t lo, int64_t hi,
                         bool (*before)(const struct cpu_candidate *, const struct cpu_candidate *))
{
    int64_t mid = lo + (hi - lo) / 2, last = hi - 1, store = lo;

    if (before(&c[mid], &c[lo]))
        swap_candidates(&c[mid], &c[lo]);
    if (before(&c[last], &c[lo]))
        swap_candidates(&c[last], &c[lo]);
    if (before(&c[mid], &c[last]))
        swap_candidates(&c[mid], &c[last]); /* the middle one is last now */
    for (int64_t i = lo; i < last; i++)
        if (before(&c[i], &c[last]))
            swap_candidates(&c[i], &c[store++]);
    swap_candidates(&c[store], &c[last]);
    return store;
}

void cpu_select_best(struct cpu_candidate *c, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n;

    while (hi - lo > 1) {
        int64_t pivot = partition(c, lo, hi, is_better);

        if (pivot >= k)
            hi = pivot;
        else
            lo = pivot + 1;
        if (pivot == k - 1 || pivot == k)
            break;
    }
    if (k > 1)
        qsort(c, (size_t)k, sizeof(*c), compare_better);
}

struct cpu_candidate cpu_nucleus_end(struct cpu_candidate *c, int64_t n, double mass)
{
    int64_t lo = 0, hi = n;
    struct cpu_candidate end = c[0];
    double above = 0;

    while (lo < hi) {
        int64_t pivot = partition(c, lo, hi, cpu_is_before_in_nucleus);
        double left = 0;

        for (int64_t i = lo; i < pivot; i++)
            left += (double)c[i].weight;
        if (pivot > 0 && above + left >= mass) {
            hi = pivot;
        } else {
            end = c[pivot];
            above += left + (double)end.weight;
            lo = pivot + 1;
        }
    }
    return end;
}
