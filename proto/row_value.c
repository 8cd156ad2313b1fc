#include "proto/row_value.h"

#include <errno.h>

#include "proto/row_pb.h"

enum { PIECE_BYTES = ROW_MAX_BYTES - 64, VALUE_MAX_BYTES = 64 << 20 };

int row_value_append(struct buf *rows, const struct row_value *v, uint32_t *n_rows)
{
    size_t done = 0;
    int rc;

    do {
        Blipline__StoreValue pb = BLIPLINE__STORE_VALUE__INIT;
        const size_t left = v->size_bytes - done;

        pb.table = (Blipline__StoreValue__Table)v->table;
        pb.number = v->number;
        pb.unit = v->unit;
        pb.value.len = left < PIECE_BYTES ? left : PIECE_BYTES;
        pb.value.data = pb.value.len ? (uint8_t *)(uintptr_t)v->data + done : NULL;
        pb.more = left > PIECE_BYTES;
        rc = row_append_pb(rows, &pb.base);
        if (rc < 0)
            return rc;
        (*n_rows)++;
        done += pb.value.len;
    } while (done < v->size_bytes);
    return 0;
}

int row_value_cursor_set(struct row_value_cursor *c, const struct buf *rows, uint32_t n_rows)
{
    size_t at = 0, n = 0;

    row_value_cursor_release(c);
    row_cursor_init(&c->rows, NULL, 0, 0);
    while (at < rows->size_bytes) {
        const size_t cut = row_frame_cut(rows->data + at, rows->size_bytes - at, MSG_MAX_ROW_FRAME_BYTES);

        if (cut == 0 || n == MSG_MAX_ROW_FRAMES)
            return -EMSGSIZE;
        c->frames[n++] = (struct row_frame){.data = rows->data + at, .size_bytes = cut};
        at += cut;
    }
    row_cursor_init(&c->rows, c->frames, n, n_rows);
    return 0;
}

void row_value_cursor_release(struct row_value_cursor *c)
{
    row_cursor_release(&c->rows);
    buf_release(&c->value);
}

static int next_row(struct row_value_cursor *c, const Blipline__StoreValue **ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    int rc = row_cursor_next_pb(&c->rows, &blipline__store_value__descriptor, &row, err);

    *ret = (const Blipline__StoreValue *)(const void *)row;
    return rc > 0 && !row ? -ENOMEM : rc;
}

int row_value_cursor_next(struct row_value_cursor *c, struct row_value *ret, struct err *err)
{
    const Blipline__StoreValue *pb;
    int rc = next_row(c, &pb, err);

    if (rc <= 0)
        return rc;
    if ((unsigned)pb->table < ROW_VALUE_META || (unsigned)pb->table > ROW_VALUE_PROBLEM)
        return err_set(err, -EBADMSG, "a value of an unknown table");
    *ret = (struct row_value){.table = (enum row_value_table)pb->table,
                              .number = pb->number,
                              .unit = pb->unit,
                              .data = pb->value.data,
                              .size_bytes = pb->value.len};
    if (!pb->more)
        return 1;
    buf_clear(&c->value);
    for (;;) {
        if (c->value.size_bytes + pb->value.len > VALUE_MAX_BYTES)
            return err_set(err, -EMSGSIZE, "a value of more than %d MiB", VALUE_MAX_BYTES >> 20);
        rc = buf_append(&c->value, pb->value.data, pb->value.len);
        if (rc < 0)
            return err_set(err, rc, "no memory for a value");
        if (!pb->more)
            break;
        rc = next_row(c, &pb, err);
        if (rc < 0)
            return rc;
        if (rc == 0 || (unsigned)pb->table != ret->table || pb->number != ret->number)
            return err_set(err, -EBADMSG, "a value is cut off");
    }
    ret->data = c->value.data;
    ret->size_bytes = c->value.size_bytes;
    return 1;
}
