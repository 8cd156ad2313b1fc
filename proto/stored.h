/* stored.h - encode and decode the values of a job store, with their checksum.
 *
 * A value is a protobuf message of store.proto. Its last five bytes are field 15: 0x7d and the CRC-32 of zlib, little
 * endian, over all bytes before. Decoding checks the CRC before it parses.
 * Who may call: anyone; a row_memory belongs to one thread at a time.
 * Memory: encoders borrow the bytes they write. A decoded value lies in `memory` (proto/row.h) and is valid until the
 *         next decode with it or its release; it does not point into the input.
 * Errors: -EILSEQ for a wrong checksum (err says "checksum"), -EBADMSG for a malformed value, -EMSGSIZE beyond a limit,
 *         -ENOMEM. Encoders: -EINVAL for a field out of range, -EFBIG or -ENOMEM of the buf. */
#ifndef BLIPLINE_PROTO_STORED_H
#define BLIPLINE_PROTO_STORED_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Version 3 has named sources; in version 2 every path is absolute. */
enum { STORED_SCHEMA_VERSION = 3, STORED_OLDEST_VERSION = 2, STORED_CRC_BYTES = 5, STORED_MAX_PARTS = 1024 };
#define STORED_MAX_BYTES ((size_t)64 << 20) /* a manifest unit with 4096 long paths */

struct stored_manifest_unit {
    uint64_t first_item;
    uint32_t n_items;             /* 1 ... MSG_MAX_UNIT_ITEMS */
    const struct row_item *items; /* items[i].item == first_item + i */
};

struct stored_unit_state {
    bool done;
    uint32_t attempts;
    uint32_t n_failed;
    uint32_t n_parts;                        /* bytes of `parts`, without trailing zeros; 0: not cut into parts */
    uint8_t parts[STORED_MAX_PARTS];         /* [i]: 1 + failures of the part that begins at item i; 0: none does */
    uint32_t n_again;                        /* bits set in `again` */
    uint64_t again[MSG_MAX_UNIT_ITEMS / 64]; /* of a done unit: bit per item to be redone */
};

struct stored_job_meta {
    uint32_t schema_version; /* decoding accepts any; the caller refuses those it does not know */
    struct msg_recipe recipe;
    uint32_t n_nodes;
    struct msg_node nodes[MSG_MAX_NODES];
    char source[MSG_TEXT_SIZE];
    int64_t created_ms;
    uint32_t unit_items;
    char program[MSG_NAME_SIZE];
    /* of a job of the job table, as in struct stored_job_entry */
    bool has_token;
    uint8_t token[MSG_TOKEN_BYTES];
    char name[MSG_NAME_SIZE], owner[MSG_NAME_SIZE];
    bool push; /* the client sends the pictures */
};

struct stored_job_counters {
    uint64_t n_items;
    uint32_t n_units;
    bool sealed;
    uint64_t n_done;
    uint64_t n_failed;
    uint32_t n_units_done;
    uint64_t n_again;  /* of n_done, items marked to be redone */
    uint64_t n_redone; /* records that have ever replaced another */
};

enum stored_wanted {
    STORED_WANTED_RUN,
    STORED_WANTED_PAUSED,
    STORED_WANTED_CANCELLED,
    STORED_WANTED_REMOVED /* the store is being deleted */
};

/* A job of a broker's job table (store/job_table.h). */
struct stored_job_entry {
    uint64_t job; /* not 0 */
    bool has_token;
    uint8_t token[MSG_TOKEN_BYTES];
    char name[MSG_NAME_SIZE], owner[MSG_NAME_SIZE], recipe[MSG_NAME_SIZE];
    char model[MSG_NAME_SIZE]; /* the names of the models, for people */
    uint32_t priority;
    enum stored_wanted wanted;
    uint32_t max_failures, max_failed_per_mille;
    int64_t created_ms, ended_ms;
    char text[MSG_TEXT_SIZE];                    /* why it does not go on; "": it does, or has ended */
    uint64_t n_items, n_done, n_failed, n_again; /* when the row was written */
    bool sealed;                                 /* then: all items have been sent */
    bool retrying;                               /* failed items are being marked to be done again: those that failed */
    uint32_t n_retry_codes;                      /* with one of these codes; 0: all */
    char retry_codes[MSG_MAX_RETRY_CODES][MSG_CODE_SIZE];
    bool push;                /* the client sends the pictures */
    enum msg_job_state state; /* only in rows of JOB_LISTED; 0: not open */
};

/* Encoders append one value to `out`. */
int stored_manifest_unit_encode(const struct stored_manifest_unit *u, struct buf *out) CHECK_RESULT;
int stored_unit_state_encode(const struct stored_unit_state *s, struct buf *out) CHECK_RESULT;
int stored_record_encode(const struct row_record *r, struct buf *out) CHECK_RESULT; /* without embeddings */

int stored_embedding_encode(const struct row_embedding *e, struct buf *out) CHECK_RESULT;
int stored_job_meta_encode(const struct stored_job_meta *m, struct buf *out) CHECK_RESULT;
int stored_job_counters_encode(const struct stored_job_counters *c, struct buf *out) CHECK_RESULT;
int stored_job_entry_encode(const struct stored_job_entry *e, struct buf *out) CHECK_RESULT;

int stored_manifest_unit_decode(struct row_memory *memory, const void *data, size_t n_bytes,
                                struct stored_manifest_unit *ret, struct err *err) CHECK_RESULT;
int stored_unit_state_decode(const void *data, size_t n_bytes, struct stored_unit_state *ret,
                             struct err *err) CHECK_RESULT;
int stored_record_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_record *ret,
                         struct err *err) CHECK_RESULT;
int stored_embedding_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct row_embedding *ret,
                            struct err *err) CHECK_RESULT;
int stored_job_meta_decode(const void *data, size_t n_bytes, struct stored_job_meta *ret, struct err *err) CHECK_RESULT;
int stored_job_counters_decode(const void *data, size_t n_bytes, struct stored_job_counters *ret,
                               struct err *err) CHECK_RESULT;

/* Fill in e->model. */
void stored_job_entry_set_model(struct stored_job_entry *e, uint32_t n_nodes, const struct msg_node *nodes);

/* A row of JOB_LISTED; as row_cursor_next_item. */
int row_job_entry_append(struct buf *frame, const struct stored_job_entry *e) CHECK_RESULT;
int row_cursor_next_job_entry(struct row_cursor *c, struct stored_job_entry *ret, struct err *err) CHECK_RESULT;

int stored_job_entry_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct stored_job_entry *ret,
                            struct err *err) CHECK_RESULT;

/* Compare a recipe and graph with those of a store. 0: they are the same. Otherwise *err, which must not be NULL, names
 * `path` and lists the differences, each on a line that ends in a newline. */
enum msg_reason stored_job_differs(const struct stored_job_meta *meta, const struct msg_recipe *recipe,
                                   uint32_t n_nodes, const struct msg_node *nodes, const char *path, struct err *err);

/* Check only the checksum, as `verify` does for every value. -EILSEQ. */
int stored_check(const void *data, size_t n_bytes, struct err *err) CHECK_RESULT;

#endif
