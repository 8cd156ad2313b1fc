#include "job/push.h"

#include "base/file.h"
#include "base/interrupt.h"
#include "proto/row.h"
#include "source/fetch.h"
#include "source/source.h"
#include "wire/client_push.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = MSG_MAX_TENSOR_FRAME_BYTES, MAX_ROWS = 1024 };
#define MAX_PICTURE_BYTES ((size_t)1 << 30)

/* One message that is being filled. */
struct chunk {
    struct job *job;
    struct push_progress *progress;
    struct buf rows, file;
    uint32_t n_rows;
    uint64_t offset; /* in the first picture */
    uint8_t *data;   /* [CHUNK_BYTES]; NULL: no bytes yet */
    size_t n_data;
    bool has_row; /* of the picture in progress */
    char **own;   /* [progress->n_sources] absolute paths of the sources */
    bool has_list;
};

/* Wait until the broker takes more, or has taken all. What it waits for meanwhile is in its progress. */
static int await_turn(struct job *j, struct push_progress *p, bool all, struct err *err)
{
    for (;;) {
        struct msg_job_progress now;
        int rc;

        interrupt_let_in(true);
        rc = client_session_push_turn(j->session, all, err);
        if (rc == -ETIMEDOUT)
            rc = job_query(j, &now, err) < 0 ? rc : 1;
        interrupt_let_in(false);
        p->waiting[0] = '\0';
        if (rc <= 0)
            return rc;
        (void)msg_text_set(p->waiting, sizeof(p->waiting), now.text);
        rc = p->tick(p, err);
        if (rc < 0)
            return rc;
    }
}

static int flush(struct chunk *c, struct err *err)
{
    int rc;

    if (c->n_rows == 0)
        return 0;
    rc = await_turn(c->job, c->progress, false, err);
    if (rc < 0)
        return rc;
    interrupt_let_in(true);
    rc = client_session_push(c->job->session, c->job->opened.job, c->offset, &c->rows, c->n_rows, c->data, c->n_data,
                             err);
    interrupt_let_in(false);
    c->data = NULL;
    c->n_data = 0;
    c->n_rows = 0;
    c->has_row = false;
    buf_clear(&c->rows);
    return rc;
}

/* Add `n` bytes of the picture, from `at` on. */
static int add(struct chunk *c, const struct row_item *row, uint64_t at, const uint8_t *bytes, size_t n,
               struct err *err)
{
    do {
        size_t some;
        int rc = c->n_data == CHUNK_BYTES || c->n_rows == MAX_ROWS ? flush(c, err) : 0;

        if (rc == 0 && !c->has_row) {
            c->offset = c->n_rows == 0 ? at : c->offset;
            rc = row_item_append(&c->rows, row);
            c->n_rows++;
            c->has_row = true;
        }
        if (rc == 0 && n && !c->data && !(c->data = malloc(CHUNK_BYTES)))
            rc = -ENOMEM;
        if (rc < 0)
            return err->text[0] ? rc : err_set(err, rc, "no memory for pictures");
        some = n < CHUNK_BYTES - c->n_data ? n : CHUNK_BYTES - c->n_data;
        if (some)
            memcpy(c->data + c->n_data, bytes, some);
        c->n_data += some;
        c->progress->n_bytes += some;
        bytes += some;
        at += some;
        n -= some;
    } while (n > 0);
    return 0;
}

static int add_error(struct chunk *c, uint64_t item, enum image_error code, const struct err *why, struct err *err)
{
    struct row_item row = {.item = item, .key = (const uint8_t *)"-", .key_bytes = 1};

    (void)msg_text_set(row.error_code, sizeof(row.error_code), image_error_name(code));
    row.error_message = (const uint8_t *)why->text;
    row.error_message_bytes = (uint32_t)strlen(why->text);
    return add(c, &row, 0, NULL, 0, err);
}

/* Read up to n bytes. Returns how many there were; fewer at the end of the file, or after an error. */
static size_t read_some(int fd, uint8_t *to, size_t n)
{
    size_t have = 0;

    while (have < n) {
        const ssize_t got = read(fd, to + have, n - have);

        if (got <= 0 && !(got < 0 && errno == EINTR))
            break;
        have += got > 0 ? (size_t)got : 0;
    }
    return have;
}

/* A file that does not fit one message. */
static int add_large(struct chunk *c, uint64_t item, const char *path, struct err *err)
{
    struct row_item row = {.item = item, .key = (const uint8_t *)"-", .key_bytes = 1};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum image_error code = IMAGE_UNREADABLE;
    struct err why = {"the file changed while it was read"};
    struct stat st = {0};
    int rc = 0;

    if (fd >= 0 && fstat(fd, &st) == 0)
        code = source_fetched((size_t)st.st_size, MAX_PICTURE_BYTES, &why);
    row.pushed_bytes = (uint64_t)st.st_size;
    buf_clear(&c->file);
    if (buf_reserve(&c->file, CHUNK_BYTES) < 0)
        rc = err_set(err, -ENOMEM, "no memory for pictures");
    for (uint64_t at = 0; rc == 0 && code == IMAGE_OK && at < row.pushed_bytes;) {
        const size_t n = row.pushed_bytes - at < CHUNK_BYTES ? (size_t)(row.pushed_bytes - at) : CHUNK_BYTES;

        if (read_some(fd, c->file.data, n) < n) {
            (void)err_set(&why, -EIO, "the file changed while it was read");
            code = IMAGE_UNREADABLE;
            rc = at ? flush(c, err) : 0;
            break;
        }
        rc = add(c, &row, at, c->file.data, n, err);
        at += n;
    }
    if (fd >= 0)
        (void)close(fd);
    return rc < 0 || code == IMAGE_OK ? rc : add_error(c, item, code, &why, err);
}

/* -- which files are the job's: the broker names them, and it might ask for others -- */

static void own_release(struct chunk *c)
{
    for (int i = 0; c->own && i < c->progress->n_sources; i++)
        free(c->own[i]);
    free(c->own);
}

static int own_init(struct chunk *c, struct err *err)
{
    const struct push_progress *p = c->progress;
    char root[PATH_MAX], name[PATH_MAX], whole[2 * PATH_MAX];
    const char *list;
    struct stat st;

    c->own = calloc((size_t)p->n_sources + 1, sizeof(*c->own));
    for (int i = 0; c->own && i < p->n_sources; i++) {
        int rc = source_root(p->sources[i], root, &list, err);

        if (rc < 0)
            return rc;
        c->has_list = c->has_list || list || source_is_read_once(p->sources[i]);
        file_base_name(p->sources[i], name, sizeof(name));
        if (stat(p->sources[i], &st) == 0 && S_ISDIR(st.st_mode))
            name[0] = '\0';
        (void)snprintf(whole, sizeof(whole), "%s%s%s", strcmp(root, "/") == 0 ? "" : root, name[0] ? "/" : "", name);
        c->own[i] = strdup(whole);
        if (!c->own[i])
            return err_set(err, -ENOMEM, "no memory for the names of the sources");
    }
    return c->own ? 0 : err_set(err, -ENOMEM, "no memory for the names of the sources");
}

static bool is_own(const struct chunk *c, const char *path)
{
    const size_t n_path = strlen(path);

    if (strstr(path, "/../") || (n_path >= 3 && strcmp(path + n_path - 3, "/..") == 0))
        return c->has_list;
    for (int i = 0; i < c->progress->n_sources; i++) {
        const size_t n = strlen(c->own[i]);

        if (strncmp(path, c->own[i], n) == 0 && (path[n] == '/' || !path[n]))
            return true;
    }
    return c->has_list;
}

/* -- pictures -- */

static int add_picture(struct chunk *c, const struct row_item *it, struct err *err)
{
    struct row_item row = {.item = it->item, .key = (const uint8_t *)"-", .key_bytes = 1};
    struct err why = {"the path is too long"};
    enum image_error code;
    char path[PATH_MAX];

    c->has_row = false;
    if (it->error_code[0]) /* known to the broker */
        return add(c, &row, 0, NULL, 0, err);
    if (it->path_bytes >= sizeof(path))
        return add_error(c, it->item, IMAGE_UNREADABLE, &why, err);
    (void)snprintf(path, sizeof(path), "%.*s", (int)it->path_bytes, (const char *)it->path);
    if (!is_own(c, path))
        return err_set(
            err, -EACCES,
            "the broker asks for %s, which is no picture of this job's sources; it is not sent. Tell whoever "
            "runs the broker",
            path);
    code = source_fetch(path, CHUNK_BYTES, &c->file, &why);
    if (code == IMAGE_TOO_LARGE)
        return add_large(c, it->item, path, err);
    if (code != IMAGE_OK)
        return add_error(c, it->item, code, &why, err);
    row.pushed_bytes = c->file.size_bytes;
    return add(c, &row, 0, c->file.data, c->file.size_bytes, err);
}

static int add_pictures(struct chunk *c, const struct buf *wanted, uint32_t n, struct err *err)
{
    const struct row_frame frame = {.data = wanted->data, .size_bytes = wanted->size_bytes};
    struct row_cursor cursor;
    struct row_item it;
    int rc;

    row_cursor_init(&cursor, &frame, 1, n);
    while ((rc = row_cursor_next_item(&cursor, &it, err)) > 0) {
        rc = add_picture(c, &it, err);
        c->progress->n_items = it.item + 1;
        if (rc == 0)
            rc = c->progress->tick(c->progress, err);
        if (rc < 0)
            break;
    }
    row_cursor_release(&cursor);
    return rc < 0 ? rc : flush(c, err);
}

int job_push(struct job *j, struct push_progress *p, struct err *err)
{
    struct chunk c = {.job = j, .progress = p};
    struct buf wanted;
    uint32_t n = 1;
    int rc = 0;

    buf_init(&c.rows, MSG_MAX_ROW_FRAME_BYTES);
    buf_init(&c.file, 0);
    buf_init(&wanted, 0);
    client_session_set_timeout(j->session, JOB_QUERY_MS);
    rc = own_init(&c, err);
    while (rc == 0 && n > 0) {
        buf_clear(&wanted);
        rc = await_turn(j, p, true, err);
        client_session_set_timeout(j->session, JOB_PATIENCE_MS);
        interrupt_let_in(true);
        if (rc == 0)
            rc = client_session_push_wanted(j->session, j->opened.job, &wanted, &n, &p->n_items, err);
        interrupt_let_in(false);
        client_session_set_timeout(j->session, JOB_QUERY_MS);
        if (rc == 0 && n > 0)
            rc = add_pictures(&c, &wanted, n, err);
    }
    free(c.data);
    own_release(&c);
    buf_release(&c.rows);
    buf_release(&c.file);
    buf_release(&wanted);
    return rc;
}
