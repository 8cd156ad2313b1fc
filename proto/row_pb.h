/* row_pb.h - items and records between plain structs and generated ones, for rows of the wire and values of the store.
 * Who may call: proto/ alone. Memory: `_to_pb` borrows from the plain struct, `_from_pb` from the generated one.
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
    Blipline__ItemError error;
};

/* The memory's budget, emptied and with a new limit; made at first use. NULL: no memory. */
struct budget *row_memory_budget(struct row_memory *m, size_t limit_bytes);

int row_item_check(const struct row_item *r, struct err *err) CHECK_RESULT;
void row_item_to_pb(const struct row_item *from, Blipline__Item *to);
/* The path is copied once more, into `b`, for its NUL. */
int row_item_from_pb(struct budget *b, const Blipline__Item *from, struct row_item *ret, struct err *err) CHECK_RESULT;
int row_record_check(const struct row_record *r, struct err *err) CHECK_RESULT;
void row_record_to_pb(const struct row_record *from, struct row_record_pb *to);
int row_record_from_pb(const Blipline__Record *from, struct row_record *ret, struct err *err) CHECK_RESULT;

#endif
