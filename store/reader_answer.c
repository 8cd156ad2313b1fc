/* reader_answer.c - answers the questions of a remote reader about a store that is here. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "store/reader_state.h"

enum { ANSWER_BYTES = 1 << 20, UNIT_MAX_BYTES = 64 << 20, PROBLEMS_MAX = 1000, PART_MS = 500 };

struct answer {
    struct reader *r;
    struct msg_store_rows head;
    struct buf rows;
    uint32_t n_rows;
    reader_answer_send *send;
    void *arg;
    int rc; /* VERIFY: why it was stopped */
    int64_t sent_ms;
};

static int add(struct answer *a, enum row_value_table table, uint64_t number, const MDB_val *v)
{
    const struct row_value value = {
        .table = table, .number = number, .data = v ? v->mv_data : NULL, .size_bytes = v ? v->mv_size : 0};

    return row_value_append(&a->rows, &value, &a->n_rows);
}

/* The store is damaged where the answer would begin: that is the answer. */
static int say_damage(struct answer *a, int rc, const struct err *err)
{
    if (rc == -EBADMSG)
        (void)msg_text_set(a->head.damage, sizeof(a->head.damage), err->text);
    return rc == -EBADMSG ? 0 : rc;
}

/* -- the summary -- */

static int add_summary(struct answer *a, struct err *err)
{
    struct reader *r = a->r;
    MDB_val v;
    int rc = env_get(r->txn, r->env.meta, "job", 3, &v, err);

    if (rc == 0)
        rc = add(a, ROW_VALUE_META, 0, &v);
    if (rc == 0)
        rc = env_get(r->txn, r->env.meta, "counters", 8, &v, err);
    if (rc == 0)
        rc = add(a, ROW_VALUE_COUNTERS, 0, &v);
    for (uint32_t i = 1; rc == 0 || rc == -ENOENT; i++) {
        rc = env_get_source(&r->env, r->txn, i, &v, err);
        if (rc == -ENOENT)
            return 0;
        if (rc == 0)
            rc = add(a, ROW_VALUE_SOURCE, i, &v);
    }
    return rc;
}

static int summarise(struct answer *a, struct err *err)
{
    const struct msg_recipe *recipe = &a->r->meta.recipe;
    int rc = reader_begin(a->r, err);

    if (rc < 0)
        return rc;
    rc = add_summary(a, err);
    reader_end(a->r);
    for (uint32_t i = 0; rc == 0 && i < recipe->n_embeddings; i++)
        rc = reader_count_embeddings(a->r, recipe->embeddings[i].kind,
                                     &a->head.n_embeddings[recipe->embeddings[i].kind], err);
    a->head.n_kinds = MSG_EMBEDDING_CLS + 1;
    return rc < 0 ? rc : reader_disk_bytes(a->r, &a->head.disk_bytes, err);
}

/* -- units -- */

static int add_records(struct answer *a)
{
    const struct reader *r = a->r;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->manifest.n_items; i++) {
        const struct reader_span *span = &r->records[i];
        const MDB_val v = {.mv_size = span->size_bytes, .mv_data = r->bytes.data + span->offset};

        if (span->size_bytes)
            rc = add(a, ROW_VALUE_RECORD, r->manifest.first_item + i, &v);
    }
    return rc;
}

/* Within a read transaction. */
static int add_unit(struct answer *a, uint32_t unit, struct err *err)
{
    struct reader *r = a->r;
    uint8_t key[4];
    MDB_val v;
    int rc = reader_load_now(r, unit, err);

    if (rc < 0)
        return rc;
    env_put_be32(key, unit);
    rc = env_get(r->txn, r->env.manifest, key, 4, &v, err);
    if (rc == 0 && r->bytes.size_bytes + v.mv_size > UNIT_MAX_BYTES)
        return err_set(err, -EFBIG, "%s: unit %" PRIu32 " has more than %d MiB", r->path, unit, UNIT_MAX_BYTES >> 20);
    if (rc == 0)
        rc = add(a, ROW_VALUE_UNIT, unit, &v);
    if (rc == 0)
        rc = env_get(r->txn, r->env.units, key, 4, &v, err);
    if (rc == 0)
        rc = add(a, ROW_VALUE_STATE, unit, &v);
    return rc == 0 || rc == -ENOENT ? add_records(a) : rc;
}

static int add_units(struct answer *a, uint64_t from, struct err *err)
{
    int rc = 0;

    for (a->head.next = from; rc == 0 && a->head.next < UINT32_MAX; a->head.next++) {
        const size_t before = a->rows.size_bytes;
        const uint32_t n_before = a->n_rows;

        if (before >= ANSWER_BYTES)
            break;
        rc = reader_begin(a->r, err);
        if (rc < 0)
            return rc;
        rc = add_unit(a, (uint32_t)a->head.next, err);
        reader_end(a->r);
        if (rc < 0 && n_before) { /* the next question meets it at its beginning */
            a->rows.size_bytes = before;
            a->n_rows = n_before;
            return 0;
        }
        if (rc < 0)
            break;
    }
    return rc == -ENOENT ? 0 : say_damage(a, rc, err);
}

static int add_units_of(struct answer *a, uint64_t item, struct err *err)
{
    uint32_t unit = 0;
    int rc = reader_find_unit(a->r, item, &unit, err);

    if (rc < 0)
        return rc == -ENOENT ? 0 : say_damage(a, rc, err);
    return add_units(a, unit, err);
}

static int count_units(struct answer *a, struct err *err)
{
    int rc = reader_begin(a->r, err);

    if (rc < 0)
        return rc;
    rc = reader_count_units(a->r, &a->head.n_units, err);
    reader_end(a->r);
    return rc;
}

/* -- numbers, embeddings -- */

static int add_numbers(struct answer *a, const uint64_t *numbers, size_t n)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add(a, ROW_VALUE_NUMBER, numbers[i], NULL);
    return rc;
}

static int add_done(struct answer *a, uint64_t from, struct err *err)
{
    uint32_t unit = from < UINT32_MAX ? (uint32_t)from : UINT32_MAX;
    const uint64_t *units;
    size_t n;
    int rc = reader_units_done(a->r, &unit, &units, &n, err);

    a->head.next = unit;
    return rc < 0 ? say_damage(a, rc, err) : add_numbers(a, units, n);
}

static int add_found(struct answer *a, const struct msg_store_read *q, struct err *err)
{
    const uint64_t *items;
    size_t n;
    int rc = reader_find(a->r, q->key, q->key_bytes, &items, &n, err);

    return rc < 0 ? say_damage(a, rc, err) : add_numbers(a, items, n);
}

static int add_embeddings(struct answer *a, const struct msg_store_read *q, struct err *err)
{
    a->head.next = q->from;
    return say_damage(
        a, reader_embedding_values(a->r, q->embedding, &a->head.next, ANSWER_BYTES, &a->rows, &a->n_rows, err), err);
}

/* -- checks -- */

static bool send_part(struct answer *a)
{
    a->rc = a->send(a->arg, &a->head, &a->rows, a->n_rows);
    buf_clear(&a->rows);
    a->n_rows = 0;
    a->sent_ms = clock_mono_ms();
    return a->rc == 0;
}

static bool on_problem(void *arg, int64_t unit, int64_t item, const char *text)
{
    struct answer *a = arg;
    const struct row_value value = {.table = ROW_VALUE_PROBLEM,
                                    .number = (uint64_t)(item + 1),
                                    .unit = (uint64_t)(unit + 1),
                                    .data = (const uint8_t *)text,
                                    .size_bytes = strlen(text)};

    if (++a->head.n_problems <= PROBLEMS_MAX)
        a->rc = row_value_append(&a->rows, &value, &a->n_rows);
    return a->rc == 0;
}

static bool on_progress(void *arg, uint64_t items_seen, uint64_t n_items)
{
    struct answer *a = arg;

    a->head.n_seen = items_seen;
    a->head.n_items = n_items;
    a->head.more = true;
    return clock_mono_ms() < a->sent_ms + PART_MS || send_part(a);
}

static int check_all(struct answer *a, struct err *err)
{
    const struct reader_verify v = {on_problem, on_progress, a};
    uint64_t n_problems;
    int rc = reader_verify(a->r, &v, &n_problems, err);

    a->head.more = false;
    return a->rc < 0 ? a->rc : say_damage(a, rc, err);
}

int reader_answer(struct reader *r, const struct msg_store_read *question, reader_answer_send *send, void *arg,
                  struct err *err)
{
    struct answer a = {.r = r, .head = {.job = question->job}, .send = send, .arg = arg};
    int rc = count_units(&a, err);

    buf_init(&a.rows, 0);
    if (rc < 0)
        return rc;
    switch (question->what) {
    case MSG_STORE_SUMMARY:
        rc = summarise(&a, err);
        break;
    case MSG_STORE_UNITS:
        rc = add_units(&a, question->from, err);
        break;
    case MSG_STORE_UNITS_OF:
        rc = add_units_of(&a, question->from, err);
        break;
    case MSG_STORE_DONE:
        rc = add_done(&a, question->from, err);
        break;
    case MSG_STORE_FIND:
        rc = add_found(&a, question, err);
        break;
    case MSG_STORE_EMBEDDINGS:
        rc = add_embeddings(&a, question, err);
        break;
    case MSG_STORE_CHECK:
        rc = say_damage(&a, reader_check_pages(r, err), err);
        break;
    case MSG_STORE_VERIFY:
        rc = check_all(&a, err);
        break;
    }
    if (rc == 0)
        (void)send_part(&a);
    buf_release(&a.rows);
    return rc < 0 ? rc : a.rc;
}
