#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/bottleneck.h"
#include "client/fleet_view.h"

/* -- the bottleneck -- */

static struct row_fleet_stage stage(enum stage s, const char *model, uint32_t n_able, uint32_t busy, uint32_t ready)
{
    struct row_fleet_stage ret = {.stage = s,
                                  .dtype = DTYPE_BF16,
                                  .n_workers = n_able,
                                  .n_able = n_able,
                                  .busy_per_mille = busy,
                                  .units_ready = ready};

    (void)msg_text_set(ret.model, sizeof(ret.model), model);
    return ret;
}

/* Bit i: stage i is a bottleneck. */
static unsigned found(const struct row_fleet_stage *stages, size_t n)
{
    unsigned ret = 0;

    for (size_t i = 0; i < n; i++)
        ret |= (unsigned)bottleneck_is(stages, n, i) << i;
    return ret;
}

static void test_bottleneck_is_busy_with_units_waiting(void **state)
{
    struct row_fleet_stage s[] = {stage(STAGE_ENCODE, "m", 2, 610, 3), stage(STAGE_QFORMER, "m", 1, 200, 0),
                                  stage(STAGE_LLM, "m", 3, 984, 14)};
    char text[BOTTLENECK_TEXT_SIZE];

    (void)state;
    assert_int_equal(found(s, 3), 4);
    assert_string_equal(bottleneck_text(&s[2], text),
                        "llm of m, bf16 is the bottleneck: 3 workers busy 98 %, 14 units wait");
    s[0].busy_per_mille = 1000; /* its results fill the memory: still the last stage holds up the others */
    assert_int_equal(found(s, 3), 4);
    s[2].units_ready = 0;
    assert_int_equal(found(s, 3), 1);
    s[0].busy_per_mille = 899;
    assert_int_equal(found(s, 3), 0);
    s[0].busy_per_mille = 900;
    assert_int_equal(found(s, 3), 1);
}

static void test_bottleneck_is_the_stage_without_workers(void **state)
{
    struct row_fleet_stage s[] = {stage(STAGE_ENCODE, "m", 0, 0, 5), stage(STAGE_LLM, "m", 3, 1000, 14)};
    char text[BOTTLENECK_TEXT_SIZE];

    (void)state;
    assert_int_equal(found(s, 2), 1);
    assert_string_equal(bottleneck_text(&s[0], text),
                        "encode of m, bf16 is the bottleneck: no worker is connected, 5 units wait");
    s[0].n_workers = 1;
    s[0].units_ready = 1;
    assert_string_equal(bottleneck_text(&s[0], text),
                        "encode of m, bf16 is the bottleneck: 1 worker, none takes work now, 1 unit waits");
    s[0].units_ready = 0; /* nobody needs it */
    assert_int_equal(found(s, 2), 2);
}

static void test_bottleneck_of_each_model(void **state)
{
    const struct row_fleet_stage s[] = {stage(STAGE_ENCODE, "opt", 1, 1000, 9), stage(STAGE_ENCODE, "t5", 1, 300, 9),
                                        stage(STAGE_LLM, "opt", 1, 500, 0), stage(STAGE_LLM, "t5", 0, 0, 2)};

    (void)state;
    assert_int_equal(found(s, 4), 1 | 8);
}

static void test_bottleneck_of_two_alike_is_one(void **state)
{
    struct row_fleet_stage s[] = {stage(STAGE_LLM, "m", 1, 1000, 2), stage(STAGE_LLM, "m", 1, 1000, 2)};

    (void)state;
    s[1].dtype = DTYPE_F32;
    assert_int_equal(found(s, 2), 1);
    s[1].units_ready = 3;
    assert_int_equal(found(s, 2), 2);
}

/* -- the page -- */

static struct client_fleet a_fleet(size_t n_workers, size_t n_jobs)
{
    struct client_fleet f = {.totals = {.uptime_ms = 273600000,
                                        .memory_bytes = 200 << 20,
                                        .tensor_bytes = 3 << 29,
                                        .tensor_limit = UINT64_C(8) << 30,
                                        .row_bytes = 3 << 20,
                                        .row_limit = 1 << 30,
                                        .n_workers = (uint32_t)n_workers,
                                        .n_jobs = (uint32_t)n_jobs + 2,
                                        .n_other_jobs = 2},
                             .n_stages = 2,
                             .n_workers = n_workers,
                             .n_jobs = n_jobs};

    f.stages = calloc(f.n_stages, sizeof(*f.stages));
    f.workers = calloc(n_workers + 1, sizeof(*f.workers));
    f.jobs = calloc(n_jobs + 1, sizeof(*f.jobs));
    assert_true(f.stages && f.workers && f.jobs);
    f.stages[0] = stage(STAGE_ENCODE, "blip2-opt-2.7b", 2, 610, 3);
    f.stages[0].rate = 41200;
    f.stages[1] = stage(STAGE_LLM, "blip2-opt-2.7b", 3, 984, 14);
    f.stages[1].rate = 40800;
    for (size_t i = 0; i < n_workers; i++) {
        struct row_fleet_worker *w = &f.workers[i];

        *w = (struct row_fleet_worker){.number = i + 1,
                                       .pid = (uint32_t)(4000 + i),
                                       .stage = STAGE_LLM,
                                       .dtype = DTYPE_BF16,
                                       .state = MSG_WORKER_WORKING,
                                       .state_ms = 185000,
                                       .rate = 13600,
                                       .busy_per_mille = 990,
                                       .held_items = 32,
                                       .window_items = 64};
        (void)snprintf(w->host, sizeof(w->host), "gpu%zu", i + 1);
        (void)snprintf(w->model, sizeof(w->model), "blip2-opt-2.7b");
        (void)snprintf(w->device, sizeof(w->device), "cuda:0");
    }
    for (size_t i = 0; i < n_jobs; i++) {
        f.jobs[i] = (struct row_fleet_job){.job = 1042 + i,
                                           .state = MSG_JOB_RUNNING,
                                           .priority = 100,
                                           .n_items = 100000,
                                           .n_done = 12345,
                                           .n_again = 45,
                                           .n_failed = 3,
                                           .rate = 41000};
        (void)snprintf(f.jobs[i].name, sizeof(f.jobs[i].name), "coco");
    }
    return f;
}

static struct buf page_of(struct client_fleet *f, const char *note, unsigned columns, unsigned lines)
{
    struct buf ret;

    buf_init(&ret, 0);
    assert_int_equal(fleet_view_page(f, "tcp://broker:5550", note, columns, lines, &ret), 0);
    assert_int_equal(buf_append(&ret, "", 1), 0);
    return ret;
}

static void assert_fits(const char *page, unsigned columns, unsigned lines)
{
    unsigned n = 0;

    for (const char *at = page; *at; at = strchr(at, '\n') + 1, n++)
        if (strcspn(at, "\n") > columns)
            fail_msg("line %u is longer than %u columns: %.200s", n + 1, columns, at);
    if (n > lines)
        fail_msg("%u lines, not %u:\n%s", n, lines, page);
}

static void test_page_of_80_by_24(void **state)
{
    struct client_fleet f = a_fleet(3, 2);
    struct buf page;

    (void)state;
    (void)snprintf(f.jobs[1].text, sizeof(f.jobs[1].text),
                   "needs a llm worker of blip2-flan-t5-xl, bf16: none is "
                   "connected; 2 of another model are");
    f.jobs[1].rate = 0;
    f.workers[1].state = MSG_WORKER_BENCHED;
    f.workers[1].n_bad = 6;
    f.workers[1].rate = 0;
    (void)snprintf(f.workers[1].text, sizeof(f.workers[1].text), "no_memory: the card has\nfallen off the bus");
    page = page_of(&f, NULL, 80, 24);
    assert_fits((const char *)page.data, 80, 24);
    assert_string_equal((const char *)page.data,
                        "tcp://broker:5550: up 3d04h, 200.0 MiB of memory, 3 workers, 4 jobs\n"
                        "in flight: tensors 1.5 GiB of 8.0 GiB, results 3.0 MiB of 1.0 GiB\n"
                        "llm of blip2-opt-2.7b, bf16 is the bottleneck: 3 workers busy 98 %, 14\n"
                        "        units wait\n"
                        "\n"
                        "STAGE   MODEL                      TYPE  WORKERS  BUSY  ITEMS/S WAITING  LEASED\n"
                        "encode  blip2-opt-2.7b             bf16        2   61%     41.2       3       0\n"
                        "llm     blip2-opt-2.7b             bf16        3   98%     40.8      14       0\n"
                        "\n"
                        "JOB    STATE       PRIO            DONE      FAILED  ITEMS/S     ETA  NAME\n"
                        "1042   running      100    12300/100000  12%      3     41.0  35m39s  coco\n"
                        "1043   waiting      100    12300/100000  12%      3        -       -  coco\n"
                        "        needs a llm worker of blip2-flan-t5-xl, bf16: none is connected; 2 of\n"
                        "        another model are\n"
                        "2 jobs of others\n"
                        "\n"
                        "HOST         PID     STAGE   MODEL    STATE            ITEMS/S  BUSY   CREDITS\n"
                        "gpu2         4001    llm     blip2-op benched 3m05s          -   99%     32/64\n"
                        "        6 failures in a row, the last: no_memory: the card has\\nfallen off the\n"
                        "        bus\n"
                        "gpu1         4000    llm     blip2-op working 3m05s       13.6   99%     32/64\n"
                        "gpu3         4002    llm     blip2-op working 3m05s       13.6   99%     32/64\n");
    client_fleet_release(&f);
    buf_release(&page);
}

static void test_page_fits_every_screen(void **state)
{
    struct client_fleet f = a_fleet(1000, 1000);

    (void)state;
    for (unsigned lines = 1; lines < 70; lines += 3)
        for (unsigned columns = 75; columns < 200; columns += 31) {
            struct buf page = page_of(&f, NULL, columns, lines);

            assert_fits((const char *)page.data, columns, lines);
            if (lines > 20)
                assert_true(strstr((const char *)page.data, "gpu1") && strstr((const char *)page.data, "1042") &&
                            strstr((const char *)page.data, "more\n"));
            buf_release(&page);
        }
    client_fleet_release(&f);
}

static void test_page_of_texts_of_others_is_printable(void **state)
{
    struct client_fleet f = a_fleet(1, 1);
    struct buf page;

    (void)state;
    memcpy(f.workers[0].host, "\033[2J\xff host", 11);
    memset(f.jobs[0].name, 0x07, sizeof(f.jobs[0].name) - 1);
    memset(f.stages[1].model, '\n', sizeof(f.stages[1].model) - 1);
    page = page_of(&f, NULL, 0, 0);
    for (const uint8_t *at = page.data; *at; at++)
        assert_true(*at == '\n' || (*at >= ' ' && *at < 0x7f));
    assert_non_null(strstr((const char *)page.data, "\\x1b[2J"));
    client_fleet_release(&f);
    buf_release(&page);
}

static void test_page_without_a_broker_says_so(void **state)
{
    struct client_fleet f = {.n_jobs = 0};
    struct buf page = page_of(&f, "the broker does not answer; trying again", 80, 24);

    (void)state;
    assert_string_equal((const char *)page.data, "tcp://broker:5550\nthe broker does not answer; trying again\n");
    buf_release(&page);
    page = page_of(&f, NULL, 80, 24);
    assert_non_null(strstr((const char *)page.data, "No job is open.\n"));
    assert_non_null(strstr((const char *)page.data, "No worker is connected.\n"));
    buf_release(&page);
}

static void test_json_has_all_rows(void **state)
{
    struct client_fleet f = a_fleet(3, 2);
    json_t *j = fleet_view_json(&f, "ipc:///b"), *job;

    (void)state;
    assert_non_null(j);
    job = json_array_get(json_object_get(j, "jobs"), 1);
    assert_int_equal(json_integer_value(json_object_get(job, "job")), 1043);
    assert_int_equal(json_integer_value(json_object_get(job, "eta_s")), (100000 - 12345 + 45) * 1000L / 41000);
    assert_true(json_real_value(json_object_get(job, "items_per_s")) > 40.9);
    assert_int_equal(json_array_size(json_object_get(j, "workers")), 3);
    assert_int_equal(json_array_size(json_object_get(j, "bottlenecks")), 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "broker"), "other_jobs")), 2);
    json_decref(j);
    f.jobs[0].state = MSG_JOB_IMPORTING; /* more items come */
    assert_int_equal(fleet_view_eta_s(&f.jobs[0]), -1);
    f.jobs[1].rate = 0;
    assert_int_equal(fleet_view_eta_s(&f.jobs[1]), -1);
    client_fleet_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bottleneck_is_busy_with_units_waiting),
        cmocka_unit_test(test_bottleneck_is_the_stage_without_workers),
        cmocka_unit_test(test_bottleneck_of_each_model),
        cmocka_unit_test(test_bottleneck_of_two_alike_is_one),
        cmocka_unit_test(test_page_of_80_by_24),
        cmocka_unit_test(test_page_fits_every_screen),
        cmocka_unit_test(test_page_of_texts_of_others_is_printable),
        cmocka_unit_test(test_page_without_a_broker_says_so),
        cmocka_unit_test(test_json_has_all_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
