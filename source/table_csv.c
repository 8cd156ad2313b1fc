/* table_csv.c - CSV and TSV, with quotes as in Python's csv module (RFC 4180 and deviations from it). The first row
 * names the columns. */
#include "base/buf.h"
#include "source/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 1024 };

enum place {
    CELL_BEGINS,
    CELL_PLAIN, /* quotes are ordinary bytes */
    CELL_QUOTED,
    CELL_QUOTE, /* after a quote in a quoted cell: its end, or the first of a doubled quote */
};

struct csv_state {
    char delimiter;
    uint32_t n_names;
    char *names[MAX_COLUMNS]; /* owned; "" for names that cannot be asked for */
    uint32_t n_cells;
    struct table_value cells[MAX_COLUMNS]; /* cells of the current row, in table->row_bytes */
    struct buf cell;                       /* the current cell */
    uint64_t quote_line;                   /* the line of its opening quote */
};

static int take_cell(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;
    const size_t n = s->cell.size_bytes;
    const char *text;

    if (s->n_cells == MAX_COLUMNS)
        return table_error(t, -EINVAL, err, "more than %d cells", MAX_COLUMNS);
    text = table_keep(t, n ? (const char *)s->cell.data : "", n);
    if (!text)
        return table_error(t, -ENOMEM, err, "no memory");
    s->cells[s->n_cells++] = (struct table_value){.text = text, .bytes = n};
    buf_clear(&s->cell);
    return 0;
}

static int not_closed(const struct table *t, struct err *err)
{
    const struct csv_state *s = t->state;

    return table_error(t, -EINVAL, err,
                       "a quote that opens a cell in line %" PRIu64 " is not closed (quotes within such a cell are "
                       "doubled)",
                       s->quote_line);
}

/* Takes one byte of a line; the cell has room for it. */
static int take_byte(struct table *t, char c, enum place *place, struct err *err)
{
    struct csv_state *s = t->state;

    if (c == '"' && *place == CELL_BEGINS) {
        s->quote_line = t->lines.number;
        *place = CELL_QUOTED;
        return 0;
    }
    if (c == '"' && *place == CELL_QUOTED) {
        *place = CELL_QUOTE;
        return 0;
    }
    if (*place != CELL_QUOTED) {
        if (c == s->delimiter) {
            *place = CELL_BEGINS;
            return take_cell(t, err);
        }
        if (c == '\r')
            return table_error(t, -EINVAL, err, "a carriage return in the middle of a line");
        if (*place == CELL_QUOTE && c != '"' && s->quote_line != t->lines.number)
            return not_closed(t, err); /* more likely than text after a multi-line cell */
        *place = *place == CELL_QUOTE && c == '"' ? CELL_QUOTED : CELL_PLAIN;
    }
    s->cell.data[s->cell.size_bytes++] = (uint8_t)c;
    return 0;
}

/* The length of a line without its line end. */
static size_t length_of(const struct lines *l)
{
    size_t n = l->bytes;

    while (n && (l->line[n - 1] == '\n' || l->line[n - 1] == '\r'))
        n--;
    return n;
}

/* Returns 1 if the row ends with this line, 0 if it continues in a quoted cell. */
static int take_line(struct table *t, enum place *place, struct err *err)
{
    struct csv_state *s = t->state;
    const size_t n = length_of(&t->lines);
    int rc = 0;

    if (buf_reserve(&s->cell, t->lines.bytes) < 0)
        return table_error(t, -ENOMEM, err, "no memory");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = take_byte(t, t->lines.line[i], place, err);
    if (rc == 0 && *place != CELL_QUOTED) {
        rc = take_cell(t, err);
        return rc < 0 ? rc : 1;
    }
    if (rc < 0)
        return rc;
    memcpy(s->cell.data + s->cell.size_bytes, t->lines.line + n, t->lines.bytes - n);
    s->cell.size_bytes += t->lines.bytes - n;
    return 0;
}

/* Returns 1 with a row in s->cells, or 0 at the end. */
static int read_row(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;
    enum place place = CELL_BEGINS;
    size_t bytes = 0;
    int rc;

    s->n_cells = 0;
    do { /* skip empty lines between rows */
        t->row_line = t->lines.number + 1;
        rc = lines_next(&t->lines, err);
    } while (rc > 0 && length_of(&t->lines) == 0);
    while (rc > 0) {
        bytes += t->lines.bytes;
        if (bytes > SOURCE_MAX_ROW_BYTES)
            return table_error(t, -EFBIG, err, "a row of more than %d MiB; is a quote not closed?",
                               SOURCE_MAX_ROW_BYTES >> 20);
        rc = take_line(t, &place, err);
        if (rc != 0)
            return rc;
        rc = lines_next(&t->lines, err);
    }
    return rc == 0 && place == CELL_QUOTED ? not_closed(t, err) : rc;
}

/* A duplicate column name is an error only if the column is used. */
static int take_names(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;

    if (t->lines.has_nul)
        return table_error(t, -EINVAL, err, "contains a NUL byte; is this a text file?");
    for (uint32_t i = 0; i < s->n_cells; i++) {
        for (uint32_t k = 0; k < i; k++)
            if (s->cells[i].bytes && strcmp(s->names[k], s->cells[i].text) == 0 && table_uses(t, s->cells[i].text))
                return table_error(t, -EINVAL, err, "column %.60s occurs twice", s->cells[i].text);
        s->names[i] = strdup(s->cells[i].text);
        if (!s->names[i])
            return table_error(t, -ENOMEM, err, "no memory");
        s->n_names = i + 1;
    }
    return 0;
}

static int begin(struct table *t, char delimiter, struct err *err)
{
    struct csv_state *s = calloc(1, sizeof(*s));
    int rc;

    t->state = s;
    if (!s)
        return table_error(t, -ENOMEM, err, "no memory");
    buf_init(&s->cell, 0);
    s->delimiter = delimiter;
    rc = read_row(t, err);
    if (rc == 0)
        return table_error(t, -EINVAL, err, "is empty; the first row must name the columns");
    if (rc > 0)
        rc = take_names(t, err);
    arena_reset(&t->row_bytes);
    return rc;
}

static int csv_begin(struct table *t, struct err *err)
{
    return begin(t, ',', err);
}

static int tsv_begin(struct table *t, struct err *err)
{
    return begin(t, '\t', err);
}

/* Missing cells at the end are empty, as spreadsheets write them. More cells than columns is an error: which one is
 * superfluous is unknown. */
static int csv_next(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;
    int rc = read_row(t, err);

    for (uint32_t i = s->n_names; rc > 0 && i < s->n_cells; i++)
        if (s->cells[i].bytes)
            return table_bad_row(
                t, IMAGE_BAD_ROW,
                "%u cells, but line 1 names %u columns; is a cell with the separator in it not quoted?", s->n_cells,
                s->n_names);
    for (; rc != 0 && s->n_cells < s->n_names; s->n_cells++)
        s->cells[s->n_cells] = (struct table_value){.text = ""};
    return rc;
}

static int csv_get(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n)
{
    const struct csv_state *s = t->state;

    for (uint32_t i = 0; i < s->n_names; i++) {
        if (strcmp(s->names[i], column) != 0 || s->cells[i].bytes == 0)
            continue;
        if (max == 0)
            return table_bad_row(t, IMAGE_BAD_ROW, "too many columns are used (%.60s)", column);
        ret[(*ret_n)++] = s->cells[i];
        return 0;
    }
    return 0;
}

static const char *csv_name(const struct table *t, uint32_t i)
{
    const struct csv_state *s = t->state;

    return i < s->n_names ? s->names[i] : NULL;
}

static void csv_end(struct table *t)
{
    struct csv_state *s = t->state;

    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_names; i++)
        free(s->names[i]);
    buf_release(&s->cell);
    free(s);
}

const struct table_format table_csv = {csv_begin, csv_next, csv_get, csv_name, csv_end};
const struct table_format table_tsv = {tsv_begin, csv_next, csv_get, csv_name, csv_end};
