#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "client/export/select.h"

static struct row_caption of(const char *text, float logprob, float itc, float itm)
{
    return (struct row_caption){.text = (const uint8_t *)text,
                                .text_bytes = (uint32_t)strlen(text),
                                .logprob = logprob,
                                .has_itc = true,
                                .has_itm = true,
                                .itc = itc,
                                .itm = itm};
}

/* Three generated captions, two of them equal, one that came with the picture, and one without scores. */
static struct row_record five(void)
{
    struct row_record r = {.n_captions = 5};

    r.captions[0] = of("a cat", -1, 0.30F, 0.80F);
    r.captions[1] = of("a dog", -3, 0.50F, 0.90F);
    r.captions[2] = of("a cat", -2, 0.35F, 0.85F);
    r.captions[3] = of("IMG_0001", 0, 0.10F, 0.05F);
    r.captions[3].given = true;
    r.captions[4] = (struct row_caption){.text = (const uint8_t *)"", .logprob = -9};
    return r;
}

static void check(const struct select_options *o, const char *want)
{
    struct row_record r = five();
    uint32_t got[ROW_MAX_CAPTIONS], n = select_captions(o, &r, got);
    char text[ROW_MAX_CAPTIONS + 1] = "";

    for (uint32_t i = 0; i < n; i++)
        text[i] = (char)('0' + got[i]);
    text[n] = '\0';
    assert_string_equal(text, want);
}

static void test_select_orders_best_first_and_keeps_the_stores_order_between_equals(void **state)
{
    (void)state;
    check(&(struct select_options){0}, "01234");
    check(&(struct select_options){.order = SELECT_BY_ITM}, "12034");
    check(&(struct select_options){.order = SELECT_BY_ITC}, "12034");
    check(&(struct select_options){.order = SELECT_BY_LOGPROB}, "02143");
}

static void test_select_thresholds_drop_lower_and_unscored_ones(void **state)
{
    (void)state;
    check(&(struct select_options){.want_itm = true, .min_itm = 0.5}, "012");
    check(&(struct select_options){.want_itm = true, .min_itm = -1}, "0123");
    check(&(struct select_options){.want_itc = true, .min_itc = 0.35 - 1e-7, .order = SELECT_BY_ITC}, "12");
    check(&(struct select_options){.want_itm = true, .min_itm = 0.99}, "");
}

static void test_select_equal_texts_leave_the_best_and_the_limit_comes_last(void **state)
{
    (void)state;
    check(&(struct select_options){.dedup_text = true}, "0134");
    check(&(struct select_options){.dedup_text = true, .order = SELECT_BY_ITM}, "1234");
    check(&(struct select_options){.dedup_text = true, .order = SELECT_BY_ITM, .max_per_image = 2}, "12");
    check(&(struct select_options){.max_per_image = 1}, "0");
}

static void test_select_originals_compete_or_stand_aside(void **state)
{
    (void)state;
    check(&(struct select_options){.given_only = true}, "3");
    check(&(struct select_options){.generated_only = true, .order = SELECT_BY_ITC}, "1204");
}

static void test_select_knows_when_nothing_is_asked(void **state)
{
    (void)state;
    assert_false(select_is_filter(&(struct select_options){0}));
    assert_true(select_is_filter(&(struct select_options){.dedup_text = true}));
    assert_true(select_is_filter(&(struct select_options){.order = SELECT_BY_ITM}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select_orders_best_first_and_keeps_the_stores_order_between_equals),
        cmocka_unit_test(test_select_thresholds_drop_lower_and_unscored_ones),
        cmocka_unit_test(test_select_equal_texts_leave_the_best_and_the_limit_comes_last),
        cmocka_unit_test(test_select_originals_compete_or_stand_aside),
        cmocka_unit_test(test_select_knows_when_nothing_is_asked),
    };

    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
