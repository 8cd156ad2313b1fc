/* row_pb.h - conversion of items and records to protobuf structs and back, for the wire and the store.
 * Who may call: proto/ only.
 * Memory: `_to_pb` borrows from the plain struct, `_from_pb` from the generated one.
 * Errors: as row.h. */
#ifndef BLIPLINE_PROTO_ROW_PB_H
#define BLIPLINE_PROTO_ROW_PB_H

#include "proto/budget.h"
#include "proto/msg_pb.h"
#include "proto/row.h"

#include "proto/store.pb-c.h"

struct row_record_pb {
    Blipline__Record record;
    Blipline__Caption captions[ROW_MAX_CAPTIONS], *list[ROW_MAX_CAPTIONS];
    Blipline__Embedding embeddings[MSG_MAX_EMBEDDINGS], *embedding_list[MSG_MAX_EMBEDDINGS];
    Blipline__ItemError error;
};

struct row_item_pb {
    Blipline__Item item;
    Blipline__Field fields[ROW_MAX_FIELDS], *field_list[ROW_MAX_FIELDS];
    Blipline__Caption captions[ROW_MAX_CAPTIONS], *caption_list[ROW_MAX_CAPTIONS];
    Blipline__ItemError error;
};

/* Reset the budget, with a new limit; the first call allocates it. NULL: no memory. */
struct budget *row_memory_budget(struct row_memory *m, size_t limit_bytes);

/* Append a row, or read the next one as row_cursor_next_item does, of any kind. */
int row_append_pb(struct buf *frame, const ProtobufCMessage *row) CHECK_RESULT;
int row_cursor_next_pb(struct row_cursor *c, const ProtobufCMessageDescriptor *kind, ProtobufCMessage **ret,
                       struct err *err) CHECK_RESULT;

int row_item_check(const struct row_item *r, struct err *err) CHECK_RESULT;
void row_item_to_pb(const struct row_item *from, struct row_item_pb *to);
/* Allocates lists of fields and captions, and the NUL-terminated path, in `b`. */
int row_item_from_pb(struct budget *b, const Blipline__Item *from, struct row_item *ret, struct err *err) CHECK_RESULT;
int row_embedding_check(const struct row_embedding *e, struct err *err) CHECK_RESULT;
void row_embedding_to_pb(const struct row_embedding *from, Blipline__Embedding *to);
int row_embedding_from_pb(const Blipline__Embedding *from, struct row_embedding *ret, struct err *err) CHECK_RESULT;
int row_record_check(const struct row_record *r, struct err *err) CHECK_RESULT;
void row_record_to_pb(const struct row_record *from, struct row_record_pb *to);
int row_record_from_pb(const Blipline__Record *from, struct row_record *ret, struct err *err) CHECK_RESULT;

#endif
