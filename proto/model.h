/* model.h - the models that workers offer: their small files, and the stages that workers compute.
 *
 * Rows of MODEL_OFFER and MODEL_LISTED, and values of a broker's state directory.
 * Who may call: anyone. Units: bytes. Memory: plain values; a struct model has some 10 KB.
 * Errors: as row.h and stored.h. */
#ifndef BLIPLINE_PROTO_MODEL_H
#define BLIPLINE_PROTO_MODEL_H

#include "base/buf.h"
#include "base/checkpoint_file.h"
#include "base/err.h"
#include "proto/msg.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODEL_MAX_LISTED = 64,
    MODEL_MAX_STAGES = 32,
    MODEL_MAX_BYTES = 32 << 20, /* all files */
    MODEL_MAX_SETTINGS = 255,
};

struct model_file {
    enum checkpoint_file file;
    uint32_t size_bytes;
    struct fingerprint hash; /* XXH3-128 */
};

/* What a worker of the model computes. */
struct model_stage {
    enum stage stage;
    enum dtype dtype;
    uint32_t settings;              /* of an image encoder, as in model/fingerprint.h */
    struct fingerprint fingerprint; /* without the settings */
    uint32_t n_workers;             /* connected; only on the wire */
    char host[MSG_NAME_SIZE];       /* of one of them */
};

struct model {
    struct fingerprint id;
    char name[MSG_NAME_SIZE];
    uint32_t n_files;
    struct model_file files[CHECKPOINT_N_FILES]; /* by `file`, ascending; config.json is always there */
    bool writes_captions;                        /* it has a language model */
    uint32_t n_stages;
    struct model_stage stages[MODEL_MAX_STAGES];
};

/* XXH3-128 */
struct fingerprint model_hash(const void *data, size_t n);
/* What `id` must be: the hash of the name and the files. */
struct fingerprint model_id(const struct model *m);

/* All files together. */
uint64_t model_file_bytes(const struct model *m);

int row_model_append(struct buf *frame, const struct model *m) CHECK_RESULT;
int row_cursor_next_model(struct row_cursor *c, struct model *ret, struct err *err) CHECK_RESULT;

int stored_model_encode(const struct model *m, struct buf *out) CHECK_RESULT;
int stored_model_decode(struct row_memory *memory, const void *data, size_t n_bytes, struct model *ret,
                        struct err *err) CHECK_RESULT;

#endif
