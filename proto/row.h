/* row.h - the rows of row frames: items to process and records of their results.
 *
 * A row frame of at most 16 MiB has length-delimited protobuf rows (varint length, then that many bytes) of at most
 * 256 KiB each.
 * Who may call: anyone; a cursor and its memory belong to one thread at a time.
 * Memory: structs to be written borrow their bytes. A row from a cursor is valid until the next call on it; use
 *         row_item_copy to keep an item. Frames must outlive the cursor. A zeroed row_memory is ready for use;
 *         row_memory_release frees it.
 * Errors: -EBADMSG for a malformed row, -EMSGSIZE beyond a limit, -ENOMEM; err names row and field. */
#ifndef BLIPLINE_PROTO_ROW_H
#define BLIPLINE_PROTO_ROW_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ROW_MAX_BYTES = 256 * 1024, /* enough for the query outputs of a published model in fp32 */
    ROW_MAX_KEY_BYTES = 8192,
    ROW_MAX_PATH_BYTES = 16384,
    ROW_MAX_CAPTIONS = 32,
    ROW_MAX_CAPTION_BYTES = 16384,
    ROW_MAX_MESSAGE_BYTES = 4096,
    ROW_MAX_FIELDS = 64,
    ROW_MAX_FIELD_BYTES = 16384,
};

struct row_caption {
    const uint8_t *text; /* the writer guarantees UTF-8; not checked here */
    uint32_t text_bytes;
    float logprob; /* finite, as score, itc and itm */
    uint32_t tokens;
    uint32_t prompt; /* number in the recipe; given texts: number of the field */
    uint32_t sample;
    float score;
    bool given;                 /* came with the item */
    const uint8_t *prompt_text; /* the prompt with its fields filled in; NULL: it has no fields, or a given text */
    uint32_t prompt_text_bytes;
    bool has_itc, has_itm;
    float itc, itm;
};

struct row_field {
    const uint8_t *name, *value; /* the writer guarantees UTF-8; names are not empty */
    uint32_t name_bytes, value_bytes;
};

/* One picture. Key and path may be any bytes, as file names, and are not NUL-terminated; only a decoded path is
 * followed by a NUL and contains none. */
struct row_item {
    uint64_t item;
    const uint8_t *key;
    uint32_t key_bytes; /* at least 1 */
    const uint8_t *path;
    uint32_t path_bytes;
    uint32_t root_bytes; /* only in WORK: so many bytes of path are the root of its source; 0: it has none */
    uint64_t size_bytes;
    uint64_t pushed_at, pushed_bytes; /* a picture that the client has sent; see store.proto */
    int64_t mtime_ns;
    uint32_t source; /* number of its row_source; 0: none */
    uint32_t n_fields;
    const struct row_field *fields; /* a list of values becomes several fields of the same name */
    uint32_t n_captions;            /* only in WORK: captions of an earlier node */
    const struct row_caption *captions;
    /* the item's error if the list row names no usable picture; "": none */
    char error_code[MSG_CODE_SIZE]; /* one word of [a-z0-9_-] */
    const uint8_t *error_message;
    uint32_t error_message_bytes;
};

/* A matrix of dtype F16 or F32: [rows, cols], row-major, little endian. */
struct row_embedding {
    enum msg_embedding kind;
    enum dtype dtype;
    uint32_t rows, cols;
    const uint8_t *data;
    uint32_t data_bytes;
};

/* The result of one item: captions and embeddings, or an error. */
struct row_record {
    uint64_t item;
    uint32_t n_captions;
    struct row_caption captions[ROW_MAX_CAPTIONS];
    uint32_t n_embeddings; /* only on the wire; the store has them in separate tables */
    struct row_embedding embeddings[MSG_MAX_EMBEDDINGS];
    bool failed;
    char error_code[MSG_CODE_SIZE]; /* one word of [a-z0-9_-], when failed */
    const uint8_t *error_message;
    uint32_t error_message_bytes;
};

/* Memory for decoded bytes; each decode with it invalidates the previous one. Zero-initialise. */
struct row_memory {
    struct budget *budget;
};
void row_memory_release(struct row_memory *m);

/* -- writing: append one row. -EFBIG beyond the limit of the buf; nothing is appended then. Use MSG_MAX_ROW_FRAME_BYTES
 * as the limit for one frame, ROW_MAX_ROWS_BYTES for a whole message, which the sender cuts into frames. -EINVAL for a
 * field out of range or a row beyond ROW_MAX_BYTES. */
#define ROW_MAX_ROWS_BYTES ((size_t)MSG_MAX_ROW_FRAMES * (MSG_MAX_ROW_FRAME_BYTES - ROW_MAX_BYTES))

int row_item_append(struct buf *frame, const struct row_item *item) CHECK_RESULT;
int row_record_append(struct buf *frame, const struct row_record *record) CHECK_RESULT;

/* Where to cut rows into frames: the size of as many whole rows as fit `max_bytes`, which is at least
 * ROW_MAX_BYTES + 3. 0: malformed rows. */
size_t row_frame_cut(const uint8_t *rows, size_t size_bytes, size_t max_bytes);

/* -- reading */
struct row_frame {
    const uint8_t *data;
    size_t size_bytes;
};

struct row_cursor {
    const struct row_frame *frames; /* borrowed */
    size_t n_frames, i_frame;
    const uint8_t *at, *end;
    uint32_t n_rows, i_row; /* n_rows: as in the envelope */
    struct row_memory memory;
};

/* Cannot fail; reading a malformed row fails. */
void row_cursor_init(struct row_cursor *c, const struct row_frame *frames, size_t n_frames, uint32_t n_rows);
void row_cursor_release(struct row_cursor *c);
/* 1: a row; 0: the end, after exactly n_rows rows and all bytes; negative: malformed. */
int row_cursor_next_item(struct row_cursor *c, struct row_item *ret, struct err *err) CHECK_RESULT;
int row_cursor_next_record(struct row_cursor *c, struct row_record *ret, struct err *err) CHECK_RESULT;

/* Deep copy into `a`, the path with its NUL. -ENOMEM. */
int row_item_copy(struct arena *a, const struct row_item *from, struct row_item *ret) CHECK_RESULT;

#endif
