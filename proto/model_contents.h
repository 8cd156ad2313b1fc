/* model_contents.h - the contents of a model's small files, in memory and in a folder.
 *
 * Who may call: any thread. Units: bytes. Memory: zero-initialise; freed with model_contents_release.
 * Errors: negative errno; err names the file. What a failed call has filled is released. */
#ifndef BLIPLINE_PROTO_MODEL_CONTENTS_H
#define BLIPLINE_PROTO_MODEL_CONTENTS_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/model.h"

struct model_contents {
    struct buf files[CHECKPOINT_N_FILES]; /* of model.files, in that order */
};

void model_contents_release(struct model_contents *c);
/* -EBADMSG: these are not the files that `m` names. */
int model_contents_check(const struct model *m, const struct model_contents *c, struct err *err) CHECK_RESULT;

/* Set files and id of the model, whose name is set, to the files that the checkpoint folder has. */
int model_contents_describe(const char *folder, struct model *m, struct err *err) CHECK_RESULT;
/* Read the files of `m`, and check them. */
int model_contents_read(const char *folder, const struct model *m, struct model_contents *ret,
                        struct err *err) CHECK_RESULT;
/* Durably. Each file is written as a whole or not at all. */
int model_contents_write(const char *folder, const struct model *m, const struct model_contents *c,
                         struct err *err) CHECK_RESULT;

#endif
