#include "wire/client_push.h"

#include "wire/client_private.h"

#include <stdlib.h>

int client_session_push_turn(struct client_session *s, bool all, struct err *err)
{
    return client_session_settle(s, all, err);
}

int client_session_push_wanted(struct client_session *s, uint64_t job, struct buf *ret, uint32_t *ret_n,
                               uint64_t *ret_n_items, struct err *err)
{
    struct wire_message *m, *answer = NULL;
    struct row_cursor rows;
    int rc = wire_message_new(MSG_JOB_PUSH, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_push.job = job;
    rc = client_session_exchange(s, m, MSG_JOB_PUSHED, &answer, err);
    if (rc < 0)
        return rc;
    wire_message_rows(answer, &rows);
    *ret_n = rows.n_rows;
    *ret_n_items = wire_message_envelope(answer)->job_pushed.n_items;
    for (size_t i = 0; rc == 0 && i < rows.n_frames; i++)
        rc = buf_append(ret, rows.frames[i].data, rows.frames[i].size_bytes);
    row_cursor_release(&rows);
    wire_message_free(answer);
    return rc < 0 ? err_set(err, rc, "no memory for an answer") : 0;
}

/* Takes `data`. */
static int add_data(struct wire_message *m, void *data, size_t n_data, struct err *err)
{
    const uint32_t shape = (uint32_t)n_data;
    struct wire_tensor *t;
    int rc;

    if (n_data == 0) {
        free(data);
        return 0;
    }
    rc = wire_tensor_new(DTYPE_U8, &shape, 1, data, free, data, &t, err);
    if (rc < 0) {
        free(data);
        return rc;
    }
    rc = wire_message_add_tensor(m, t);
    wire_tensor_free(t);
    return rc < 0 ? err_set(err, rc, "no memory for a message") : 0;
}

int client_session_push(struct client_session *s, uint64_t job, uint64_t offset, struct buf *rows, uint32_t n_rows,
                        void *data, size_t n_data, struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(MSG_JOB_PUSH, &m);

    if (rc < 0) {
        free(data);
        return err_set(err, rc, "no memory for a message");
    }
    wire_message_envelope(m)->job_push = (struct msg_job_push){.job = job, .offset = offset};
    rc = add_data(m, data, n_data, err);
    if (rc == 0)
        return client_session_send_rows(s, m, rows, n_rows, err);
    wire_message_free(m);
    return rc;
}
