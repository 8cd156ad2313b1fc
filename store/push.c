#include "store/push.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/folder.h"
#include "store/store_state.h"

/* Rows of one answer: no more units once there are so many. */
enum { WANTED_ITEMS = 1024, WANTED_BYTES = 1 << 20 };

/* Left free for the commits of units, after which their pictures are deleted. */
#define COMMIT_BYTES ((uint64_t)16 << 20)

/* On the disk. */
struct entry {
    uint64_t end, is_error;
};

int store_push_file(const char *store_path, uint32_t unit, char ret[PATH_MAX])
{
    char name[32];

    (void)snprintf(name, sizeof(name), "pushed-%08" PRIx32, unit);
    return folder_name(ret, store_path, name, NULL);
}

uint64_t store_push_head_bytes(uint32_t n_items)
{
    return n_items * sizeof(struct entry);
}

static int failed(const struct store *s, const char *what, struct err *err)
{
    const int rc = errno == ENOSPC || errno == EDQUOT ? -ENOSPC : -EIO;

    return err_set(err, rc, "%s: cannot %s the pictures of unit %" PRIu32 ": %s", s->path, what, s->push.unit,
                   strerror(errno));
}

static int write_at(const struct store *s, const void *data, size_t n, uint64_t at, struct err *err)
{
    while (n > 0) {
        const ssize_t done = pwrite(s->push.fd, data, n, (off_t)at);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return failed(s, "write", err);
        data = (const char *)data + done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

static int read_entry(int fd, uint32_t i, struct entry *ret)
{
    if (pread(fd, ret, sizeof(*ret), (off_t)(i * sizeof(*ret))) != sizeof(*ret))
        return -EIO;
    *ret = (struct entry){le64toh(ret->end), le64toh(ret->is_error)};
    return 0;
}

/* -- the unit in progress -- */

static void leave_unit(struct store_push *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
}

/* The unit that the item is in. *ret_items: its rows, valid as long as `memory`. */
static int find_unit(struct store *s, MDB_txn *txn, uint64_t item, struct row_memory *memory, uint32_t *ret_unit,
                     struct stored_manifest_unit *ret, struct err *err)
{
    uint32_t first = 0, end = s->counters.n_units;

    while (first < end) {
        const uint32_t unit = first + (end - first) / 2;
        int rc = env_read_unit(&s->env, txn, memory, unit, ret, err);

        if (rc < 0)
            return rc == -ENOENT ? err_set(err, -EBADMSG, "unit %" PRIu32 ": not in the manifest", unit) : rc;
        *ret_unit = unit;
        if (item >= ret->first_item && item - ret->first_item < ret->n_items)
            return 0;
        if (item < ret->first_item)
            end = unit;
        else
            first = unit + 1;
    }
    return err_set(err, -EINVAL, "item %" PRIu64 ": not in the manifest", item);
}

/* Open the file of the unit to which the next picture belongs. */
static int enter_unit(struct store *s, struct err *err)
{
    struct store_push *p = &s->push;
    struct row_memory memory = {0};
    struct stored_manifest_unit u;
    char name[PATH_MAX];
    struct entry last = {0};
    int rc;

    if (p->fd >= 0 && p->n_items - p->first_item < p->unit_items)
        return 0;
    if (p->fd >= 0 && fdatasync(p->fd) < 0)
        return failed(s, "sync", err);
    leave_unit(p);
    rc = find_unit(s, s->txn, p->n_items, &memory, &p->unit, &u, err);
    p->first_item = u.first_item;
    p->unit_items = u.n_items;
    row_memory_release(&memory);
    if (rc == 0)
        rc = store_push_file(s->path, p->unit, name);
    if (rc < 0)
        return rc;
    p->fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (p->fd < 0)
        return failed(s, "open", err);
    p->is_new |= p->n_items == p->first_item;
    if (p->n_items == p->first_item ? ftruncate(p->fd, 0) < 0
                                    : read_entry(p->fd, (uint32_t)(p->n_items - p->first_item) - 1, &last) < 0)
        return failed(s, "read", err);
    p->unit_bytes = last.end;
    return 0;
}

/* -- putting -- */

/* An error, as it lies in the file; NULL: the item has none. */
static const void *error_bytes(const struct row_item *item, char buffer[MSG_CODE_SIZE + ROW_MAX_MESSAGE_BYTES],
                               uint64_t *ret_bytes)
{
    const size_t n_code = strlen(item->error_code) + 1;

    if (!item->error_code[0])
        return NULL;
    memcpy(buffer, item->error_code, n_code);
    if (item->error_message_bytes)
        memcpy(buffer + n_code, item->error_message, item->error_message_bytes);
    *ret_bytes = n_code + item->error_message_bytes;
    return buffer;
}

/* Put what `data` has of the picture. Returns how much that was. */
static int put_item(struct store *s, const struct row_item *item, const uint8_t *data, size_t n_data, size_t *ret_used,
                    struct err *err)
{
    char buffer[MSG_CODE_SIZE + ROW_MAX_MESSAGE_BYTES];
    struct store_push *p = &s->push;
    uint64_t size = item->pushed_bytes, n;
    const void *error = error_bytes(item, buffer, &size);
    struct entry entry;
    int rc = enter_unit(s, err);

    if (rc < 0)
        return rc;
    if (error)
        p->part_bytes = 0;
    n = size - p->part_bytes;
    if (!error && n > n_data)
        n = n_data;
    if (p->unit_bytes + size > PUSH_MAX_UNIT_BYTES)
        return err_set(err, -EMSGSIZE, "the pictures of unit %" PRIu32 " take more than 2 GiB: choose a smaller --unit",
                       p->unit);
    rc = write_at(s, error ? error : data, (size_t)n,
                  store_push_head_bytes(p->unit_items) + p->unit_bytes + p->part_bytes, err);
    if (rc < 0)
        return rc;
    p->dirty = true;
    *ret_used = error ? 0 : (size_t)n;
    p->part_bytes += n;
    if (p->part_bytes < size)
        return 0;
    p->unit_bytes += size;
    entry = (struct entry){htole64(p->unit_bytes), htole64(error != NULL)};
    rc = write_at(s, &entry, sizeof(entry), (p->n_items - p->first_item) * sizeof(entry), err);
    p->part_bytes = 0;
    p->n_items++;
    return rc;
}

/* Do rows and bytes fit together, and follow those that are here? Changes nothing. */
static int check_rows(const struct store *s, const struct row_frame *frame, uint32_t n_rows, uint64_t offset,
                      size_t n_data, struct err *err)
{
    uint64_t next = s->push.n_items, part = offset, used = 0;
    struct row_cursor c;
    struct row_item item;
    int rc;

    row_cursor_init(&c, frame, 1, n_rows);
    for (uint32_t i = 0; (rc = row_cursor_next_item(&c, &item, err)) > 0; i++, next++, part = 0) {
        const uint64_t size = item.error_code[0] ? 0 : item.pushed_bytes;
        uint64_t n;

        if (i == 0 && (item.item > next || (item.item == next && offset > s->push.part_bytes)))
            rc = err_set(err, -EAGAIN, "picture %" PRIu64 " is wanted first, from byte %" PRIu64 " on", next,
                         s->push.part_bytes);
        else if (item.item != next || (i == 0 && offset != 0 && offset != s->push.part_bytes))
            rc = err_set(err, -EINVAL, "picture %" PRIu64 " is wanted, from byte %" PRIu64 " on", next,
                         s->push.part_bytes);
        else if (next >= s->counters.n_items)
            rc = err_set(err, -EINVAL, "picture %" PRIu64 ": the job has %" PRIu64 " items", next, s->counters.n_items);
        else if (size > PUSH_MAX_PICTURE_BYTES || part > size)
            rc = err_set(err, -EMSGSIZE,
                         "picture %" PRIu64 ": %" PRIu64 " bytes from byte %" PRIu64 " on; the limit is 1 GiB", next,
                         size, part);
        if (rc < 0)
            break;
        n = size - part < n_data - used ? size - part : n_data - used;
        used += n;
        if (part + n < size && i + 1 < n_rows) {
            rc = err_set(err, -EINVAL, "picture %" PRIu64 ": bytes are missing", next);
            break;
        }
    }
    row_cursor_release(&c);
    if (rc == 0 && used != n_data)
        rc = err_set(err, -EINVAL, "%zu bytes for pictures of %" PRIu64, n_data, used);
    return rc;
}

int store_push(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, uint64_t offset, const void *data,
               size_t n_data, struct err *err)
{
    const struct row_frame frame = {.data = rows, .size_bytes = size_bytes};
    const uint8_t *at = data;
    struct row_cursor c;
    struct row_item item;
    int rc;

    if (!s->meta.push)
        return err_set(err, -EINVAL, "the workers of this job read the pictures themselves");
    rc = check_rows(s, &frame, n_rows, offset, n_data, err);
    if (rc == 0)
        rc = store_check_free(s, n_data + COMMIT_BYTES, err);
    if (rc < 0)
        return rc;
    if (offset == 0)
        s->push.part_bytes = 0;
    row_cursor_init(&c, &frame, 1, n_rows);
    while ((rc = row_cursor_next_item(&c, &item, err)) > 0) {
        size_t used = 0;

        rc = put_item(s, &item, at, n_data, &used, err);
        if (rc < 0)
            break;
        at += used;
        n_data -= used;
    }
    row_cursor_release(&c);
    return rc == -EMSGSIZE || rc == -EINVAL ? -EIO : rc; /* some of it is there */
}

uint64_t store_n_pushed(const struct store *s)
{
    return s->push.saved_items;
}

bool store_push_waits(const struct store *s)
{
    return s->meta.push && s->push.saved_items < s->counters.n_items;
}

/* From the next picture of unit `u` on, of this unit and those that follow. */
static int append_wanted(struct store *s, MDB_txn *txn, uint32_t unit, struct stored_manifest_unit *u,
                         struct row_memory *memory, struct buf *ret, uint32_t *ret_n, struct err *err)
{
    uint32_t first = (uint32_t)(s->push.n_items - u->first_item);

    for (;;) {
        uint32_t n;
        int rc = store_append_paths(s, txn, u, first, ret, &n, err);

        if (rc < 0)
            return rc;
        *ret_n += n;
        first = 0;
        if (*ret_n >= WANTED_ITEMS || ret->size_bytes >= WANTED_BYTES || ++unit >= s->counters.n_units)
            return 0;
        rc = env_read_unit(&s->env, txn, memory, unit, u, err);
        if (rc < 0)
            return rc;
    }
}

int store_push_wanted(struct store *s, struct buf *ret, uint32_t *ret_n, struct err *err)
{
    struct row_memory memory = {0};
    struct stored_manifest_unit u;
    MDB_txn *txn = s->txn;
    uint32_t unit;
    int rc = 0;

    *ret_n = 0;
    if (!s->meta.push || s->push.n_items >= s->counters.n_items)
        return 0;
    if (!txn)
        rc = env_begin_read(&s->env, &txn, err);
    if (rc < 0)
        return rc;
    rc = find_unit(s, txn, s->push.n_items, &memory, &unit, &u, err);
    if (rc == 0)
        rc = append_wanted(s, txn, unit, &u, &memory, ret, ret_n, err);
    if (!s->txn)
        mdb_txn_abort(txn);
    row_memory_release(&memory);
    return rc < 0 ? err_prefix(err, rc, "%s", s->path) : 0;
}

/* -- reading -- */

void store_push_head_release(struct store_push_head *h)
{
    if (h->fd > 0)
        (void)close(h->fd - 1);
    *h = (struct store_push_head){0};
}

static int take_error(const struct store_push_head *h, uint64_t at, uint64_t n, struct row_item *item)
{
    char *text = (char *)h->error;
    const char *end;

    if (n == 0 || n > sizeof(h->error) || pread(h->fd - 1, text, n, (off_t)at) != (ssize_t)n)
        return -EIO;
    end = memchr(text, '\0', n);
    if (!end || !msg_text_set(item->error_code, sizeof(item->error_code), text))
        return -EIO;
    item->error_message = (const uint8_t *)end + 1;
    item->error_message_bytes = (uint32_t)(n - (size_t)(end + 1 - text));
    return 0;
}

void store_push_describe(const struct store *s, uint32_t unit, uint32_t n_items, uint32_t i, struct store_push_head *h,
                         struct row_item *item)
{
    static const char gone[] = "the picture that was sent is no longer on the broker's disk";
    struct entry entry = {0}, before = {0};
    struct stat st;
    char name[PATH_MAX];

    item->path = NULL;
    item->path_bytes = item->root_bytes = 0;
    if (item->error_code[0])
        return; /* its list has no usable picture */
    if (h->fd == 0 && store_push_file(s->path, unit, name) == 0)
        h->fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) + 1;
    if (h->fd > 0 && (i == 0 || read_entry(h->fd - 1, i - 1, &before) == 0) && read_entry(h->fd - 1, i, &entry) == 0 &&
        entry.end >= before.end && entry.end <= PUSH_MAX_UNIT_BYTES && fstat(h->fd - 1, &st) == 0 &&
        (uint64_t)st.st_size >= store_push_head_bytes(n_items) + entry.end) {
        item->pushed_at = before.end;
        item->pushed_bytes = entry.end - before.end;
        if (!entry.is_error ||
            take_error(h, store_push_head_bytes(n_items) + before.end, item->pushed_bytes, item) == 0)
            return;
    }
    item->pushed_at = item->pushed_bytes = 0;
    (void)msg_text_set(item->error_code, sizeof(item->error_code), "missing");
    item->error_message = (const uint8_t *)gone;
    item->error_message_bytes = sizeof(gone) - 1;
}

/* -- transactions -- */

void store_push_undo(struct store *s)
{
    struct store_push *p = &s->push;

    leave_unit(p);
    p->n_items = p->saved_items;
    p->part_bytes = p->saved_part;
}

int store_push_commit(struct store *s, struct err *err)
{
    struct store_push *p = &s->push;
    int rc = 0;

    if (!p->dirty)
        return 0;
    if (p->fd >= 0 && fdatasync(p->fd) < 0)
        return failed(s, "sync", err);
    if (p->is_new)
        rc = folder_sync(s->path, err);
    if (rc == 0 && p->n_items != p->saved_items)
        rc = store_put_counters(s, "pushed", &(struct stored_job_counters){.n_items = p->n_items}, err);
    return rc;
}

void store_push_committed(struct store *s)
{
    struct store_push *p = &s->push;

    p->saved_items = p->n_items;
    p->saved_part = p->part_bytes;
    p->dirty = p->is_new = false;
}

/* -- the files -- */

void store_push_drop(struct store *s, uint32_t unit)
{
    char name[PATH_MAX];

    if (s->meta.push && store_push_file(s->path, unit, name) == 0)
        (void)unlink(name);
}

/* A crash may leave files of units that are done. */
static void drop_done(struct store *s, MDB_txn *txn)
{
    DIR *folder = opendir(s->path);
    const struct dirent *e;

    while (folder && (e = readdir(folder))) {
        struct stored_unit_state state;
        unsigned unit;
        char end;

        if (sscanf(e->d_name, "pushed-%8x%c", &unit, &end) == 1 &&
            env_read_state(&s->env, txn, unit, &state, NULL) == 0 && state.done)
            store_push_drop(s, unit);
    }
    if (folder)
        (void)closedir(folder);
}

int store_push_open(struct store *s, MDB_txn *txn, struct err *err)
{
    struct stored_job_counters c = {0};
    MDB_val v;
    int rc;

    if (!s->meta.push)
        return 0;
    rc = env_get(txn, s->env.meta, "pushed", 6, &v, err);
    if (rc == 0)
        rc = stored_job_counters_decode(v.mv_data, v.mv_size, &c, err);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    s->push.n_items = s->push.saved_items = c.n_items < s->counters.n_items ? c.n_items : s->counters.n_items;
    drop_done(s, txn);
    return 0;
}

void store_push_close(struct store *s)
{
    leave_unit(&s->push);
}
