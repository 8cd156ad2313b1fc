#include "proto/row_source.h"

#include <errno.h>
#include <string.h>

#include "proto/row_pb.h"
#include "proto/stored_pb.h"

struct source_pb {
    Blipline__Source source;
    ProtobufCBinaryData columns[ROW_SOURCE_MAX_COLUMNS];
    Blipline__PassedOver passed[ROW_SOURCE_MAX_PASSED], *passed_list[ROW_SOURCE_MAX_PASSED];
};

static int check(const struct row_source *s, struct err *err)
{
    int rc = 0;

    if (s->number == 0 || !s->name[0] || s->root[0] != '/' || strchr(s->list, '/'))
        return err_set(err, -EBADMSG, "source %u: number, name or absolute root is missing", s->number);
    if (s->n_columns > ROW_SOURCE_MAX_COLUMNS || s->n_passed > ROW_SOURCE_MAX_PASSED)
        return err_set(err, -EMSGSIZE,
                       "source %u: %u columns and %u kinds of files passed over, the limits are %d and %d", s->number,
                       s->n_columns, s->n_passed, ROW_SOURCE_MAX_COLUMNS, ROW_SOURCE_MAX_PASSED);
    for (uint32_t i = 0; rc == 0 && i < s->n_passed; i++)
        rc = msg_check_code(s->passed[i].kind, err);
    return rc < 0 ? err_prefix(err, -EBADMSG, "source %u", s->number) : 0;
}

static void to_pb(const struct row_source *from, struct source_pb *to)
{
    to->source = (Blipline__Source)BLIPLINE__SOURCE__INIT;
    to->source.number = from->number;
    to->source.name = msg_text_to_pb(from->name);
    to->source.root = msg_text_to_pb(from->root);
    to->source.list = msg_text_to_pb(from->list);
    for (uint32_t i = 0; i < from->n_columns; i++)
        to->columns[i] = msg_text_to_pb(from->columns[i]);
    to->source.n_columns = from->n_columns;
    to->source.columns = to->columns;
    for (uint32_t i = 0; i < from->n_passed; i++) {
        to->passed[i] = (Blipline__PassedOver)BLIPLINE__PASSED_OVER__INIT;
        to->passed[i].kind = msg_text_to_pb(from->passed[i].kind);
        to->passed[i].n = from->passed[i].n;
        to->passed_list[i] = &to->passed[i];
    }
    to->source.n_passed_over = from->n_passed;
    to->source.passed_over = to->passed_list;
}

static int from_pb(const Blipline__Source *from, struct row_source *ret, struct err *err)
{
    int rc;

    *ret = (struct row_source){.number = from->number};
    if (from->n_columns > ROW_SOURCE_MAX_COLUMNS || from->n_passed_over > ROW_SOURCE_MAX_PASSED)
        return err_set(err, -EMSGSIZE, "source %u: %zu columns, %zu kinds of files passed over", from->number,
                       from->n_columns, from->n_passed_over);
    if ((rc = msg_text_from_pb(ret->name, sizeof(ret->name), &from->name, "name", err)) < 0 ||
        (rc = msg_text_from_pb(ret->root, sizeof(ret->root), &from->root, "root", err)) < 0 ||
        (rc = msg_text_from_pb(ret->list, sizeof(ret->list), &from->list, "list", err)) < 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < from->n_columns; i++)
        rc = msg_text_from_pb(ret->columns[i], sizeof(ret->columns[i]), &from->columns[i], "column", err);
    for (size_t i = 0; rc == 0 && i < from->n_passed_over; i++) {
        rc = msg_text_from_pb(ret->passed[i].kind, sizeof(ret->passed[i].kind), &from->passed_over[i]->kind, "kind",
                              err);
        ret->passed[i].n = from->passed_over[i]->n;
    }
    ret->n_columns = (uint32_t)from->n_columns;
    ret->n_passed = (uint32_t)from->n_passed_over;
    return rc < 0 ? rc : check(ret, err);
}

int row_source_append(struct buf *frame, const struct row_source *s)
{
    struct source_pb pb;

    if (check(s, NULL) < 0)
        return -EINVAL;
    to_pb(s, &pb);
    return row_append_pb(frame, &pb.source.base);
}

int row_cursor_next_source(struct row_cursor *c, struct row_source *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    int rc = row_cursor_next_pb(c, &blipline__source__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    rc = from_pb((const Blipline__Source *)(const void *)row, ret, err);
    return rc < 0 ? rc : 1;
}

int stored_source_encode(const struct row_source *s, struct buf *out)
{
    struct source_pb pb;

    if (check(s, NULL) < 0)
        return -EINVAL;
    to_pb(s, &pb);
    return stored_append_pb(out, &pb.source.base);
}

int stored_source_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_source *ret,
                         struct err *err)
{
    ProtobufCMessage *pb;
    int rc = stored_unpack_pb(memory, &blipline__source__descriptor, data, n_bytes, &pb, err);

    return rc < 0 ? rc : from_pb((const Blipline__Source *)(const void *)pb, ret, err);
}

int row_source_resolve(const struct row_source *s, struct row_item *item, struct buf *ret)
{
    int rc = 0;

    buf_clear(ret);
    item->root_bytes = 0;
    if (item->source && item->path_bytes && item->path[0] != '/') {
        item->root_bytes = (uint32_t)strlen(s->root);
        rc = buf_append(ret, s->root, item->root_bytes);
        if (rc == 0 && s->root[strlen(s->root) - 1] != '/')
            rc = buf_append(ret, "/", 1);
    }
    if (rc == 0)
        rc = buf_append(ret, item->path_bytes ? item->path : (const uint8_t *)"", item->path_bytes);
    if (rc == 0)
        rc = buf_append(ret, "", 1);
    if (rc < 0)
        return rc;
    item->path = ret->data;
    item->path_bytes = (uint32_t)ret->size_bytes - 1;
    return 0;
}
