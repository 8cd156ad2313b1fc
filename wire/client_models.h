/* client_models.h - what a client asks a broker about models.
 *
 * Who may call, errors: as client_session.h. Units: none. Memory: results are the caller's. */
#ifndef BLIPLINE_WIRE_CLIENT_MODELS_H
#define BLIPLINE_WIRE_CLIENT_MODELS_H

#include "proto/model_contents.h"
#include "wire/client_session.h"

/* The models that workers have offered, at most MODEL_MAX_LISTED: an array to be freed. */
int client_session_models(struct client_session *s, struct model **ret, uint32_t *ret_n, struct err *err) CHECK_RESULT;
/* The files of one of them. `ret` is zeroed. */
int client_session_model_files(struct client_session *s, const struct model *m, struct model_contents *ret,
                               struct err *err) CHECK_RESULT;

#endif
