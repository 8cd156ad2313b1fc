/* row.h - the rows of row frames: items to work on, records of what came out.
 *
 * A row frame is a run of length-delimited protobuf rows (varint length, then that many bytes), each row <= 256 KiB,
 * the frame <= 16 MiB. Rows are written one after the other into a buf and read one at a time through a bounded
 * allocator.
 * Who may call: anyone; a cursor and its memory belong to one thread at a time.
 * Memory: structs to be written borrow their bytes. What a cursor hands out lies in the cursor and is valid until its
 *         next call; to keep an item, copy it (row_item_copy). Frames must outlive the cursor. A zeroed row_memory is
 *         ready for use; row_memory_release frees it.
 * Errors: -EBADMSG for bytes that are no row of ours, -EMSGSIZE past a limit, -ENOMEM; err names row and field. */
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
    ROW_MAX_BYTES = 256 * 1024, /* a record with the query outputs of a published model in fp32 */
    ROW_MAX_KEY_BYTES = 8192,
    ROW_MAX_PATH_BYTES = 16384,
    ROW_MAX_CAPTIONS = 32,
    ROW_MAX_CAPTION_BYTES = 16384,
    ROW_MAX_MESSAGE_BYTES = 4096,
    ROW_MAX_FIELDS = 64,
    ROW_MAX_FIELD_BYTES = 16384,
};

struct row_caption {
    const uint8_t *text; /* UTF-8 by contract of the writer; not checked here */
    uint32_t text_bytes;
    float logprob; /* finite, as score, itc and itm */
    uint32_t tokens;
    uint32_t prompt; /* number in the recipe; given texts: of its field */
    uint32_t sample;
    float score;
    bool given;                 /* came with the item */
    const uint8_t *prompt_text; /* with its fields filled in; NULL and 0: it has none. Given texts: NULL */
    uint32_t prompt_text_bytes;
    bool has_itc, has_itm;
    float itc, itm;
};

struct row_field {
    const uint8_t *name, *value; /* UTF-8 by contract of the writer; names are not empty */
    uint32_t name_bytes, value_bytes;
};

/* One image. Key and path are any bytes (file names are), not NUL-terminated, except that a decoded path is followed by
 * a NUL and holds none. */
struct row_item {
    uint64_t item;
    const uint8_t *key;
    uint32_t key_bytes; /* at least 1 */
    const uint8_t *path;
    uint32_t path_bytes;
    uint64_t size_bytes;
    int64_t mtime_ns;
    uint32_t source; /* number of its row_source; 0: none */
    uint32_t n_fields;
    const struct row_field *fields; /* a list of values is several fields of one name */
    uint32_t n_captions;            /* of WORK alone: what an earlier node wrote */
    const struct row_caption *captions;
    /* The row of a list is of no use: this is to be the item's error. "": there is a picture to look at. */
    char error_code[MSG_CODE_SIZE]; /* one word of [a-z0-9_-] */
    const uint8_t *error_message;
    uint32_t error_message_bytes;
};

/* A block of numbers: rows * cols of dtype F16 or F32, little endian. */
struct row_embedding {
    enum msg_embedding kind;
    enum dtype dtype;
    uint32_t rows, cols;
    const uint8_t *data;
    uint32_t data_bytes;
};

/* What the store keeps for one item: captions and embeddings, or the reason why there are none. */
struct row_record {
    uint64_t item;
    uint32_t n_captions;
    struct row_caption captions[ROW_MAX_CAPTIONS];
    uint32_t n_embeddings; /* of the wire alone; the store keeps them apart (proto/stored.h) */
    struct row_embedding embeddings[MSG_MAX_EMBEDDINGS];
    bool failed;
    char error_code[MSG_CODE_SIZE]; /* one word of [a-z0-9_-], when failed */
    const uint8_t *error_message;
    uint32_t error_message_bytes;
};

/* Where decoded bytes lie; each decode with it takes back what the last one gave out. Zero-initialise. */
struct row_memory {
    struct budget *budget;
};
void row_memory_release(struct row_memory *m);

/* -- writing: append one row. -EFBIG when the buf's limit is reached: the row is not there. A limit of
 * MSG_MAX_ROW_FRAME_BYTES makes it one frame; with ROW_MAX_ROWS_BYTES it is what a message can carry (the sender cuts
 * it into frames). -EINVAL for a field out of range, or a row past ROW_MAX_BYTES. */
#define ROW_MAX_ROWS_BYTES ((size_t)MSG_MAX_ROW_FRAMES * (MSG_MAX_ROW_FRAME_BYTES - ROW_MAX_BYTES))

int row_item_append(struct buf *frame, const struct row_item *item) CHECK_RESULT;
int row_record_append(struct buf *frame, const struct row_record *record) CHECK_RESULT;

/* The bytes of as many whole rows as fit `max_bytes`, at least ROW_MAX_BYTES + 3: where to cut a run of rows into
 * frames. 0: these are no rows. */
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
    uint32_t n_rows, i_row; /* n_rows: what the envelope promised */
    struct row_memory memory;
};

/* Cannot fail: what is wrong with the frames shows at the row concerned. */
void row_cursor_init(struct row_cursor *c, const struct row_frame *frames, size_t n_frames, uint32_t n_rows);
void row_cursor_release(struct row_cursor *c);
/* 1: a row; 0: the end, after exactly n_rows rows and with no byte left over; negative: the frames are bad here. */
int row_cursor_next_item(struct row_cursor *c, struct row_item *ret, struct err *err) CHECK_RESULT;
int row_cursor_next_record(struct row_cursor *c, struct row_record *ret, struct err *err) CHECK_RESULT;

/* A deep copy whose bytes lie in `a` (path with its NUL). -ENOMEM. */
int row_item_copy(struct arena *a, const struct row_item *from, struct row_item *ret) CHECK_RESULT;

#endif
