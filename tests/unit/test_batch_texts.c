/* The texts of a batch: what is the same is computed once, and every text knows which it is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "qformer_worker/batch_texts.h"
#include "qformer_worker/texts.h"

#include <string.h>

enum { MAX_IDS = 4 };

struct text {
    int32_t image;
    int32_t ids[MAX_IDS]; /* 0: the end */
    int computed;
};

static size_t length(const struct text *t)
{
    size_t n = 0;

    while (n < MAX_IDS && t->ids[n])
        n++;
    return n;
}

/* Adds them all and looks at every one. */
static void check(struct batch_texts *b, const struct text *t, int n, int n_computed)
{
    struct unit_text texts[16];
    float embeds[16];

    batch_texts_clear(b);
    for (int i = 0; i < n; i++)
        batch_texts_add(b, t[i].image, &texts[i], t[i].ids, length(&t[i]), &embeds[i]);
    assert_int_equal(b->n, n);
    assert_int_equal(b->n_computed, n_computed);
    for (int i = 0; i < n; i++) {
        const int at = b->computed[i];

        assert_int_equal(at, t[i].computed);
        assert_ptr_equal(b->texts[i], &texts[i]);
        assert_ptr_equal(b->embeds[i], &embeds[i]);
        assert_int_equal(b->image[at], t[i].image);
        assert_int_equal(b->start[at + 1] - b->start[at], length(&t[i]));
        assert_memory_equal(b->ids + b->start[at], t[i].ids, length(&t[i]) * sizeof(int32_t));
    }
}

static void test_batch_texts_of_an_image_are_computed_once(void **state)
{
    const struct text t[] = {{0, {5, 6, 7}, 0}, {0, {5, 6}, 1},    {0, {5, 6, 7}, 0}, {0, {5, 6, 8}, 2},
                             {2, {5, 6, 7}, 3}, {2, {5, 6, 7}, 3}, {3, {5, 6}, 4},    {3, {6, 5}, 5}};
    const struct text other[] = {{1, {9}, 0}, {1, {9, 9}, 1}, {1, {9}, 0}};
    struct batch_texts b;

    (void)state;
    assert_int_equal(batch_texts_alloc(&b, 8, 22), 0);
    check(&b, t, 8, 6);
    check(&b, other, 3, 2); /* nothing is left of those before */
    batch_texts_release(&b);
}

static void test_batch_texts_may_be_none(void **state)
{
    struct batch_texts b = {0};

    (void)state;
    batch_texts_release(&b);
    assert_int_equal(batch_texts_alloc(&b, 0, 0), 0);
    check(&b, NULL, 0, 0);
    batch_texts_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_texts_of_an_image_are_computed_once),
        cmocka_unit_test(test_batch_texts_may_be_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
