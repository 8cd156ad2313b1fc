/* jobs_push.c - JOB_PUSH: the client of a job sends its pictures, which wait on the disk until their unit is leased. */
#include "broker/jobs.h"

#include "store/push.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -- from the client -- */

static int take_rows(struct wire_message *message, struct committer_request *r, struct err *err)
{
    struct row_cursor cursor;
    int rc = 0;

    if (wire_message_n_tensors(message) > 0) {
        rc = wire_tensor_verify(wire_message_tensor(message, 0), DTYPE_U8, NULL, 0, err);
        r->pictures = rc == 0 ? wire_message_take_tensor(message, 0) : NULL;
    }
    wire_message_rows(message, &cursor);
    for (size_t i = 0; rc == 0 && i < cursor.n_frames; i++)
        if (buf_append(&r->rows, cursor.frames[i].data, cursor.frames[i].size_bytes) < 0)
            rc = err_set(err, -ENOMEM, "no memory for pictures");
    row_cursor_release(&cursor);
    return rc;
}

void broker_job_push(struct jobs *jobs, struct peer *p, struct broker_job *job, struct wire_message *message)
{
    const struct msg *m = wire_message_envelope(message);
    const uint64_t n_bytes = wire_message_size_bytes(message);
    struct committer_request *r =
        requests_new(jobs->requests, COMMITTER_PUSH, job->id,
                     &(struct question){.peer = p->number, .seq = m->seq, .is_rows = true, .n_bytes = n_bytes});
    struct question ignored;
    struct err err = {""};

    if (r) {
        r->n_rows = m->n_rows;
        r->offset = m->job_push.offset;
    }
    if (!r || take_rows(message, r, &err) == 0) {
        requests_post(jobs->requests, r);
        return;
    }
    (void)requests_answered(jobs->requests, r->tag, &ignored);
    committer_request_free(r);
    p->rows_refused = true;
    answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_BAD_MESSAGE, "%s", err.text);
}

static void answer(struct jobs *jobs, const struct broker_job *job, struct committer_completion *done,
                   const struct question *q)
{
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc = wire_message_new(MSG_JOB_PUSHED, &m);

    if (rc == 0) {
        wire_message_envelope(m)->seq = q->seq;
        wire_message_envelope(m)->job_pushed = (struct msg_job_pushed){job->id, done->n_pushed};
        rc = wire_message_add_rows(m, &done->found, done->n_found);
    }
    if (rc == 0)
        rc = broker_socket_send(jobs->answers->socket, q->peer, &m, &err);
    wire_message_free(m);
    if (rc < 0 && rc != -EHOSTUNREACH)
        answer_refuse(jobs->answers, q->peer, q->seq, MSG_REASON_LIMIT, "what is wanted cannot be sent: %s", err.text);
}

void broker_job_on_pushed(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                          const struct question *q)
{
    struct peer *p = peers_find(jobs->peers, q->peer);

    if (done->rc == -EIO)
        broker_job_fail(jobs, job, "%s", done->text);
    if (done->rc < 0) {
        if (p)
            p->rows_refused = true;
        answer_refuse(jobs->answers, q->peer, q->seq, done->rc == -EIO ? MSG_REASON_STORE : MSG_REASON_BAD_MESSAGE,
                      "%s", done->text);
        return;
    }
    job->n_pushed = done->n_pushed;
    job->no_room[0] = '\0';
    answer(jobs, job, done, q);
    units_load_pushed(&jobs->units, &job->units);
}

void broker_job_no_room(struct jobs *jobs, struct broker_job *job, const char *text)
{
    (void)msg_text_set(job->no_room, sizeof(job->no_room), text);
    requests_await_room(jobs->requests);
}

void broker_job_explain_push(const struct broker_job *job, uint32_t n_loaded, char *text, size_t size)
{
    if (job->holders && job->no_room[0])
        (void)snprintf(text, size,
                       "there is no room for more pictures: %.900s; make room there, and it goes on by itself",
                       job->no_room);
    else if (!job->holders && job->units.awaits_pictures && n_loaded == 0)
        (void)snprintf(text, size,
                       "the broker has the pictures of %" PRIu64 " of %" PRIu64 " items, and the client that sent them "
                       "has gone; the same command sends the others",
                       job->n_pushed, job->counters.n_items);
}

/* -- to the workers -- */

/* Bytes `first` to `end` of the file, as a tensor. They are read, not mapped: a bad disk must not end the broker. */
static int read_pictures(int fd, uint64_t first, uint64_t end, struct wire_tensor **ret, struct err *err)
{
    const uint32_t n = (uint32_t)(end - first);
    uint8_t *data = malloc(n);
    int rc = 0;

    if (!data)
        return err_set(err, -ENOMEM, "no memory for %" PRIu32 " bytes of pictures", n);
    for (uint32_t have = 0; rc == 0 && have < n;) {
        const ssize_t got = pread(fd, data + have, n - have, (off_t)(first + have));

        if (got > 0)
            have += (uint32_t)got;
        else if (got == 0)
            rc = err_set(err, -EIO, "the file of the pictures is too short");
        else if (errno != EINTR)
            rc = err_set(err, -EIO, "the pictures cannot be read: %s", strerror(errno));
    }
    if (rc == 0)
        rc = wire_tensor_new(DTYPE_U8, &n, 1, data, free, data, ret, err);
    if (rc < 0)
        free(data);
    return rc;
}

/* Where the pictures of these rows begin and end, counted from behind the head of the file. */
static int find_pictures(const struct row_frame *rows, uint32_t n_rows, uint64_t *ret_first, uint64_t *ret_end,
                         struct err *err)
{
    struct row_cursor c;
    struct row_item item;
    int rc;

    *ret_first = *ret_end = 0;
    row_cursor_init(&c, rows, 1, n_rows);
    for (bool is_first = true; (rc = row_cursor_next_item(&c, &item, err)) > 0; is_first = false) {
        if (is_first)
            *ret_first = item.pushed_at;
        if (!item.error_code[0])
            *ret_end = item.pushed_at + item.pushed_bytes;
    }
    row_cursor_release(&c);
    return rc;
}

int push_tensor(const struct broker_job *job, const struct core_work *work, const struct row_frame *rows,
                struct wire_tensor **ret, struct err *err)
{
    const struct unit_rows *unit = units_find(&job->units, work->unit);
    const uint64_t head = store_push_head_bytes(unit->n_items);
    uint64_t first, end;
    char name[PATH_MAX];
    int fd, rc = find_pictures(rows, work->n_items, &first, &end, err);

    *ret = NULL;
    if (rc < 0 || end <= first)
        return rc;
    rc = store_push_file(job->open.path, work->unit, name);
    if (rc < 0)
        return err_set(err, rc, "%s: path too long", job->open.path);
    fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -EIO, "%s: cannot be opened: %s", name, strerror(errno));
    rc = read_pictures(fd, head + first, head + end, ret, err);
    (void)close(fd);
    return rc < 0 ? err_prefix(err, rc, "%s", name) : 0;
}
