/* Beam search on continuations made by hand: what ends a search, what is returned, in what order. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "llm_worker/beam.h"

enum { EOS = 9, MAX_BEAMS = 3, MAX_BEST = 9 };

static const int32_t eos[] = {EOS};

static struct beam *search(int n_beams, int max_new_tokens, float length_penalty, enum early_stopping early)
{
    struct beam *b = beam_new(&(struct beam_options){.n_beams = n_beams,
                                                     .max_new_tokens = max_new_tokens,
                                                     .length_penalty = length_penalty,
                                                     .early_stopping = early,
                                                     .eos = eos,
                                                     .n_eos = 1});

    assert_non_null(b);
    assert_int_equal(beam_n_best(b), 2 * n_beams);
    return b;
}

/* What one beam offers: ids and values, best first; the model's own log-probabilities are twice the values. The rest of
 * the list is far behind. */
struct offer {
    int n;
    int32_t ids[MAX_BEST];
    float values[MAX_BEST];
};

static bool step(struct beam *b, int n_beams, const struct offer *offers, int *ret_parents)
{
    struct beam_candidates candidates[MAX_BEAMS];
    float logprobs[MAX_BEAMS][MAX_BEST];
    struct offer filled[MAX_BEAMS];

    for (int i = 0; i < n_beams; i++) {
        filled[i] = offers[i];
        for (int k = filled[i].n; k < MAX_BEST; k++) {
            filled[i].ids[k] = 100 + k;
            filled[i].values[k] = -50 - (float)k;
        }
        for (int k = 0; k < MAX_BEST; k++)
            logprobs[i][k] = 2 * filled[i].values[k];
        candidates[i] = (struct beam_candidates){filled[i].ids, filled[i].values, logprobs[i]};
    }
    return beam_step(b, candidates, ret_parents);
}

static void check_hypothesis(const struct beam *b, int i, float score, double logprob, int n, const int32_t *want)
{
    const struct beam_hypothesis h = beam_hypothesis(b, i);
    int32_t ids[16];

    assert_int_equal(h.n_ids, n);
    assert_true(fabsf(h.score - score) < 1e-5F);
    assert_true(fabs(h.logprob - logprob) < 1e-5);
    beam_hypothesis_path(b, i, ids);
    for (int k = 0; k < n; k++)
        assert_int_equal(ids[k], want[k]);
    assert_int_equal(h.finish, ids[n - 1] == EOS ? GENERATE_FINISH_EOS : GENERATE_FINISH_LENGTH);
}

/* All beams say the same before the first token: only the first one counts. */
static void test_beam_first_step_takes_different_tokens(void **state)
{
    const struct offer first = {3, {4, 5, 6}, {-1, -1.5F, -2}};
    struct beam *b = search(2, 5, 1, EARLY_STOPPING_FALSE);
    int parents[2];

    (void)state;
    assert_false(step(b, 2, (const struct offer[]){first, first}, parents));
    assert_int_equal(parents[0], 0);
    assert_int_equal(parents[1], 0);
    assert_int_equal(beam_last_id(b, 0), 4);
    assert_int_equal(beam_last_id(b, 1), 5);
    beam_free(b);
}

/* Both beams go on from the second one; the paths follow. */
static void test_beam_paths_follow_the_parents(void **state)
{
    const struct offer first = {2, {4, 5}, {-1, -1.5F}};
    struct beam *b = search(2, 5, 1, EARLY_STOPPING_FALSE);
    int32_t ids[2];
    int parents[2];

    (void)state;
    assert_false(step(b, 2, (const struct offer[]){first, first}, parents));
    assert_false(step(b, 2, (const struct offer[]){{1, {7}, {-4}}, {2, {6, 8}, {-0.5F, -1}}}, parents));
    assert_int_equal(parents[0], 1);
    assert_int_equal(parents[1], 1);
    beam_path(b, 0, ids);
    assert_true(ids[0] == 5 && ids[1] == 6);
    beam_path(b, 1, ids);
    assert_true(ids[0] == 5 && ids[1] == 8);
    beam_free(b);
}

/* A continuation that ends counts only among the first n_beams, and takes no beam's place. */
static void test_beam_only_the_first_may_finish(void **state)
{
    const struct offer first = {4, {4, 5, EOS, 6}, {-1, -2, -3, -4}};
    struct beam *b = search(2, 2, 1, EARLY_STOPPING_FALSE);
    int parents[2];

    (void)state;
    assert_false(step(b, 2, (const struct offer[]){first, first}, parents)); /* third: not noted */
    assert_int_equal(beam_last_id(b, 1), 5);
    /* the length limit: both of the first two end */
    assert_true(step(b, 2, (const struct offer[]){{2, {7, EOS}, {-1, -1.5F}}, {1, {8}, {-3}}}, parents));
    check_hypothesis(b, 0, -1, -4, 2, (const int32_t[]){4, 7});
    check_hypothesis(b, 1, -1.25F, -5, 2, (const int32_t[]){4, EOS});
    beam_free(b);
}

/* Two hypotheses of one and two tokens, sums -1 and -1.6, and a beam at -0.4 that could still win: does it go on? */
static bool over_after_two(float length_penalty, enum early_stopping early, struct beam **ret)
{
    const struct offer first = {3, {4, EOS, 5}, {-0.2F, -1, -1.1F}};
    int parents[2];

    *ret = search(2, 10, length_penalty, early);
    assert_false(step(*ret, 2, (const struct offer[]){first, first}, parents));
    return step(*ret, 2, (const struct offer[]){{2, {6, EOS}, {-0.2F, -1.4F}}, {1, {7}, {-1}}}, parents);
}

static void test_beam_early_stopping_decides_when_enough_is_finished(void **state)
{
    struct beam *b;

    (void)state;
    /* -0.4 / 2 is better than both: only "true" stops */
    assert_false(over_after_two(1, EARLY_STOPPING_FALSE, &b));
    beam_free(b);
    assert_false(over_after_two(1, EARLY_STOPPING_NEVER, &b));
    beam_free(b);
    assert_true(over_after_two(1, EARLY_STOPPING_TRUE, &b));
    check_hypothesis(b, 0, -0.8F, -3.2, 2, (const int32_t[]){4, EOS});
    check_hypothesis(b, 1, -1, -2, 1, (const int32_t[]){EOS});
    beam_free(b);
}

/* Now the running beam is at -2.4: no better than the worst at its length, but it would be at the longest one. */
static bool over_when_behind(float length_penalty, enum early_stopping early)
{
    const struct offer first = {3, {4, EOS, 5}, {-0.2F, -1, -1.1F}};
    struct beam *b = search(2, 10, length_penalty, early);
    int parents[2];
    bool over;

    assert_false(step(b, 2, (const struct offer[]){first, first}, parents));
    over = step(b, 2, (const struct offer[]){{2, {EOS, 6}, {-1.4F, -2.2F}}, {1, {7}, {-3}}}, parents);
    assert_int_equal(beam_hypothesis(b, 1).n_ids != 0, 1);
    beam_free(b);
    return over;
}

static void test_beam_never_looks_as_far_as_the_longest(void **state)
{
    (void)state;
    assert_true(over_when_behind(1, EARLY_STOPPING_FALSE));  /* -2.4 / 2 against -1 */
    assert_false(over_when_behind(1, EARLY_STOPPING_NEVER)); /* -2.4 / 10 */
    assert_true(over_when_behind(0, EARLY_STOPPING_NEVER));
    assert_true(over_when_behind(-1, EARLY_STOPPING_NEVER));
}

static void test_beam_length_penalty_weighs_long_against_short(void **state)
{
    struct beam *b;

    (void)state;
    /* sums -1 (one token) and -1.6 (two) */
    (void)over_after_two(0, EARLY_STOPPING_TRUE, &b);
    check_hypothesis(b, 0, -1, -2, 1, (const int32_t[]){EOS});
    check_hypothesis(b, 1, -1.6F, -3.2, 2, (const int32_t[]){4, EOS});
    beam_free(b);
    (void)over_after_two(-1, EARLY_STOPPING_TRUE, &b);
    check_hypothesis(b, 0, -1, -2, 1, (const int32_t[]){EOS});
    check_hypothesis(b, 1, -3.2F, -3.2, 2, (const int32_t[]){4, EOS});
    beam_free(b);
    (void)over_after_two(2, EARLY_STOPPING_TRUE, &b);
    check_hypothesis(b, 0, -0.4F, -3.2, 2, (const int32_t[]){4, EOS});
    check_hypothesis(b, 1, -1, -2, 1, (const int32_t[]){EOS});
    beam_free(b);
}

/* More ends need more candidates, so that enough others are left. */
static void test_beam_asks_for_enough_candidates(void **state)
{
    (void)state;
    assert_int_equal(beam_n_best_of(5, 0), 10);
    assert_int_equal(beam_n_best_of(5, 1), 10);
    assert_int_equal(beam_n_best_of(5, 2), 15);
    assert_int_equal(beam_n_best_of(64, 16), 1088);
}

/* Nothing may come next: no crash, and no hypothesis that was never said. */
static void test_beam_without_anything_to_say_ends(void **state)
{
    struct offer none = {MAX_BEST, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {0}};
    struct beam *b = search(3, 4, 1, EARLY_STOPPING_FALSE);
    int parents[3];

    (void)state;
    for (int i = 0; i < MAX_BEST; i++)
        none.values[i] = -HUGE_VALF;
    for (int i = 0; i < 4; i++)
        if (step(b, 3, (const struct offer[]){none, none, none}, parents))
            break;
    for (int i = 0; i < 3; i++)
        assert_int_equal(beam_hypothesis(b, i).n_ids, 0);
    beam_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beam_first_step_takes_different_tokens),
        cmocka_unit_test(test_beam_paths_follow_the_parents),
        cmocka_unit_test(test_beam_only_the_first_may_finish),
        cmocka_unit_test(test_beam_early_stopping_decides_when_enough_is_finished),
        cmocka_unit_test(test_beam_never_looks_as_far_as_the_longest),
        cmocka_unit_test(test_beam_length_penalty_weighs_long_against_short),
        cmocka_unit_test(test_beam_asks_for_enough_candidates),
        cmocka_unit_test(test_beam_without_anything_to_say_ends),
    };

    return cmocka_run_group_tests_name("beam", tests, NULL, NULL);
}
