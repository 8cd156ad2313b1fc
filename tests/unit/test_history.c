/* What the penalties look at. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "llm_worker/history.h"

enum { VOCAB = 10 };

#define IDS(...) (const int32_t[]){__VA_ARGS__}, (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check(int n_got, const int32_t *got, const int32_t *want, int n_want)
{
    assert_int_equal(n_got, n_want);
    for (int i = 0; i < n_want; i++)
        assert_int_equal(got[i], want[i]);
}

/* Once each; the image token may be past the vocabulary. */
static void test_history_seen_lists_each_id_once(void **state)
{
    struct history *h = history_new(VOCAB);
    int32_t got[VOCAB];

    (void)state;
    assert_non_null(h);
    for (int i = 0; i < 3; i++) {
        check(history_seen(h, IDS(10, 10, 2, 5, 2, 9, 5, 0, 12), got), got, IDS(2, 5, 9, 0));
        assert_int_equal(history_seen(h, NULL, 0, got), 0);
    }
    history_free(h);
}

static void test_history_banned_is_what_would_repeat_a_run(void **state)
{
    struct history *h = history_new(VOCAB);
    int32_t got[2 * VOCAB];

    (void)state;
    assert_non_null(h);
    /* 1: every id so far; 2: what followed a 3; 3: what followed 1 3 */
    check(history_banned(h, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 1, NULL, 0, got), got, IDS(3, 4, 1, 5));
    check(history_banned(h, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 2, NULL, 0, got), got, IDS(4, 5));
    check(history_banned(h, IDS(3, 4, 1, 3, 5, 3, 4, 1, 3), 3, NULL, 0, got), got, IDS(5));
    assert_int_equal(history_banned(h, IDS(3, 4, 1, 3), 0, NULL, 0, got), 0);
    assert_int_equal(history_banned(h, IDS(3, 4), 3, NULL, 0, got), 0);
    check(history_banned(h, IDS(7, 7), 2, NULL, 0, got), got, IDS(7));
    history_free(h);
}

static void test_history_banned_has_each_id_once(void **state)
{
    struct history *h = history_new(VOCAB);
    int32_t got[2 * VOCAB];

    (void)state;
    assert_non_null(h);
    /* two ends of sequence, one of which would repeat; one that the vocabulary does not have */
    check(history_banned(h, IDS(1, 2, 1, 3, 1), 2, IDS(2, 8, 11), got), got, IDS(2, 8, 3));
    check(history_banned(h, IDS(1, 2), 0, IDS(8, 8), got), got, IDS(8));
    history_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history_seen_lists_each_id_once),
        cmocka_unit_test(test_history_banned_is_what_would_repeat_a_run),
        cmocka_unit_test(test_history_banned_has_each_id_once),
    };

    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
