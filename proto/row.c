#include "proto/row.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/row_pb.h"

#define ROW_SLAB_BYTES ((size_t)96 * 1024)
#define ROW_BUDGET_BYTES ((size_t)1 << 20) /* for one row of <= 64 KiB */

struct budget *row_memory_budget(struct row_memory *m, size_t limit_bytes)
{
    if (!m->budget) {
        /* the budget and its slab are one block; 16-byte aligned both */
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

/* -- between plain rows and generated ones */

int row_item_check(const struct row_item *r, struct err *err)
{
    if (r->key_bytes == 0 || r->key_bytes > ROW_MAX_KEY_BYTES)
        return err_set(err, -EMSGSIZE, "item %llu: a key of %u bytes, not 1 to %d", (unsigned long long)r->item,
                       r->key_bytes, ROW_MAX_KEY_BYTES);
    if (r->path_bytes > ROW_MAX_PATH_BYTES)
        return err_set(err, -EMSGSIZE, "item %llu: a path of %u bytes, the limit is %d", (unsigned long long)r->item,
                       r->path_bytes, ROW_MAX_PATH_BYTES);
    if (r->path_bytes && memchr(r->path, 0, r->path_bytes))
        return err_set(err, -EBADMSG, "item %llu: a path with a NUL byte", (unsigned long long)r->item);
    return 0;
}

void row_item_to_pb(const struct row_item *from, Blipline__Item *to)
{
    blipline__item__init(to);
    to->item = from->item;
    to->key = (ProtobufCBinaryData){.len = from->key_bytes, .data = (uint8_t *)from->key};
    to->path = (ProtobufCBinaryData){.len = from->path_bytes, .data = (uint8_t *)from->path};
    to->size_bytes = from->size_bytes;
    to->mtime_ns = from->mtime_ns;
}

int row_item_from_pb(struct budget *b, const Blipline__Item *from, struct row_item *ret, struct err *err)
{
    uint8_t *path;
    int rc;

    if (from->key.len > UINT32_MAX || from->path.len > UINT32_MAX)
        return err_set(err, -EMSGSIZE, "item %llu: a key or path past 4 GiB", (unsigned long long)from->item);
    *ret = (struct row_item){
        .item = from->item,
        .key = from->key.data,
        .key_bytes = (uint32_t)from->key.len,
        .path = from->path.data,
        .path_bytes = (uint32_t)from->path.len,
        .size_bytes = from->size_bytes,
        .mtime_ns = from->mtime_ns,
    };
    rc = row_item_check(ret, err);
    if (rc < 0)
        return rc;
    path = budget_alloc(b, from->path.len + 1); /* a NUL behind it, for open(2) */
    if (!path)
        return err_set(err, -EMSGSIZE, "item %llu: no room for its path", (unsigned long long)from->item);
    if (from->path.len)
        memcpy(path, from->path.data, from->path.len);
    path[from->path.len] = '\0';
    ret->path = path;
    return 0;
}

int row_record_check(const struct row_record *r, struct err *err)
{
    if (r->n_captions > ROW_MAX_CAPTIONS)
        return err_set(err, -EMSGSIZE, "record %llu: %u captions, the limit is %d", (unsigned long long)r->item,
                       r->n_captions, ROW_MAX_CAPTIONS);
    for (uint32_t i = 0; i < r->n_captions; i++) {
        if (r->captions[i].text_bytes > ROW_MAX_CAPTION_BYTES)
            return err_set(err, -EMSGSIZE, "record %llu: a caption of %u bytes, the limit is %d",
                           (unsigned long long)r->item, r->captions[i].text_bytes, ROW_MAX_CAPTION_BYTES);
        if (!isfinite(r->captions[i].logprob))
            return err_set(err, -EBADMSG, "record %llu: logprob is not finite", (unsigned long long)r->item);
    }
    if (!r->failed)
        return 0;
    if (r->n_captions)
        return err_set(err, -EBADMSG, "record %llu: captions and an error", (unsigned long long)r->item);
    if (r->error_message_bytes > ROW_MAX_MESSAGE_BYTES)
        return err_set(err, -EMSGSIZE, "record %llu: a message of %u bytes, the limit is %d",
                       (unsigned long long)r->item, r->error_message_bytes, ROW_MAX_MESSAGE_BYTES);
    if (msg_check_code(r->error_code, err) < 0)
        return err_prefix(err, -EBADMSG, "record %llu", (unsigned long long)r->item);
    return 0;
}

void row_record_to_pb(const struct row_record *from, struct row_record_pb *to)
{
    blipline__record__init(&to->record);
    to->record.item = from->item;
    to->record.n_captions = from->n_captions;
    to->record.captions = to->list;
    for (uint32_t i = 0; i < from->n_captions; i++) {
        const struct row_caption *c = &from->captions[i];

        to->captions[i] = (Blipline__Caption)BLIPLINE__CAPTION__INIT;
        to->captions[i].text = (ProtobufCBinaryData){.len = c->text_bytes, .data = (uint8_t *)c->text};
        to->captions[i].logprob = c->logprob;
        to->captions[i].tokens = c->tokens;
        to->captions[i].prompt = c->prompt;
        to->list[i] = &to->captions[i];
    }
    if (!from->failed)
        return;
    to->error = (Blipline__ItemError)BLIPLINE__ITEM_ERROR__INIT;
    to->error.code = msg_text_to_pb(from->error_code);
    to->error.message = (ProtobufCBinaryData){.len = from->error_message_bytes, .data = (uint8_t *)from->error_message};
    to->record.error = &to->error;
}

int row_record_from_pb(const Blipline__Record *from, struct row_record *ret, struct err *err)
{
    int rc;

    if (from->n_captions > ROW_MAX_CAPTIONS)
        return err_set(err, -EMSGSIZE, "record %llu: %zu captions, the limit is %d", (unsigned long long)from->item,
                       from->n_captions, ROW_MAX_CAPTIONS);
    ret->item = from->item;
    ret->n_captions = (uint32_t)from->n_captions;
    for (size_t i = 0; i < from->n_captions; i++) {
        const Blipline__Caption *c = from->captions[i];

        ret->captions[i] = (struct row_caption){
            .text = c->text.data,
            .text_bytes = c->text.len > UINT32_MAX ? UINT32_MAX : (uint32_t)c->text.len,
            .logprob = c->logprob,
            .tokens = c->tokens,
            .prompt = c->prompt,
        };
    }
    ret->failed = from->error != NULL;
    ret->error_code[0] = '\0';
    ret->error_message = NULL;
    ret->error_message_bytes = 0;
    if (from->error) {
        const ProtobufCBinaryData *message = &from->error->message;

        rc = msg_text_from_pb(ret->error_code, sizeof(ret->error_code), &from->error->code, "error code", err);
        if (rc < 0)
            return rc;
        ret->error_message = message->data;
        ret->error_message_bytes = message->len > UINT32_MAX ? UINT32_MAX : (uint32_t)message->len;
    }
    return row_record_check(ret, err);
}

/* -- writing */

static int append_row(struct buf *frame, const ProtobufCMessage *row)
{
    size_t n = protobuf_c_message_get_packed_size(row), rest = n;
    int rc;

    if (n > ROW_MAX_BYTES)
        return -EINVAL;
    if (frame->size_bytes + n + 3 > MSG_MAX_ROW_FRAME_BYTES)
        return -EFBIG;
    rc = buf_reserve(frame, n + 3); /* 64 KiB is a varint of three bytes */
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
    Blipline__Item pb;

    if (row_item_check(item, NULL) < 0)
        return -EINVAL;
    row_item_to_pb(item, &pb);
    return append_row(frame, &pb.base);
}

int row_record_append(struct buf *frame, const struct row_record *record)
{
    struct row_record_pb pb;

    if (row_record_check(record, NULL) < 0)
        return -EINVAL;
    row_record_to_pb(record, &pb);
    return append_row(frame, &pb.record.base);
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

/* The next row's bytes: 1, or 0 at the end of all frames. */
static int next_bytes(struct row_cursor *c, const uint8_t **ret, size_t *ret_n, struct err *err)
{
    size_t n = 0;

    while (c->at == c->end) {
        if (c->i_frame == c->n_frames)
            return c->i_row == c->n_rows ? 0 : err_set(err, -EBADMSG, "%u rows, %u promised", c->i_row, c->n_rows);
        if (c->frames[c->i_frame].size_bytes > MSG_MAX_ROW_FRAME_BYTES)
            return err_set(err, -EMSGSIZE, "a row frame past 16 MiB");
        c->at = c->frames[c->i_frame].data;
        c->end = c->at + c->frames[c->i_frame].size_bytes;
        c->i_frame++;
    }
    if (c->i_row == c->n_rows)
        return err_set(err, -EBADMSG, "bytes after the %u rows promised", c->n_rows);
    for (int shift = 0;; shift += 7) {
        if (c->at == c->end || shift > 14)
            return err_set(err, -EBADMSG, "row %u: a bad length", c->i_row);
        n |= (size_t)(*c->at & 0x7f) << shift;
        if (!(*c->at++ & 0x80))
            break;
    }
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

static int next_row(struct row_cursor *c, const ProtobufCMessageDescriptor *kind, ProtobufCMessage **ret,
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
        return err_set(err, b->exhausted ? -EMSGSIZE : -EBADMSG, "row %u is no %s", c->i_row - 1, kind->short_name);
    return 1;
}

int row_cursor_next_item(struct row_cursor *c, struct row_item *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    struct row_item item;
    int rc = next_row(c, &blipline__item__descriptor, &row, err);

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
    int rc = next_row(c, &blipline__record__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = row_record_from_pb((const Blipline__Record *)(const void *)row, &record, err);
    if (rc < 0)
        return rc;
    *ret = record;
    return 1;
}

int row_item_copy(struct arena *a, const struct row_item *from, struct row_item *ret)
{
    uint8_t *at = arena_alloc(a, (size_t)from->key_bytes + from->path_bytes + 1);

    if (!at)
        return -ENOMEM;
    *ret = *from;
    if (from->key_bytes)
        memcpy(at, from->key, from->key_bytes);
    ret->key = at;
    at += from->key_bytes;
    if (from->path_bytes)
        memcpy(at, from->path, from->path_bytes);
    at[from->path_bytes] = '\0';
    ret->path = at;
    return 0;
}
