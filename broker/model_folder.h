/* model_folder.h - the models that a broker keeps: STATE/models/ID/, with the files of the model and a file `model`, a
 * stored value (proto/model.h), which is written last.
 *
 * Who may call: one thread at a time. Units: none. Memory: `contents` is the caller's.
 * Errors: negative errno; err names the file. */
#ifndef BLIPLINE_BROKER_MODEL_FOLDER_H
#define BLIPLINE_BROKER_MODEL_FOLDER_H

#include "base/err.h"
#include "proto/model_contents.h"

#include <stddef.h>

/* Durably. `contents` NULL: the files are there. */
int model_folder_write(const char *models, const struct model *m, const struct model_contents *contents,
                       struct err *err) CHECK_RESULT;
int model_folder_read(const char *models, const struct model *m, struct model_contents *ret,
                      struct err *err) CHECK_RESULT;
/* Call `found` for each model that is there, and `skipped` for folders that cannot be used. `models` is made if it does
 * not exist. */
int model_folder_list(const char *models, void (*found)(void *arg, const struct model *m),
                      void (*skipped)(const char *why), void *arg, struct err *err) CHECK_RESULT;

#endif
