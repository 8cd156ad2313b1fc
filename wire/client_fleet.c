#include "wire/client_fleet.h"

#include "wire/client_private.h"

#include <errno.h>
#include <stdlib.h>

enum { MAX_ROWS = 65536 }; /* of one kind: no broker has more workers */

/* A kind of rows. */
struct kind {
    enum msg_fleet_what what;
    size_t row_bytes;
    int (*next)(struct row_cursor *c, void *row, struct err *err);
};

static int next_stage(struct row_cursor *c, void *row, struct err *err)
{
    return row_cursor_next_fleet_stage(c, row, err);
}

static int next_worker(struct row_cursor *c, void *row, struct err *err)
{
    return row_cursor_next_fleet_worker(c, row, err);
}

static int next_job(struct row_cursor *c, void *row, struct err *err)
{
    return row_cursor_next_fleet_job(c, row, err);
}

struct rows {
    char *rows;
    size_t n;
};

static int read_rows(const struct kind *kind, const struct wire_message *m, struct rows *ret, struct err *err)
{
    struct row_cursor c;
    char *more;
    int rc = 1;

    wire_message_rows(m, &c);
    if (ret->n + c.n_rows > MAX_ROWS) {
        row_cursor_release(&c);
        return err_set(err, -EMSGSIZE, "the broker sends more than %d rows", MAX_ROWS);
    }
    more = realloc(ret->rows, (ret->n + c.n_rows + 1) * kind->row_bytes);
    if (more)
        ret->rows = more;
    else
        rc = err_set(err, -ENOMEM, "no memory for the broker's answer");
    while (rc > 0 && (rc = kind->next(&c, ret->rows + ret->n * kind->row_bytes, err)) > 0)
        ret->n++;
    row_cursor_release(&c);
    return rc;
}

/* One answer. *from: where to go on, 0: there are no more rows. */
static int ask(struct client_session *s, const struct kind *kind, uint64_t *from, struct rows *ret,
               struct msg_fleet *ret_totals, struct err *err)
{
    struct wire_message *m, *answer = NULL;
    int rc = wire_message_new(MSG_FLEET_QUERY, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->fleet_query = (struct msg_fleet_query){.what = kind->what, .from = *from};
    rc = client_session_exchange(s, m, MSG_FLEET, &answer, err);
    if (rc < 0)
        return rc;
    *ret_totals = wire_message_envelope(answer)->fleet;
    rc = read_rows(kind, answer, ret, err);
    wire_message_free(answer);
    if (rc == 0 && ret_totals->next && ret_totals->next <= *from)
        return err_set(err, -EBADMSG, "the broker's answer does not go on");
    *from = ret_totals->next;
    return rc;
}

/* ret->rows is to be freed, also after an error. */
static int ask_all(struct client_session *s, const struct kind *kind, struct rows *ret, struct msg_fleet *ret_totals,
                   struct err *err)
{
    uint64_t from = 0;
    int rc;

    do {
        rc = ask(s, kind, &from, ret, ret_totals, err);
    } while (rc == 0 && from);
    return rc;
}

int client_session_fleet(struct client_session *s, struct client_fleet *ret, struct err *err)
{
    static const struct kind stages = {MSG_FLEET_STAGES, sizeof(*ret->stages), next_stage};
    static const struct kind workers = {MSG_FLEET_WORKERS, sizeof(*ret->workers), next_worker};
    static const struct kind jobs = {MSG_FLEET_JOBS, sizeof(*ret->jobs), next_job};
    struct rows rows[3] = {{.n = 0}};
    int rc;

    client_fleet_release(ret);
    rc = ask_all(s, &workers, &rows[0], &ret->totals, err);
    if (rc == 0)
        rc = ask_all(s, &jobs, &rows[1], &ret->totals, err);
    if (rc == 0)
        rc = ask_all(s, &stages, &rows[2], &ret->totals, err);
    ret->workers = (struct row_fleet_worker *)(void *)rows[0].rows;
    ret->n_workers = rows[0].n;
    ret->jobs = (struct row_fleet_job *)(void *)rows[1].rows;
    ret->n_jobs = rows[1].n;
    ret->stages = (struct row_fleet_stage *)(void *)rows[2].rows;
    ret->n_stages = rows[2].n;
    if (rc < 0)
        client_fleet_release(ret);
    return rc;
}

void client_fleet_release(struct client_fleet *f)
{
    free(f->stages);
    free(f->workers);
    free(f->jobs);
    *f = (struct client_fleet){.n_stages = 0};
}
