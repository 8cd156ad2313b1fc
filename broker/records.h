/* records.h - what a result says of its items, as records of the store: encoded once, when the result arrives.
 *
 * Who may call: the loop's thread. Units: bytes. Memory: a zeroed struct records is empty; records_release frees it.
 * Errors: negative errno; -EMSGSIZE: a record larger than the store takes. */
#ifndef BLIPLINE_BROKER_RECORDS_H
#define BLIPLINE_BROKER_RECORDS_H

#include "base/buf.h"
#include "base/err.h"
#include "broker/committer.h"
#include "broker/core.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One row of a result. */
struct record {
    uint32_t start, size_bytes; /* in records.bytes; 0 bytes: it says nothing but its item */
    uint32_t first_embedding, n_embeddings;
    bool failed;
    bool captions; /* it has some */
};

struct records {
    struct record *rows; /* [n], in the order of the lease's items */
    uint32_t n;
    size_t capacity;
    struct buf bytes;                       /* stored Records */
    struct buf embeddings;                  /* stored Embeddings */
    struct store_embedding *embedding_list; /* by row; `index` is the row's */
    size_t n_embeddings, embeddings_capacity;
};

/* One row more; its item has been checked. */
int records_add(struct records *r, const struct row_record *record) CHECK_RESULT;
void records_release(struct records *r);
/* What keeping them takes. */
uint64_t records_size_bytes(const struct records *r);

/* -- a unit's commit -- */

/* Rows of one node for some of the unit's items. */
struct records_part {
    const struct records *records;
    const struct core_commit_payload *payload; /* which items they are */
};

/* The records of a unit into `ret`, from what its nodes left, in the order of the commit. An error stands, the first
 * one, whatever other nodes say; a later node's captions replace those of an earlier one; embeddings of all nodes come
 * together. */
int records_merge(const struct records_part *parts, const struct core_commit *commit, uint64_t first_item,
                  struct committer_request *ret, struct err *err) CHECK_RESULT;

#endif
