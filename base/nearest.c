#include "base/nearest.h"

#include <stdio.h>
#include <string.h>

/* Levenshtein distance of words of up to 31 bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    size_t row[32];

    if (n > 31 || m > 31)
        return 32;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = corner + (a[i - 1] != b[j - 1]);
            size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;

            corner = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[m];
}

const char *nearest_word(const char *typed, const char *const *words)
{
    const char *best = NULL;
    size_t best_distance = strlen(typed) / 3 + 2;

    for (size_t i = 0; words[i]; i++) {
        size_t n = strlen(typed);
        size_t d = n >= 3 && strncmp(typed, words[i], n) == 0 ? 0 : edit_distance(typed, words[i]);

        if (d < best_distance) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

char *nearest_hint(const char *before, const char *typed, const char *const *words, char *ret, size_t ret_size)
{
    const char *near = nearest_word(typed, words);

    ret[0] = '\0';
    if (near)
        (void)snprintf(ret, ret_size, "; did you mean %s%s?", before, near);
    return ret;
}
