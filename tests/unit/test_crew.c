#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "broker/crew.h"

static void ignore(void *arg, const struct core_action *action)
{
    (void)arg;
    (void)action;
}

/* A core, and the peers that have said HELLO to it. */
struct fixture {
    struct driver driver;
    struct peers peers;
};

static int setup(void **state)
{
    static struct fixture f;
    const struct core_limits limits = core_limits_default();

    f = (struct fixture){.peers = {{0}}};
    driver_init(&f.driver, &limits, 1, ignore, NULL);
    assert_non_null(f.driver.core);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    peers_release(&f->peers);
    driver_release(&f->driver);
    return 0;
}

static struct fingerprint weights(uint8_t of)
{
    struct fingerprint ret;

    memset(ret.bytes, of, sizeof(ret.bytes));
    return ret;
}

static void add(struct fixture *f, uint64_t number, const char *model, enum dtype dtype, uint8_t of, uint32_t window)
{
    struct peer *p = peers_require(&f->peers, number);
    struct core_event hello = {.type = CORE_EVENT_HELLO,
                               .hello = {.peer = number,
                                         .host = 1,
                                         .nonce = number,
                                         .stage = STAGE_LLM,
                                         .fingerprint = weights(of),
                                         .window_items = window,
                                         .window_bytes = 1}};

    assert_non_null(p);
    p->role = MSG_ROLE_WORKER;
    p->stage = STAGE_LLM;
    p->dtype = dtype;
    p->fingerprint = weights(of);
    (void)msg_text_set(p->model, sizeof(p->model), model);
    assert_int_equal(driver_feed(&f->driver, &hello), 0);
}

static const char *missing(const struct fixture *f)
{
    static char text[MSG_TEXT_SIZE];
    const struct msg_node node = {.stage = STAGE_LLM, .fingerprint = weights(7), .model = "blip2-flan-t5-xl"};
    const struct crew_need need = {.job = 1, .node = &node, .dtype = DTYPE_BF16, .unseen = ""};

    return crew_is_missing(&f->driver, &f->peers, &need, text, sizeof(text)) ? text : "";
}

#define NEEDS "needs a llm worker of blip2-flan-t5-xl, bf16: "

static void test_crew_says_which_worker_is_missing(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(missing(f), NEEDS "none is connected");
    add(f, 1, "blip2-opt-2.7b", DTYPE_BF16, 1, 8);
    assert_string_equal(missing(f), NEEDS "none is connected; 1 of another model is");
    add(f, 2, "blip2-opt-6.7b", DTYPE_F32, 2, 8);
    assert_string_equal(missing(f), NEEDS "none is connected; 2 of another model are");
    add(f, 3, "blip2-flan-t5-xl", DTYPE_F32, 3, 8);
    assert_string_equal(missing(f), NEEDS "none is connected; 2 of another model and 1 of another number type are");
    add(f, 4, "blip2-flan-t5-xl", DTYPE_BF16, 4, 8);
    assert_non_null(strstr(missing(f), " and 1 of the same name with other weights are (07070707 is wanted, one has "
                                       "04040404)"));
    add(f, 5, "blip2-flan-t5-xl", DTYPE_BF16, 7, 8);
    assert_string_equal(missing(f), "");
}

static void test_crew_says_why_those_there_do_nothing(void **state)
{
    struct fixture *f = *state;

    add(f, 1, "blip2-flan-t5-xl", DTYPE_BF16, 7, 0);
    assert_string_equal(missing(f), NEEDS "the only one is draining");
    add(f, 2, "blip2-flan-t5-xl", DTYPE_BF16, 7, 0);
    add(f, 3, "blip2-opt-2.7b", DTYPE_BF16, 1, 8); /* is of no use, and not what is wrong */
    assert_string_equal(missing(f), NEEDS "of 2 that are connected, 2 are draining");
    for (int i = 0; i < 70; i++) { /* more than a lease, less than what it takes to be forgotten */
        f->driver.now_ms += 500;
        assert_int_equal(driver_feed(&f->driver, &(struct core_event){.type = CORE_EVENT_TICK}), 0);
    }
    assert_string_equal(missing(f), NEEDS "of 2 that are connected, 2 are silent");
    assert_int_equal(driver_feed(&f->driver, &(struct core_event){.type = CORE_EVENT_CREDIT,
                                                                  .credit = {.peer = 1, .window_items = 4}}),
                     0);
    assert_string_equal(missing(f), "");
}

static void test_crew_of_a_node_of_any_model(void **state)
{
    struct fixture *f = *state;
    const struct msg_node node = {.stage = STAGE_ENCODE};
    const struct crew_need need = {.job = 1, .node = &node, .unseen = ""};
    char text[MSG_TEXT_SIZE];

    add(f, 1, "blip2-opt-2.7b", DTYPE_BF16, 1, 8);
    assert_true(crew_is_missing(&f->driver, &f->peers, &need, text, sizeof(text)));
    assert_string_equal(text, "needs an encode worker: none is connected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_crew_says_which_worker_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crew_says_why_those_there_do_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crew_of_a_node_of_any_model, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
