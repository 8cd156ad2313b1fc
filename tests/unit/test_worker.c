/* What the worker daemons share: keys about the device, sizes that follow from them, and what a device said. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/worker.h"

#include <errno.h>
#include <string.h>

struct conf {
    struct worker_conf common;
};
static const struct conf_key table[] = {WORKER_CONF_KEYS(struct conf, "3", "as the test likes"), {0}};

/* Pairs of key and value on top of the defaults. */
static struct worker_conf conf_of(const char *const (*pairs)[2], size_t n)
{
    struct conf c;
    struct err err = {""};

    assert_int_equal(conf_load(table, &c, NULL, &err), 0);
    for (size_t i = 0; i < n; i++)
        if (conf_set(table, &c, pairs[i][0], pairs[i][1], &err) < 0)
            fail_msg("%s", err.text);
    return c.common;
}

#define CONF(...)                                                     \
    conf_of((const char *const[][2]){{"device", "cpu"}, __VA_ARGS__}, \
            sizeof((const char *const[][2]){{"device", "cpu"}, __VA_ARGS__}) / sizeof(const char *[2]))

static void refused(struct worker_conf conf, const char *why)
{
    struct device_conf d;
    struct err err = {""};

    assert_int_equal(worker_device(&conf, &d, &err), -EINVAL);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" lacks \"%s\"", err.text, why);
}

static void test_worker_keys_become_a_device(void **state)
{
    struct worker_conf c = CONF({"threads", "5"});
    struct device_conf d;
    struct err err = {""};

    (void)state;
    assert_int_equal(worker_device(&c, &d, &err), 0);
    assert_string_equal(d.device, "cpu");
    assert_string_equal(d.cuda_library, "");
    assert_int_equal(d.n_threads, 5);
    assert_int_equal(d.act_dtype, DTYPE_F32);
    assert_false(d.fp8 || d.tf32);
    assert_true(d.memory_share == 1);
    assert_int_equal(worker_dtype(&d), DTYPE_F32);

    c = CONF({"device", "cuda:1"}, {"dtype", "fp8"}, {"tf32", "yes"}, {"memory_share", "0.25"},
             {"cuda_library", "/x.so"});
    assert_int_equal(worker_device(&c, &d, &err), 0);
    assert_string_equal(d.device, "cuda:1");
    assert_string_equal(d.cuda_library, "/x.so");
    assert_int_equal(d.act_dtype, DTYPE_BF16);
    assert_true(d.fp8 && d.tf32);
    assert_true(d.memory_share == 0.25);
    assert_int_equal(worker_dtype(&d), DTYPE_F8_E4M3);

    c = CONF({"device", "GPU-00000000-0000-0000-0000-000000000000"}, {"dtype", "fp16"});
    assert_int_equal(worker_device(&c, &d, &err), 0);
    assert_int_equal(worker_dtype(&d), DTYPE_F16);
}

static void test_worker_keys_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    refused(CONF({"dtype", "int64"}), "dtype = int64: expected fp32, bf16, fp16 or fp8");
    refused(CONF({"dtype", "half"}), "dtype = half");
    refused(CONF({"device", "bogus"}), "expected cpu, cuda:N, a GPU's UUID or null");
    refused(CONF({"dtype", "fp16"}), "device = cpu computes in fp32 or bf16");
    refused(CONF({"device", "ref"}, {"dtype", "fp8"}), "device = ref computes in fp32 or bf16");
    refused(CONF({"memory_share", "0.04"}), "0.05 to 1");
    refused(CONF({"memory_share", "1.5"}), "0.05 to 1");
    refused(CONF({"memory_share", "half"}), "0.05 to 1");
    refused(CONF({"memory_share", "0.5x"}), "0.05 to 1");
    refused(CONF({"memory_share", "nan"}), "0.05 to 1");
}

static void sizes(struct worker_conf conf, enum stage stage, int batch, uint32_t window)
{
    struct worker w = {0};

    worker_init(&w, &conf, stage);
    assert_int_equal(w.batch, batch);
    assert_int_equal(worker_window_items(&w), window);
}

static void test_worker_sizes_follow_the_device(void **state)
{
    (void)state;
    sizes(CONF({"device", "null"}), STAGE_QFORMER, 16, 128);
    sizes(CONF({"device", "cpu"}), STAGE_ENCODE, 16, 128);
    sizes(CONF({"device", "cpu"}), STAGE_LLM, 64, 256);
    sizes(CONF({"device", "cuda:0"}), STAGE_ENCODE, 256, 1024);
    sizes(CONF({"device", "cuda:0"}), STAGE_LLM, 0, 256);
    sizes(CONF({"batch", "100"}), STAGE_ENCODE, 100, 200);
    sizes(CONF({"batch", "100"}, {"window_items", "7"}), STAGE_ENCODE, 100, 7);
}

static void test_worker_tensors_are_of_the_activations_type(void **state)
{
    const struct {
        const char *dtype;
        enum dtype want;
    } cases[] = {{"fp32", DTYPE_F32}, {"bf16", DTYPE_BF16}, {"fp16", DTYPE_F16}, {"fp8", DTYPE_BF16}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct worker_conf c = CONF({"device", "null"}, {"dtype", cases[i].dtype});
        struct worker w = {0};

        worker_init(&w, &c, STAGE_ENCODE);
        assert_int_equal(worker_tensor_dtype(&w), cases[i].want);
    }
}

/* What a device said stands behind what failed, once. */
static void test_worker_errors_say_what_the_device_said(void **state)
{
    struct ops ops = {.why = {"the card fell off the bus"}};
    struct worker w = {.ops = &ops};
    struct err err = {"stale"};

    (void)state;
    assert_int_equal(worker_failed(&w, -EIO, "the image encoder failed", &err), -EIO);
    assert_string_equal(err.text, "the image encoder failed: Input/output error: the card fell off the bus");
    assert_int_equal(worker_explain(&w, -EIO, &err), -EIO);
    assert_string_equal(err.text, "the image encoder failed: Input/output error: the card fell off the bus");
    ops.why.text[0] = '\0';
    assert_int_equal(worker_failed(&w, -ENOMEM, "it failed", &err), -ENOMEM);
    assert_string_equal(err.text, "it failed: Cannot allocate memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_keys_become_a_device),
        cmocka_unit_test(test_worker_keys_that_do_not_fit_are_refused),
        cmocka_unit_test(test_worker_sizes_follow_the_device),
        cmocka_unit_test(test_worker_tensors_are_of_the_activations_type),
        cmocka_unit_test(test_worker_errors_say_what_the_device_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
