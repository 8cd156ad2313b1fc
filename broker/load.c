#include "broker/load.h"

#include "store/push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/msg.h"
#include "proto/row.h"

void units_read_free(struct units_read *l)
{
    if (!l)
        return;
    for (size_t i = 0; l->rows && i < l->n; i++)
        free(l->rows[i]);
    free(l->rows);
    free(l->pending);
    free(l);
}

/* The pictures of a unit end where the last one does. */
static int count_pictures(struct unit_rows *u, struct err *err)
{
    const uint32_t start = unit_rows_start(u, u->n_items - 1);
    const struct row_frame last = {.data = u->bytes + start, .size_bytes = u->size_bytes - start};
    struct row_cursor c;
    struct row_item item = {0};
    int rc;

    row_cursor_init(&c, &last, 1, 1);
    rc = row_cursor_next_item(&c, &item, err);
    u->picture_bytes = item.pushed_at + item.pushed_bytes;
    row_cursor_release(&c);
    return rc < 0 ? rc : 0;
}

static int read_rows(struct store *s, const struct store_pending *p, struct buf *scratch, struct unit_rows **ret,
                     struct err *err)
{
    const size_t ends_bytes = p->n_items * sizeof((*ret)->ends[0]);
    struct unit_rows *u;
    uint32_t n_rows;
    int rc;

    buf_clear(scratch);
    u = malloc(sizeof(*u) + ends_bytes);
    if (!u)
        return err_set(err, -ENOMEM, "no memory for the items of unit %u", p->unit);
    rc = store_unit_items(s, p->unit, 0, 0, scratch, &n_rows, u->ends, err);
    if (rc == 0) {
        struct unit_rows *whole = realloc(u, sizeof(*u) + ends_bytes + scratch->size_bytes);

        if (whole)
            u = whole;
        else
            rc = err_set(err, -ENOMEM, "no memory for the items of unit %u", p->unit);
    }
    if (rc < 0) {
        free(u);
        return rc;
    }
    memcpy((uint8_t *)u->ends + ends_bytes, scratch->data, scratch->size_bytes);
    u->bytes = (const uint8_t *)u->ends + ends_bytes;
    u->size_bytes = (uint32_t)scratch->size_bytes;
    u->n_items = p->n_items;
    u->first_item = p->first_item;
    u->picture_bytes = 0;
    rc = store_info(s)->push ? count_pictures(u, err) : 0;
    if (rc < 0)
        free(u);
    else
        *ret = u;
    return rc;
}

static int read_all(struct store *s, size_t max_bytes, struct units_read *l, struct err *err)
{
    struct buf scratch;
    size_t bytes = 0, i = 0;
    int rc = 0;

    buf_init(&scratch, MSG_MAX_ROW_FRAME_BYTES);
    for (; rc == 0 && i < l->n && bytes < max_bytes; i++) {
        rc = read_rows(s, &l->pending[i], &scratch, &l->rows[i], err);
        bytes += scratch.size_bytes;
    }
    buf_release(&scratch);
    if (rc == 0 && i < l->n) {
        l->n = i; /* the others another time */
        l->exhausted = false;
    }
    return rc;
}

int units_read(struct store *s, uint32_t from_unit, uint32_t max_units, size_t max_bytes, struct units_read **ret,
               struct err *err)
{
    struct units_read *l = calloc(1, sizeof(*l));
    uint32_t next = from_unit, from;
    int rc = 0;

    if (l) {
        l->pending = malloc(max_units * sizeof(*l->pending));
        l->rows = calloc(max_units, sizeof(struct unit_rows *));
    }
    if (!l || !l->pending || !l->rows) {
        units_read_free(l);
        return err_set(err, -ENOMEM, "no memory for units");
    }
    do { /* runs of finished units are looked at 10 000 at a time */
        from = next;
        rc = store_pending(s, from, max_units, l->pending, &l->n, &next, err);
    } while (rc == 0 && l->n == 0 && next != from);
    if (rc == 0) {
        l->waits = store_push_waits(s);
        l->exhausted = l->n < max_units && next == from && !l->waits;
        rc = read_all(s, max_bytes, l, err);
    }
    if (rc < 0) {
        units_read_free(l);
        return rc;
    }
    *ret = l;
    return 0;
}
