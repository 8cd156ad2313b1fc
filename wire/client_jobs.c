#include "wire/client_jobs.h"

#include "wire/client_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int read_rows(const struct wire_message *m, struct client_job_list *ret, struct err *err)
{
    struct row_cursor rows;
    int rc;

    wire_message_rows(m, &rows);
    if (!ret->rows)
        ret->rows = calloc(MSG_MAX_LISTED_JOBS, sizeof(*ret->rows));
    ret->n = 0;
    rc = !ret->rows ? -ENOMEM : rows.n_rows > MSG_MAX_LISTED_JOBS ? -EMSGSIZE : 1;
    if (rc < 0)
        rc = err_set(err, rc, "the list of jobs does not fit into memory");
    while (rc > 0 && ret->n < rows.n_rows)
        if ((rc = row_cursor_next_job_entry(&rows, &ret->rows[ret->n], err)) > 0)
            ret->n++;
    row_cursor_release(&rows);
    return rc < 0 ? rc : 0;
}

/* `request` is taken. */
static int ask(struct client_session *s, struct wire_message *request, struct client_job_list *ret, struct err *err)
{
    struct wire_message *answer = NULL;
    int rc = client_session_exchange(s, request, MSG_JOB_LISTED, &answer, err);

    if (rc < 0)
        return rc;
    rc = read_rows(answer, ret, err);
    wire_message_free(answer);
    return rc;
}

int client_session_control_job(struct client_session *s, const struct msg_job_control *what,
                               struct client_job_list *ret, struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(MSG_JOB_CONTROL, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_control = *what;
    rc = ask(s, m, ret, err);
    if (rc == 0 && (ret->n != (what->action != MSG_JOB_REMOVE) || (ret->n && ret->rows[0].job != what->job)))
        rc = err_set(err, -EBADMSG, "the broker's answer is not about job %" PRIu64, what->job);
    return rc;
}

void client_job_list_release(struct client_job_list *list)
{
    free(list->rows);
    *list = (struct client_job_list){0};
}
