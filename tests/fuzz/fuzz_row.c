/* Any bytes as row frames, of items and of records; the first byte says how many rows are promised and where to cut. */
#include "proto/row.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
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
    if (row_frame_cut(data + 1, size - 1, size) > size - 1 || row_frame_cut(data + 1, size - 1, 300) > 300)
        abort();
    if (row_frame_cut(again.data, again.size_bytes, again.size_bytes) != again.size_bytes) /* rows of ours are whole */
        abort();
    buf_release(&again);
    return 0;
}
