/* Any bytes as row frames, of items, records, models, rows of a fleet and stored values; the first byte says how many
 * rows are promised, and where to cut. */
#include "proto/model.h"
#include "proto/row_fleet.h"
#include "proto/row_value.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is read can be written. */
static void try_fleet(const struct row_frame frames[2], uint32_t n_rows, struct buf *again)
{
    struct row_fleet_worker worker;
    struct row_fleet_stage stage;
    struct row_fleet_job job;
    struct row_cursor c;

    row_cursor_init(&c, frames, 2, n_rows);
    while (row_cursor_next_fleet_stage(&c, &stage, NULL) == 1)
        if (row_fleet_stage_append(again, &stage) < 0)
            abort();
    row_cursor_release(&c);
    row_cursor_init(&c, frames, 2, n_rows);
    while (row_cursor_next_fleet_worker(&c, &worker, NULL) == 1)
        if (row_fleet_worker_append(again, &worker) < 0)
            abort();
    row_cursor_release(&c);
    row_cursor_init(&c, frames, 2, n_rows);
    while (row_cursor_next_fleet_job(&c, &job, NULL) == 1)
        if (row_fleet_job_append(again, &job) < 0)
            abort();
    row_cursor_release(&c);
}

static void read_values(const uint8_t *data, size_t size, uint32_t n_rows)
{
    const struct buf rows = {.data = (uint8_t *)(uintptr_t)data, .size_bytes = size};
    struct row_value_cursor c = {0};
    struct row_value v;
    struct buf again;

    buf_init(&again, 0);
    if (row_value_cursor_set(&c, &rows, n_rows) == 0)
        while (row_value_cursor_next(&c, &v, NULL) == 1)
            if (row_value_append(&again, &v, &n_rows) < 0)
                abort();
    row_value_cursor_release(&c);
    buf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model model;
    struct row_frame frames[2];
    struct row_record record;
    struct row_item item;
    struct row_cursor c;
    struct buf again;
    size_t cut;

    if (size < 2)
        return 0;
    cut = 1 + data[1] % (size - 1);
    frames[0] = (struct row_frame){data + 1, cut - 1};
    frames[1] = (struct row_frame){data + cut, size - cut};
    row_cursor_init(&c, frames, 2, data[0]);
    buf_init(&again, 0);
    while (row_cursor_next_item(&c, &item, NULL) == 1)
        if (item.path[item.path_bytes] != 0 || row_item_append(&again, &item) < 0)
            abort();
    row_cursor_release(&c);
    row_cursor_init(&c, frames, 2, data[0]);
    while (row_cursor_next_record(&c, &record, NULL) == 1)
        if (row_record_append(&again, &record) < 0)
            abort();
    row_cursor_release(&c);
    try_fleet(frames, data[0], &again);
    read_values(data + 1, size - 1, data[0]);
    row_cursor_init(&c, frames, 2, data[0]);
    while (row_cursor_next_model(&c, &model, NULL) == 1)
        if (row_model_append(&again, &model) < 0)
            abort();
    row_cursor_release(&c);
    if (row_frame_cut(data + 1, size - 1, size) > size - 1 || row_frame_cut(data + 1, size - 1, 300) > 300)
        abort();
    if (row_frame_cut(again.data, again.size_bytes, again.size_bytes) != again.size_bytes) /* rows of ours are whole */
        abort();
    buf_release(&again);
    return 0;
}
