#include "wire/client_jobs.h"

#include "wire/client_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* What is listed lies at from_job or behind it, in order, and so does what is still to come. */
static int check_order(const struct client_job_list *list, uint64_t from_job, struct err *err)
{
    uint64_t last = from_job ? from_job - 1 : 0;

    for (uint32_t i = 0; i < list->n; i++) {
        if (list->rows[i].job <= last)
            return err_set(err, -EBADMSG, "the broker's answer: job %" PRIu64 " is out of order", list->rows[i].job);
        last = list->rows[i].job;
    }
    return list->next_job && list->next_job <= last
               ? err_set(err, -EBADMSG, "the broker's answer: it would go on from job %" PRIu64, list->next_job)
               : 0;
}

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
    ret->next_job = wire_message_envelope(answer)->job_listed.next_job;
    rc = read_rows(answer, ret, err);
    wire_message_free(answer);
    return rc;
}

int client_session_list_jobs(struct client_session *s, uint64_t from_job, struct client_job_list *ret, struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(MSG_JOB_LIST, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_list.from_job = from_job;
    rc = ask(s, m, ret, err);
    return rc < 0 ? rc : check_order(ret, from_job, err);
}

int client_session_find_job(struct client_session *s, uint64_t job, struct stored_job_entry *ret, struct err *err)
{
    struct client_job_list list = {0};
    int rc = client_session_list_jobs(s, job, &list, err);

    if (rc == 0 && (!list.n || list.rows[0].job != job))
        rc = err_set(err, -ENOENT, "there is no job %" PRIu64, job);
    if (rc == 0)
        *ret = list.rows[0];
    client_job_list_release(&list);
    return rc;
}

int client_session_control_job(struct client_session *s, const struct msg_job_control *what,
                               struct stored_job_entry *ret, struct err *err)
{
    const bool keeps_row = what->action != MSG_JOB_REMOVE;
    struct client_job_list list = {0};
    struct wire_message *m;
    int rc = wire_message_new(MSG_JOB_CONTROL, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_control = *what;
    rc = ask(s, m, &list, err);
    if (rc == 0 && (list.n != keeps_row || (keeps_row && list.rows[0].job != what->job)))
        rc = err_set(err, -EBADMSG, "the broker's answer is not about job %" PRIu64, what->job);
    if (rc == 0 && keeps_row)
        *ret = list.rows[0];
    client_job_list_release(&list);
    return rc;
}

void client_job_list_release(struct client_job_list *list)
{
    free(list->rows);
    *list = (struct client_job_list){0};
}
