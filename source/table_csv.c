/* table_csv.c - CSV as RFC 4180 has it, and TSV, by libcsv; the first row names the columns. It is fed a line at a
 * time, so that a row's line and size are known. */
#include "source/table.h"

#include <csv.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 1024 };

#define QUOTES "a cell with quotes stands in quotes itself, and has them twice"

struct csv_state {
    struct csv_parser parser;
    bool open; /* parser is initialised */
    unsigned char options;
    char delimiter;
    uint32_t n_names;
    char *names[MAX_COLUMNS]; /* owned; "" for those that nobody can ask for */
    struct table *table;
    uint32_t n_cells;
    struct table_value cells[MAX_COLUMNS]; /* of the row being read; in table->row_bytes */
    uint32_t n_rows;                       /* completed by the last line */
    int rc;                                /* of the callbacks */
    bool too_many;
};

static int no_space(unsigned char c)
{
    (void)c;
    return 0; /* spaces belong to a cell */
}

static void take_cell(void *bytes, size_t n, void *user)
{
    struct csv_state *s = user;
    char *text;

    if (s->n_rows || s->n_cells == MAX_COLUMNS) {
        s->too_many = true;
        return;
    }
    text = table_keep(s->table, n ? bytes : "", n);
    if (!text)
        s->rc = -ENOMEM;
    else
        s->cells[s->n_cells++] = (struct table_value){.text = text, .bytes = n};
}

static void take_row(int end, void *user)
{
    (void)end;
    ((struct csv_state *)user)->n_rows++;
}

/* A parser at the beginning of a row. */
static int open_parser(struct csv_state *s)
{
    if (s->open)
        csv_free(&s->parser);
    s->open = csv_init(&s->parser, s->options) == 0;
    if (!s->open)
        return -ENOMEM;
    csv_set_delim(&s->parser, (unsigned char)s->delimiter);
    csv_set_space_func(&s->parser, no_space);
    return 0;
}

static int complain(const struct table *t, const struct csv_state *s, struct err *err)
{
    if (s->rc < 0)
        return table_error(t, s->rc, err, "no memory");
    if (s->too_many || s->n_rows > 1)
        return table_error(t, -EINVAL, err, "more than %d cells, or a carriage return in the middle of a line",
                           MAX_COLUMNS);
    return table_error(t, -EINVAL, err, "a quote that is not closed, or one where none may be (" QUOTES ")");
}

/* libcsv has stopped at a byte of the last line. A wrong quote in a row of one line is that row's; of more lines,
 * nobody knows where the row ends. */
static int wrong_line(struct table *t, struct csv_state *s, bool one_line, struct err *err)
{
    if (!one_line || s->rc < 0 || s->too_many || s->n_rows > 1)
        return complain(t, s, err);
    if (open_parser(s) < 0)
        return table_error(t, -ENOMEM, err, "no memory");
    return table_bad_row(t, IMAGE_BAD_ROW, "a quote where none may be (" QUOTES ")");
}

/* 1: a row is in s->cells, 0: the end. */
static int read_row(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;
    size_t bytes = 0;
    bool begun = false; /* before that, empty lines are nothing */

    s->n_cells = s->n_rows = 0;
    t->row_line = t->lines.number + 1;
    while (s->n_rows == 0) {
        int rc = lines_next(&t->lines, err);

        if (rc < 0)
            return rc;
        if (rc == 0) {
            csv_set_opts(&s->parser, CSV_STRICT | CSV_STRICT_FINI); /* a quote that is never closed */
            if (csv_fini(&s->parser, take_cell, take_row, s) != 0 || s->rc < 0 || s->too_many)
                return complain(t, s, err);
            break;
        }
        bytes += t->lines.bytes;
        if (bytes > SOURCE_MAX_ROW_BYTES)
            return table_error(t, -EFBIG, err, "a row of more than %d MiB; is a quote not closed?",
                               SOURCE_MAX_ROW_BYTES >> 20);
        if (csv_parse(&s->parser, t->lines.line, t->lines.bytes, take_cell, take_row, s) != t->lines.bytes ||
            s->rc < 0 || s->too_many || s->n_rows > 1)
            return wrong_line(t, s, bytes == t->lines.bytes, err);
        if (!begun && strspn(t->lines.line, "\r\n") == t->lines.bytes)
            t->row_line = t->lines.number + 1;
        else
            begun = true;
    }
    return s->n_rows > 0;
}

/* Two columns of one name are no matter unless it is used. */
static int take_names(struct table *t, struct err *err)
{
    struct csv_state *s = t->state;

    if (t->lines.has_nul)
        return table_error(t, -EINVAL, err, "holds a NUL byte, is this a text file?");
    for (uint32_t i = 0; i < s->n_cells; i++) {
        for (uint32_t k = 0; k < i; k++)
            if (s->cells[i].bytes && strcmp(s->names[k], s->cells[i].text) == 0 && table_uses(t, s->cells[i].text))
                return table_error(t, -EINVAL, err, "column %.60s is there twice", s->cells[i].text);
        s->names[i] = strdup(s->cells[i].text);
        if (!s->names[i])
            return table_error(t, -ENOMEM, err, "no memory");
        s->n_names = i + 1;
    }
    return 0;
}

static int begin(struct table *t, char delimiter, unsigned char options, struct err *err)
{
    struct csv_state *s = calloc(1, sizeof(*s));
    int rc;

    t->state = s;
    if (!s)
        return table_error(t, -ENOMEM, err, "no memory");
    s->table = t;
    s->options = options;
    s->delimiter = delimiter;
    if (open_parser(s) < 0)
        return table_error(t, -ENOMEM, err, "no memory");
    rc = read_row(t, err);
    if (rc == -EILSEQ)
        return table_error(t, -EINVAL, err, "a quote where none may be (" QUOTES ")");
    if (rc == 0)
        return table_error(t, -EINVAL, err, "is empty: the first row names the columns");
    if (rc > 0)
        rc = take_names(t, err);
    arena_reset(&t->row_bytes);
    return rc;
}

static int csv_begin(struct table *t, struct err *err)
{
    return begin(t, ',', CSV_STRICT, err);
}

/* Quotes in TSV are common as inch signs and the like, and as quotes too: those at the beginning of a cell quote. */
static int tsv_begin(struct table *t, struct err *err)
{
    return begin(t, '\t', 0, err);
}

/* Cells that are missing at the end are empty, as spreadsheets write them. More of them than there are columns:
 * which one is too much cannot be known. */
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
    if (s->open)
        csv_free(&s->parser);
    free(s);
}

const struct table_format table_csv = {csv_begin, csv_next, csv_get, csv_name, csv_end};
const struct table_format table_tsv = {tsv_begin, csv_next, csv_get, csv_name, csv_end};
