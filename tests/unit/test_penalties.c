/* What the penalties look at. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "llm_worker/penalties.h"

enum { VOCAB = 10 };

#define IDS(...) (const int32_t[]){__VA_ARGS__}, (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check(int n_got, const int32_t *got, const int32_t *want, int n_want)
{
    assert_int_equal(n_got, n_want);
    for (int i = 0; i < n_want; i++)
        assert_int_equal(got[i], want[i]);
}

/* Once each; the image token may be past the vocabulary. */
static void test_penalties_seen_lists_each_id_once(void **state)
{
    struct penalties *p = penalties_new(VOCAB);
    int32_t got[VOCAB];

    (void)state;
    assert_non_null(p);
    for (int i = 0; i < 3; i++) {
        check(penalties_seen(p, IDS(10, 10, 2, 5, 2, 9, 5, 0, 12), got), got, IDS(2, 5, 9, 0));
        assert_int_equal(penalties_seen(p, NULL, 0, got), 0);
    }
    penalties_free(p);
}

static void test_penalties_banned_is_what_would_repeat_a_run(void **state)
{
    struct penalties *p = penalties_new(VOCAB);
    int32_t got[2 * VOCAB];

    (void)state;
    assert_non_null(p);
    /* 1: every id so far; 2: what followed a 3; 3: what followed 1 3 */
    check(penalties_banned(p, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 1, NULL, 0, got), got, IDS(3, 4, 1, 5));
    check(penalties_banned(p, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 2, NULL, 0, got), got, IDS(4, 5));
    check(penalties_banned(p, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 3, NULL, 0, got), got, IDS(5));
    assert_int_equal(penalties_banned(p, IDS(3, 4, 1, 3), 0, NULL, 0, got), 0);
    assert_int_equal(penalties_banned(p, IDS(3, 4), 3, NULL, 0, got), 0);
    check(penalties_banned(p, IDS(7, 7), 2, NULL, 0, got), got, IDS(7));
    penalties_free(p);
}

static void test_penalties_banned_has_each_id_once(void **state)
{
    struct penalties *p = penalties_new(VOCAB);
    int32_t got[2 * VOCAB];

    (void)state;
    assert_non_null(p);
    /* two ends of sequence, one of which would repeat; one that the vocabulary does not have */
    check(penalties_banned(p, IDS(1, 2, 1, 3, 1), 2, IDS(2, 8, 11), got), got, IDS(2, 8, 3));
    check(penalties_banned(p, IDS(1, 2), 0, IDS(8, 8), got), got, IDS(8));
    penalties_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_penalties_seen_lists_each_id_once),
        cmocka_unit_test(test_penalties_banned_is_what_would_repeat_a_run),
        cmocka_unit_test(test_penalties_banned_has_each_id_once),
    };

    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
