#include "proto/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/row_pb.h"

#define ROW_SLAB_BYTES ((size_t)96 * 1024)
#define ROW_BUDGET_BYTES ((size_t)2 << 20) /* for one row of <= 256 KiB */

struct budget *row_memory_budget(struct row_memory *m, size_t limit_bytes)
{
    if (!m->budget) {
        /* budget and slab share one block; both are 16-byte aligned */
        size_t head = (sizeof(struct budget) + 15) & ~(size_t)15;
        uint8_t *block = malloc(head + ROW_SLAB_BYTES);

        if (!block)
            return NULL;
        m->budget = (struct budget *)(void *)block;
        budget_init(m->budget, block + head, ROW_SLAB_BYTES, limit_bytes);
    }
    budget_reset(m->budget, limit_bytes);
    return m->budget;
}

void row_memory_release(struct row_memory *m)
{
    if (m->budget)
        budget_release(m->budget);
    free(m->budget);
    m->budget = NULL;
}

/* -- writing */

int row_append_pb(struct buf *frame, const ProtobufCMessage *row)
{
    size_t n = protobuf_c_message_get_packed_size(row), rest = n;
    int rc;

    if (n > ROW_MAX_BYTES)
        return -EINVAL;
    rc = buf_reserve(frame, n + 3); /* 256 KiB is a varint of three bytes */
    if (rc < 0)
        return rc;
    for (; rest >= 0x80; rest >>= 7)
        frame->data[frame->size_bytes++] = (uint8_t)(rest | 0x80);
    frame->data[frame->size_bytes++] = (uint8_t)rest;
    frame->size_bytes += protobuf_c_message_pack(row, frame->data + frame->size_bytes);
    return 0;
}

int row_item_append(struct buf *frame, const struct row_item *item)
{
    struct row_item_pb pb;

    if (row_item_check(item, NULL) < 0)
        return -EINVAL;
    row_item_to_pb(item, &pb);
    return row_append_pb(frame, &pb.item.base);
}

int row_record_append(struct buf *frame, const struct row_record *record)
{
    struct row_record_pb pb;

    if (row_record_check(record, NULL) < 0)
        return -EINVAL;
    row_record_to_pb(record, &pb);
    return row_append_pb(frame, &pb.record.base);
}

/* -- reading */

void row_cursor_init(struct row_cursor *c, const struct row_frame *frames, size_t n_frames, uint32_t n_rows)
{
    *c = (struct row_cursor){.frames = frames, .n_frames = n_frames, .n_rows = n_rows};
}

void row_cursor_release(struct row_cursor *c)
{
    row_memory_release(&c->memory);
}

/* Read the varint before a row: at most three bytes. */
static bool get_length(const uint8_t **at, const uint8_t *end, size_t *ret)
{
    size_t n = 0;

    for (int shift = 0; *at < end && shift <= 14; shift += 7) {
        n |= (size_t)(**at & 0x7f) << shift;
        if (!(*(*at)++ & 0x80)) {
            *ret = n;
            return true;
        }
    }
    return false;
}

size_t row_frame_cut(const uint8_t *rows, size_t size_bytes, size_t max_bytes)
{
    const uint8_t *at = rows, *end = size_bytes ? rows + size_bytes : rows; /* NULL + 0 is undefined */
    size_t fits = 0, n;

    while (at < end) {
        if (!get_length(&at, end, &n) || n > (size_t)(end - at))
            return 0;
        at += n;
        if ((size_t)(at - rows) > max_bytes)
            return fits;
        fits = (size_t)(at - rows);
    }
    return fits;
}

/* The next row's bytes: 1, or 0 at the end of all frames. */
static int next_bytes(struct row_cursor *c, const uint8_t **ret, size_t *ret_n, struct err *err)
{
    size_t n = 0;

    while (c->at == c->end) {
        if (c->i_frame == c->n_frames)
            return c->i_row == c->n_rows ? 0
                                         : err_set(err, -EBADMSG, "%u rows, the envelope says %u", c->i_row, c->n_rows);
        if (c->frames[c->i_frame].size_bytes > MSG_MAX_ROW_FRAME_BYTES)
            return err_set(err, -EMSGSIZE, "a row frame is larger than 16 MiB");
        c->at = c->frames[c->i_frame].data;
        c->end = c->at + c->frames[c->i_frame].size_bytes;
        c->i_frame++;
    }
    if (c->i_row == c->n_rows)
        return err_set(err, -EBADMSG, "bytes after the %u rows of the envelope", c->n_rows);
    if (!get_length(&c->at, c->end, &n))
        return err_set(err, -EBADMSG, "row %u: malformed length", c->i_row);
    if (n > ROW_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "row %u of %zu bytes, the limit is %d", c->i_row, n, ROW_MAX_BYTES);
    if (n > (size_t)(c->end - c->at))
        return err_set(err, -EBADMSG, "row %u is cut off", c->i_row);
    *ret = c->at;
    *ret_n = n;
    c->at += n;
    c->i_row++;
    return 1;
}

int row_cursor_next_pb(struct row_cursor *c, const ProtobufCMessageDescriptor *kind, ProtobufCMessage **ret,
                       struct err *err)
{
    const uint8_t *data = NULL;
    struct budget *b;
    size_t n = 0;
    int rc = next_bytes(c, &data, &n, err);

    if (rc <= 0)
        return rc;
    b = row_memory_budget(&c->memory, ROW_BUDGET_BYTES);
    if (!b)
        return err_set(err, -ENOMEM, "no memory for a row");
    *ret = protobuf_c_message_unpack(kind, &b->allocator, n, data);
    if (!*ret)
        return err_set(err, b->exhausted ? -EMSGSIZE : -EBADMSG, "row %u is not a valid %s", c->i_row - 1,
                       kind->short_name);
    return 1;
}

int row_cursor_next_item(struct row_cursor *c, struct row_item *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    struct row_item item;
    int rc = row_cursor_next_pb(c, &blipline__item__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = row_item_from_pb(c->memory.budget, (const Blipline__Item *)(const void *)row, &item, err);
    if (rc < 0)
        return rc;
    *ret = item;
    return 1;
}

int row_cursor_next_record(struct row_cursor *c, struct row_record *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    struct row_record record;
    int rc = row_cursor_next_pb(c, &blipline__record__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = row_record_from_pb((const Blipline__Record *)(const void *)row, &record, err);
    if (rc < 0)
        return rc;
    *ret = record;
    return 1;
}

static const uint8_t *copy_bytes(uint8_t **at, const uint8_t *from, uint32_t n)
{
    uint8_t *to = *at;

    if (n)
        memcpy(to, from, n);
    *at += n;
    return to;
}

int row_item_copy(struct arena *a, const struct row_item *from, struct row_item *ret)
{
    size_t bytes = (size_t)from->key_bytes + from->path_bytes + 1 + from->error_message_bytes;
    struct row_field *fields = NULL;
    struct row_caption *captions = NULL;
    uint8_t *at;

    for (uint32_t i = 0; i < from->n_fields; i++)
        bytes += (size_t)from->fields[i].name_bytes + from->fields[i].value_bytes;
    for (uint32_t i = 0; i < from->n_captions; i++)
        bytes += (size_t)from->captions[i].text_bytes + from->captions[i].prompt_text_bytes;
    at = arena_alloc(a, bytes);
    if (from->n_fields)
        fields = arena_alloc(a, from->n_fields * sizeof(*fields));
    if (from->n_captions)
        captions = arena_alloc(a, from->n_captions * sizeof(*captions));
    if (!at || (from->n_fields && !fields) || (from->n_captions && !captions))
        return -ENOMEM;
    *ret = *from;
    ret->key = copy_bytes(&at, from->key, from->key_bytes);
    ret->path = copy_bytes(&at, from->path, from->path_bytes);
    *at++ = '\0';
    ret->error_message = copy_bytes(&at, from->error_message, from->error_message_bytes);
    for (uint32_t i = 0; i < from->n_fields; i++) {
        fields[i] = from->fields[i];
        fields[i].name = copy_bytes(&at, fields[i].name, fields[i].name_bytes);
        fields[i].value = copy_bytes(&at, fields[i].value, fields[i].value_bytes);
    }
    for (uint32_t i = 0; i < from->n_captions; i++) {
        captions[i] = from->captions[i];
        captions[i].text = copy_bytes(&at, captions[i].text, captions[i].text_bytes);
        if (captions[i].prompt_text)
            captions[i].prompt_text = copy_bytes(&at, captions[i].prompt_text, captions[i].prompt_text_bytes);
    }
    ret->fields = fields;
    ret->captions = captions;
    return 0;
}
