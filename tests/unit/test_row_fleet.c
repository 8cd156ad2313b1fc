#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/row_fleet.h"

static const struct row_fleet_stage a_stage = {.stage = STAGE_LLM,
                                               .dtype = DTYPE_BF16,
                                               .model = "blip2-opt",
                                               .n_workers = 4,
                                               .n_able = 3,
                                               .units_ready = 14,
                                               .units_leased = 6,
                                               .rate = 41500,
                                               .busy_per_mille = 1000,
                                               .capacity = 55000,
                                               .fingerprint = {{1, 2, 3}}};
static const struct row_fleet_worker a_worker = {.number = 7,
                                                 .host = "gpu1",
                                                 .pid = 4242,
                                                 .stage = STAGE_ENCODE,
                                                 .device = "cuda:0",
                                                 .dtype = DTYPE_F8_E4M3,
                                                 .model = "blip2-opt",
                                                 .state = MSG_WORKER_SILENT,
                                                 .state_ms = 61000,
                                                 .text = "no_memory: 12 GiB are missing",
                                                 .n_bad = 6,
                                                 .n_items = UINT64_MAX,
                                                 .rate = 13600,
                                                 .busy_per_mille = 980,
                                                 .n_leases = 2,
                                                 .held_items = 32,
                                                 .window_items = 64,
                                                 .held_bytes = 1 << 20,
                                                 .window_bytes = 2 << 20,
                                                 .heard_ms = 1500};
static const struct row_fleet_job a_job = {.job = 1042,
                                           .name = "coco",
                                           .owner = "alice",
                                           .state = MSG_JOB_CANCELLED,
                                           .wanted = STORED_WANTED_CANCELLED,
                                           .text = "needs a llm worker",
                                           .priority = 300,
                                           .n_items = 100,
                                           .n_done = 60,
                                           .n_failed = 2,
                                           .n_again = 1,
                                           .rate = 700,
                                           .n_stages = 2,
                                           .stages = {{STAGE_ENCODE, 3, 4}, {STAGE_LLM, 5, 6}}};

static void append_all(struct buf *stages, struct buf *workers, struct buf *jobs)
{
    buf_init(stages, MSG_MAX_ROW_FRAME_BYTES);
    buf_init(workers, MSG_MAX_ROW_FRAME_BYTES);
    buf_init(jobs, MSG_MAX_ROW_FRAME_BYTES);
    assert_int_equal(row_fleet_stage_append(stages, &a_stage), 0);
    assert_int_equal(row_fleet_worker_append(workers, &a_worker), 0);
    assert_int_equal(row_fleet_job_append(jobs, &a_job), 0);
}

static void begin(struct row_cursor *c, struct row_frame *frame, const void *data, size_t n)
{
    *frame = (struct row_frame){data, n};
    row_cursor_init(c, frame, 1, 1);
}

static int read_stage(const void *data, size_t n, struct row_fleet_stage *ret)
{
    struct row_frame frame;
    struct row_cursor c;
    int rc;

    begin(&c, &frame, data, n);
    rc = row_cursor_next_fleet_stage(&c, ret, NULL);
    row_cursor_release(&c);
    return rc;
}

static int read_worker(const void *data, size_t n, struct row_fleet_worker *ret)
{
    struct row_frame frame;
    struct row_cursor c;
    int rc;

    begin(&c, &frame, data, n);
    rc = row_cursor_next_fleet_worker(&c, ret, NULL);
    row_cursor_release(&c);
    return rc;
}

static int read_job(const void *data, size_t n, struct row_fleet_job *ret)
{
    struct row_frame frame;
    struct row_cursor c;
    int rc;

    begin(&c, &frame, data, n);
    rc = row_cursor_next_fleet_job(&c, ret, NULL);
    row_cursor_release(&c);
    return rc;
}

static void test_row_fleet_rows_come_back(void **state)
{
    struct buf stages, workers, jobs;
    struct row_fleet_stage stage;
    struct row_fleet_worker worker;
    struct row_fleet_job job;

    (void)state;
    append_all(&stages, &workers, &jobs);
    memset(&stage, 0xa5, sizeof(stage));
    memset(&worker, 0xa5, sizeof(worker));
    memset(&job, 0xa5, sizeof(job));
    assert_int_equal(read_stage(stages.data, stages.size_bytes, &stage), 1);
    assert_int_equal(read_worker(workers.data, workers.size_bytes, &worker), 1);
    assert_int_equal(read_job(jobs.data, jobs.size_bytes, &job), 1);
    assert_string_equal(stage.model, a_stage.model);
    assert_int_equal(stage.dtype, DTYPE_BF16);
    assert_int_equal(stage.n_workers * 1000 + stage.n_able * 100 + stage.units_ready + stage.units_leased, 4320);
    assert_int_equal(stage.rate + stage.busy_per_mille, 42500);
    assert_int_equal(stage.capacity, 55000);
    assert_true(fingerprint_equal(&stage.fingerprint, &a_stage.fingerprint));
    assert_string_equal(worker.host, "gpu1");
    assert_string_equal(worker.device, "cuda:0");
    assert_string_equal(worker.model, "blip2-opt");
    assert_string_equal(worker.text, a_worker.text);
    assert_int_equal(worker.state, MSG_WORKER_SILENT);
    assert_true(worker.n_items == UINT64_MAX && worker.held_bytes == 1 << 20 && worker.window_bytes == 2 << 20);
    assert_true(worker.number == 7 && worker.pid == 4242 && worker.heard_ms == 1500 && worker.state_ms == 61000);
    assert_true(worker.n_bad == 6 && worker.n_leases == 2 && worker.held_items == 32 && worker.window_items == 64);
    assert_string_equal(job.name, "coco");
    assert_string_equal(job.owner, "alice");
    assert_string_equal(job.text, "needs a llm worker");
    assert_int_equal(job.state, MSG_JOB_CANCELLED);
    assert_int_equal(job.wanted, STORED_WANTED_CANCELLED);
    assert_int_equal(job.n_stages, 2);
    assert_memory_equal(job.stages, a_job.stages, 2 * sizeof(job.stages[0]));
    assert_true(job.n_items == 100 && job.n_done == 60 && job.n_failed == 2 && job.n_again == 1 && job.rate == 700);
    buf_release(&stages);
    buf_release(&workers);
    buf_release(&jobs);
}

static void test_row_fleet_fields_out_of_range_are_refused(void **state)
{
    struct row_fleet_stage stages[] = {a_stage, a_stage, a_stage};
    struct row_fleet_worker workers[] = {a_worker, a_worker, a_worker, a_worker};
    struct row_fleet_job jobs[] = {a_job, a_job, a_job, a_job, a_job, a_job};
    struct buf frame;

    (void)state;
    buf_init(&frame, MSG_MAX_ROW_FRAME_BYTES);
    stages[0].stage = (enum stage)4;
    stages[1].n_able = 5;
    stages[2].busy_per_mille = 1001;
    workers[0].number = 0;
    workers[1].state = (enum msg_worker_state)6;
    workers[2].stage = (enum stage)0;
    workers[3].busy_per_mille = 1001;
    jobs[0].job = 0;
    jobs[1].n_done = 101;
    jobs[2].n_failed = 61;
    jobs[3].n_stages = MSG_MAX_STAGES + 1;
    jobs[4].stages[1].stage = (enum stage)9;
    jobs[5].wanted = (enum stored_wanted)4;
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
        assert_int_equal(row_fleet_stage_append(&frame, &stages[i]), -EINVAL);
    for (size_t i = 0; i < sizeof(workers) / sizeof(workers[0]); i++)
        assert_int_equal(row_fleet_worker_append(&frame, &workers[i]), -EINVAL);
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        assert_int_equal(row_fleet_job_append(&frame, &jobs[i]), -EINVAL);
    assert_int_equal(frame.size_bytes, 0);
}

/* A broker that lies: what is read is what could be written. */
static void test_row_fleet_survives_damaged_rows(void **state)
{
    const unsigned seed = (unsigned)time(NULL);
    struct buf bufs[3], again;

    (void)state;
    print_message("seed %u\n", seed);
    srand(seed);
    append_all(&bufs[0], &bufs[1], &bufs[2]);
    buf_init(&again, MSG_MAX_ROW_FRAME_BYTES);
    for (int n = 0; n < 30000; n++) {
        const struct buf *whole = &bufs[n % 3];
        const size_t cut = rand() % 4 ? whole->size_bytes : (size_t)rand() % (whole->size_bytes + 1);
        uint8_t *bytes = malloc(cut + 1); /* of its own, so that a sanitizer sees reads behind it */
        struct row_fleet_stage stage;
        struct row_fleet_worker worker;
        struct row_fleet_job job;

        assert_non_null(bytes);
        memcpy(bytes, whole->data, cut);
        for (int i = 0; cut && i < rand() % 4; i++)
            bytes[(size_t)rand() % cut] = (uint8_t)rand();
        if (n % 3 == 0 && read_stage(bytes, cut, &stage) == 1)
            assert_int_equal(row_fleet_stage_append(&again, &stage), 0);
        if (n % 3 == 1 && read_worker(bytes, cut, &worker) == 1)
            assert_int_equal(row_fleet_worker_append(&again, &worker), 0);
        if (n % 3 == 2 && read_job(bytes, cut, &job) == 1)
            assert_int_equal(row_fleet_job_append(&again, &job), 0);
        buf_clear(&again);
        free(bytes);
    }
    for (int i = 0; i < 3; i++)
        buf_release(&bufs[i]);
    buf_release(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_fleet_rows_come_back),
        cmocka_unit_test(test_row_fleet_fields_out_of_range_are_refused),
        cmocka_unit_test(test_row_fleet_survives_damaged_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
