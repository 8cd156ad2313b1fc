/* model_files.h - the small files of a model in a MODEL_FILES message.
 *
 * Who may call: any thread. Units: none. Memory: contents are the caller's. Errors: negative errno and err. */
#ifndef BLIPLINE_WIRE_MODEL_FILES_H
#define BLIPLINE_WIRE_MODEL_FILES_H

#include "base/err.h"
#include "proto/model_contents.h"
#include "wire/message.h"

/* Make the message; the files are copied. */
int model_files_message(const struct model *m, const struct model_contents *c, struct wire_message **ret,
                        struct err *err) CHECK_RESULT;
/* Copy the files out of a message, and check that they are those of `m`. `ret` is zeroed. */
int model_files_take(const struct wire_message *message, const struct model *m, struct model_contents *ret,
                     struct err *err) CHECK_RESULT;

#endif
