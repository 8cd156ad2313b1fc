#include "wire/client_store.h"

#include "wire/client_private.h"

int client_session_read_store(struct client_session *s, const struct msg_store_read *question,
                              struct msg_store_rows *ret, struct buf *rows, uint32_t *ret_n_rows, struct err *err)
{
    struct wire_message *m, *answer = NULL;
    int rc;

    if (!question) {
        rc = client_session_next_answer(s, MSG_STORE_ROWS, &answer, err);
    } else {
        rc = wire_message_new(MSG_STORE_READ, &m);
        if (rc < 0)
            return err_set(err, rc, "no memory for a message");
        wire_message_envelope(m)->store_read = *question;
        rc = client_session_exchange(s, m, MSG_STORE_ROWS, &answer, err);
    }
    if (rc < 0)
        return rc;
    *ret = wire_message_envelope(answer)->store_rows;
    return client_session_take_rows(answer, rows, ret_n_rows, err);
}
