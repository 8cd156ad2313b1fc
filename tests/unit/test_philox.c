/* The published known answers of Random123 (tests/kat_vectors, philox4x32 10), and what becomes of them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "llm_worker/philox.h"

static void test_philox_gives_the_published_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } answers[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        uint32_t got[4];

        philox_block(answers[i].counter, answers[i].key, got);
        assert_memory_equal(got, answers[i].want, sizeof(got));
    }
}

static void test_philox_uniform_is_the_high_24_bits(void **state)
{
    const uint64_t key = 0x299f31d0a4093822U;
    double sum = 0;

    (void)state;
    assert_true(philox_uniform(0, 0, 0) == (float)0x6627e8 / 0x1000000);
    for (uint32_t step = 0; step < 4096; step++) {
        const uint32_t counter[4] = {step, 7, 0, 0}, words[2] = {0xa4093822, 0x299f31d0};
        const float u = philox_uniform(key, step, 7);
        uint32_t out[4];

        philox_block(counter, words, out);
        assert_true(u >= 0 && u < 1 && u == (float)(out[0] >> 8) / 0x1000000);
        assert_true(u != philox_uniform(key, step, 8) || u != philox_uniform(key + 1, step, 7));
        sum += (double)u;
    }
    assert_true(sum / 4096 > 0.48 && sum / 4096 < 0.52);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_published_answers),
        cmocka_unit_test(test_philox_uniform_is_the_high_24_bits),
    };

    return cmocka_run_group_tests_name("philox", tests, NULL, NULL);
}
