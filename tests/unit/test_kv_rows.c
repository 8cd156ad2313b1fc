/* Rows of the cache under random traffic, against a map with one mark a row. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "llm_worker/kv_rows.h"
#include "tests/unit/fixture.h"

enum { N_ROWS = 97, MAX_RUNS = 7, N_TURNS = 20000 };

/* First row of the first gap of n rows, or -1. */
static int first_gap(const char *used, int n)
{
    for (int at = 0; at + n <= N_ROWS; at++)
        if (!memchr(used + at, 1, (size_t)n))
            return at;
    return -1;
}

static void test_kv_rows_takes_the_first_gap_that_is_long_enough(void **state)
{
    uint64_t seed = fixture_seed("kv_rows");
    struct kv_rows *k = kv_rows_new(N_ROWS, MAX_RUNS);
    int first[MAX_RUNS], n[MAX_RUNS], n_runs = 0, n_full = 0, n_out_of_runs = 0;
    char used[N_ROWS] = {0};

    (void)state;
    assert_non_null(k);
    for (int turn = 0; turn < N_TURNS; turn++) {
        const int want = 1 + (int)(fixture_random(&seed) % 40), gap = first_gap(used, want);

        if (n_runs && fixture_random(&seed) % 2) {
            const int i = (int)(fixture_random(&seed) % (uint64_t)n_runs);

            kv_rows_give(k, first[i]);
            memset(used + first[i], 0, (size_t)n[i]);
            n_runs--;
            first[i] = first[n_runs];
            n[i] = n[n_runs];
        } else if (n_runs == MAX_RUNS || gap < 0) {
            n_out_of_runs += n_runs == MAX_RUNS;
            n_full += gap < 0;
            assert_int_equal(kv_rows_take(k, want), -1);
        } else {
            first[n_runs] = kv_rows_take(k, want);
            assert_int_equal(first[n_runs], gap);
            memset(used + gap, 1, (size_t)want);
            n[n_runs++] = want;
        }
        assert_true(kv_rows_validate(k));
    }
    assert_true(n_full > 0 && n_out_of_runs > 0);
    while (n_runs)
        kv_rows_give(k, first[--n_runs]);
    assert_int_equal(kv_rows_take(k, N_ROWS), 0); /* all are free */
    assert_int_equal(kv_rows_take(k, 1), -1);
    kv_rows_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kv_rows_takes_the_first_gap_that_is_long_enough)};

    return cmocka_run_group_tests_name("kv_rows", tests, NULL, NULL);
}
