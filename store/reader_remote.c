#include "store/reader_remote.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An answer, and how far it has been read. */
struct answer {
    struct msg_store_rows head;
    struct buf rows;
    struct row_value_cursor cursor;
    struct row_value value;  /* the last one read */
    bool again;              /* read it once more */
    enum msg_embedding kind; /* EMBEDDINGS of this kind; 0: none */
    uint64_t passed;         /* EMBEDDINGS: those of items below have been read */
};

struct remote {
    uint64_t job;
    struct reader_source_far from;
    struct answer units, embeddings, other;
};

static void answer_release(struct answer *a)
{
    row_value_cursor_release(&a->cursor);
    buf_release(&a->rows);
}

void remote_free(struct remote *m)
{
    if (!m)
        return;
    answer_release(&m->units);
    answer_release(&m->embeddings);
    answer_release(&m->other);
    free(m);
}

/* `q` NULL: the next answer to the last question. */
static int ask(struct reader *r, const struct msg_store_read *q, struct answer *a, struct err *err)
{
    uint32_t n_rows = 0;
    int rc;

    buf_clear(&a->rows);
    a->head = (struct msg_store_rows){0};
    a->again = false;
    (void)!row_value_cursor_set(&a->cursor, &a->rows, 0);
    rc = r->remote->from.ask(r->remote->from.arg, q, &a->head, &a->rows, &n_rows, err);
    if (rc == -ENOENT)
        return -EIDRM; /* -ENOENT is the end of the units */
    if (rc == 0 && row_value_cursor_set(&a->cursor, &a->rows, n_rows) < 0)
        rc = err_set(err, -EPROTO, "%s: an answer of %zu bytes", r->path, a->rows.size_bytes);
    return rc;
}

static int ask_for(struct reader *r, enum msg_store_what what, uint64_t from, struct answer *a, struct err *err)
{
    struct msg_store_read q = {.job = r->remote->job, .what = what, .from = from};

    return ask(r, &q, a, err);
}

/* 1: a->value, 0: the end. */
static int next(struct reader *r, struct answer *a, struct err *err)
{
    int rc;

    if (a->again) {
        a->again = false;
        return 1;
    }
    rc = row_value_cursor_next(&a->cursor, &a->value, err);
    return rc < 0 ? err_prefix(err, rc == -ENOMEM ? rc : -EPROTO, "%s: an answer", r->path) : rc;
}

static MDB_val bytes_of(const struct answer *a)
{
    return (MDB_val){.mv_size = a->value.size_bytes, .mv_data = (void *)(uintptr_t)a->value.data};
}

static int damage_of(const struct answer *a, struct err *err)
{
    return a->head.damage[0] ? err_set(err, -EBADMSG, "%s", a->head.damage) : 0;
}

/* -- the summary -- */

/* Ask for it, and go to its first value of this table. 1, or 0: there is none. */
static int summary(struct reader *r, enum row_value_table table, struct err *err)
{
    struct answer *a = &r->remote->other;
    int rc = ask_for(r, MSG_STORE_SUMMARY, 0, a, err);

    while (rc == 0) {
        rc = next(r, a, err);
        if (rc <= 0 || a->value.table == table)
            return rc;
        rc = 0;
    }
    return rc;
}

int reader_open_remote(const char *name, uint64_t job, const struct reader_source_far *from, struct reader **ret,
                       struct err *err)
{
    struct reader *r;
    MDB_val v;
    int rc = reader_new(name, &r, err);

    if (rc < 0)
        return rc;
    r->remote = calloc(1, sizeof(*r->remote));
    if (r->remote) {
        r->remote->job = job;
        r->remote->from = *from;
        rc = summary(r, ROW_VALUE_META, err);
        v = bytes_of(&r->remote->other);
        if (rc > 0)
            rc = env_decode_meta(&v, name, &r->meta, err);
        else if (rc == 0)
            rc = err_set(err, -EPROTO, "%s: an answer says nothing of its recipe", name);
    } else {
        rc = err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    if (rc < 0)
        reader_close(r);
    else
        *ret = r;
    return rc;
}

int remote_counters(struct reader *r, struct stored_job_counters *ret, struct err *err)
{
    int rc = summary(r, ROW_VALUE_COUNTERS, err);
    const MDB_val v = bytes_of(&r->remote->other);

    return rc < 0 ? rc : env_decode_counters(rc > 0 ? &v : NULL, ret, err);
}

int remote_disk_bytes(struct reader *r, uint64_t *ret, struct err *err)
{
    int rc = summary(r, ROW_VALUE_META, err);

    *ret = r->remote->other.head.disk_bytes;
    return rc < 0 ? rc : 0;
}

int remote_in_progress(struct reader *r, bool *ret, struct err *err)
{
    int rc = summary(r, ROW_VALUE_META, err);

    *ret = r->remote->other.head.in_progress;
    return rc < 0 ? rc : 0;
}

int remote_count_embeddings(struct reader *r, enum msg_embedding kind, uint64_t *ret, struct err *err)
{
    const struct msg_store_rows *head = &r->remote->other.head;
    int rc = summary(r, ROW_VALUE_META, err);

    *ret = (uint32_t)kind < head->n_kinds ? head->n_embeddings[kind] : 0;
    return rc < 0 ? rc : 0;
}

int remote_sources(struct reader *r, struct err *err)
{
    struct answer *a = &r->remote->other;
    struct row_memory memory = {0};
    int rc = summary(r, ROW_VALUE_SOURCE, err);

    while (rc > 0) {
        const MDB_val v = bytes_of(a);

        rc = a->value.table == ROW_VALUE_SOURCE ? reader_add_source(r, &memory, &v, err) : 0;
        if (rc == 0)
            rc = next(r, a, err);
    }
    row_memory_release(&memory);
    return rc;
}

/* -- units -- */

/* Go on to the row of this unit. False: the answer does not have it. */
static int skip_to(struct reader *r, struct answer *a, uint32_t unit, struct err *err)
{
    int rc;

    while ((rc = next(r, a, err)) > 0) {
        if (a->value.table != ROW_VALUE_UNIT || a->value.number < unit)
            continue;
        a->again = a->value.number > unit;
        return !a->again;
    }
    return rc;
}

static int ask_for_units(struct reader *r, enum msg_store_what what, uint64_t from, struct err *err)
{
    r->remote->embeddings.kind = 0; /* they may be older than these units */
    return ask_for(r, what, from, &r->remote->units, err);
}

static int go_to_unit(struct reader *r, uint32_t unit, struct err *err)
{
    struct answer *a = &r->remote->units;
    int rc = a->head.job ? skip_to(r, a, unit, err) : 0;

    if (rc != 0)
        return rc;
    rc = ask_for_units(r, MSG_STORE_UNITS, unit, err);
    if (rc == 0)
        rc = skip_to(r, a, unit, err);
    if (rc != 0)
        return rc;
    rc = damage_of(a, err);
    if (rc == 0 && unit < a->head.n_units)
        rc = err_set(err, -EPROTO, "%s: an answer does not have unit %" PRIu32, r->path, unit);
    return rc < 0 ? rc : -ENOENT;
}

static int take_value(struct reader *r, const struct answer *a, uint32_t unit, struct err *err)
{
    const MDB_val v = bytes_of(a);

    if (a->value.table == ROW_VALUE_STATE) {
        r->state_rc = env_decode_state(&v, unit, &r->state, &r->state_err);
        return 0;
    }
    if (a->value.table != ROW_VALUE_RECORD || a->value.number < r->manifest.first_item ||
        a->value.number - r->manifest.first_item >= r->manifest.n_items)
        return err_set(err, -EPROTO, "%s: an answer has something else in unit %" PRIu32, r->path, unit);
    return reader_keep_record(r, unit, a->value.number, v.mv_data, v.mv_size, err);
}

int remote_load(struct reader *r, uint32_t unit, struct err *err)
{
    struct answer *a = &r->remote->units;
    int rc = go_to_unit(r, unit, err);
    const MDB_val v = bytes_of(a);

    if (rc < 0)
        return rc;
    rc = env_decode_unit(&r->unit_memory, &v, unit, &r->manifest, err);
    if (rc < 0)
        return err_prefix(err, rc == -ENOMEM ? rc : -EPROTO, "%s: an answer", r->path);
    reader_clear_unit(r);
    while ((rc = next(r, a, err)) > 0) {
        if (a->value.table == ROW_VALUE_UNIT) {
            a->again = true;
            return 0;
        }
        rc = take_value(r, a, unit, err);
        if (rc < 0)
            return rc;
    }
    return rc;
}

int remote_find_unit(struct reader *r, uint64_t item, uint32_t *ret, struct err *err)
{
    struct answer *a = &r->remote->units;
    int rc = ask_for_units(r, MSG_STORE_UNITS_OF, item, err);

    if (rc == 0)
        rc = next(r, a, err);
    if (rc < 0)
        return rc;
    if (rc > 0 && a->value.table == ROW_VALUE_UNIT && a->value.number < UINT32_MAX) {
        a->again = true;
        *ret = (uint32_t)a->value.number;
        return 0;
    }
    rc = damage_of(a, err);
    return rc < 0 ? rc : -ENOENT;
}

/* -- embeddings -- */

int remote_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, MDB_val *ret, struct err *err)
{
    struct answer *a = &r->remote->embeddings;
    struct msg_store_read q = {.job = r->remote->job, .what = MSG_STORE_EMBEDDINGS, .from = item, .embedding = kind};
    int rc = 0;

    if (a->kind != kind || item < a->passed || item >= a->head.next) {
        a->kind = 0;
        rc = ask(r, &q, a, err);
        if (rc == 0)
            rc = damage_of(a, err);
        if (rc < 0)
            return rc;
        a->kind = kind;
    }
    a->passed = item + 1;
    while ((rc = next(r, a, err)) > 0) {
        if (a->value.table != ROW_VALUE_EMBEDDING || a->value.number < item)
            continue;
        a->again = a->value.number > item;
        *ret = bytes_of(a);
        return !a->again;
    }
    return rc;
}

/* -- numbers -- */

static int take_numbers(struct reader *r, struct err *err)
{
    struct answer *a = &r->remote->other;
    int rc = damage_of(a, err);

    while (rc == 0 && (rc = next(r, a, err)) > 0)
        rc = reader_found(r, a->value.number, err);
    return rc;
}

int remote_units_done(struct reader *r, uint32_t *from, struct err *err)
{
    struct answer *a = &r->remote->other;
    int rc;

    r->remote->units.head.job = 0; /* it is from before some of these units were done */
    rc = ask_for(r, MSG_STORE_DONE, *from, a, err);

    if (rc == 0)
        rc = take_numbers(r, err);
    if (rc == 0 && (a->head.next < *from || a->head.next > UINT32_MAX))
        rc = err_set(err, -EPROTO, "%s: an answer goes on at unit %" PRIu64, r->path, a->head.next);
    if (rc == 0)
        *from = (uint32_t)a->head.next;
    return rc;
}

int remote_find(struct reader *r, const void *key, size_t size_bytes, struct err *err)
{
    struct msg_store_read q = {.job = r->remote->job, .what = MSG_STORE_FIND, .key_bytes = (uint32_t)size_bytes};
    int rc;

    if (size_bytes == 0 || size_bytes > sizeof(q.key))
        return 0; /* no item has such a key */
    memcpy(q.key, key, size_bytes);
    rc = ask(r, &q, &r->remote->other, err);
    return rc < 0 ? rc : take_numbers(r, err);
}

/* -- checks -- */

int remote_check_pages(struct reader *r, struct err *err)
{
    int rc = ask_for(r, MSG_STORE_CHECK, 0, &r->remote->other, err);

    return rc < 0 ? rc : damage_of(&r->remote->other, err);
}

static int tell_problem(const struct reader_verify *v, const struct row_value *value)
{
    char text[MSG_TEXT_SIZE];
    size_t n = value->size_bytes < sizeof(text) - 1 ? value->size_bytes : sizeof(text) - 1;

    if (n)
        memcpy(text, value->data, n);
    text[n] = '\0';
    return v->problem && !v->problem(v->arg, (int64_t)value->unit - 1, (int64_t)value->number - 1, text) ? -ECANCELED
                                                                                                         : 0;
}

int remote_verify(struct reader *r, const struct reader_verify *v, uint64_t *ret_n_problems, struct err *err)
{
    struct answer *a = &r->remote->other;
    int rc = ask_for(r, MSG_STORE_VERIFY, 0, a, err);

    while (rc == 0) {
        rc = damage_of(a, err);
        while (rc == 0 && (rc = next(r, a, err)) > 0)
            rc = a->value.table == ROW_VALUE_PROBLEM ? tell_problem(v, &a->value) : 0;
        if (rc < 0 || !a->head.more)
            break;
        if (v->progress && !v->progress(v->arg, a->head.n_seen, a->head.n_items))
            rc = -ECANCELED;
        if (rc == 0)
            rc = ask(r, NULL, a, err);
    }
    *ret_n_problems = a->head.n_problems;
    return rc == -ECANCELED ? err_set(err, rc, "%s: stopped", r->path) : rc;
}
