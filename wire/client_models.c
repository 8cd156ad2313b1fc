#include "wire/client_models.h"

#include "wire/client_private.h"
#include "wire/model_files.h"

#include <errno.h>
#include <stdlib.h>

static int request(struct client_session *s, enum msg_type type, const struct fingerprint *model, enum msg_type answer,
                   struct wire_message **ret, struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(type, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    if (model)
        wire_message_envelope(m)->model_ref.model = *model;
    return client_session_exchange(s, m, answer, ret, err);
}

int client_session_models(struct client_session *s, struct model **ret, uint32_t *ret_n, struct err *err)
{
    struct wire_message *answer;
    struct row_cursor rows;
    struct model *list;
    uint32_t n = 0;
    int rc = request(s, MSG_MODEL_LIST, NULL, MSG_MODEL_LISTED, &answer, err);

    if (rc < 0)
        return rc;
    list = calloc(wire_message_envelope(answer)->n_rows + 1, sizeof(*list));
    wire_message_rows(answer, &rows);
    rc = list ? 1 : err_set(err, -ENOMEM, "no memory for the list of models");
    while (rc == 1 && (rc = row_cursor_next_model(&rows, &list[n], err)) == 1)
        n++;
    row_cursor_release(&rows);
    wire_message_free(answer);
    if (rc < 0) {
        free(list);
        return rc;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

int client_session_model_files(struct client_session *s, const struct model *m, struct model_contents *ret,
                               struct err *err)
{
    struct wire_message *answer;
    int rc = request(s, MSG_MODEL_GET, &m->id, MSG_MODEL_FILES, &answer, err);

    if (rc < 0)
        return rc;
    rc = model_files_take(answer, m, ret, err);
    wire_message_free(answer);
    return rc;
}
