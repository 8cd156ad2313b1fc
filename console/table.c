#include "console/table.h"

#include "console/printable.h"
#include "model/utf8.h"

#include <stdint.h>
#include <string.h>
#include <wchar.h>

enum { GAP = 2, LEAST_WIDTH = 8, CELL_SIZE = 4096 };

void table_init(struct table *t, const struct table_column *columns)
{
    *t = (struct table){.columns = columns};
    while (t->n < TABLE_MAX_COLUMNS && columns[t->n].title) {
        t->widths[t->n] = (unsigned)strlen(columns[t->n].title);
        t->n++;
    }
}

/* How many bytes of printable text have at most `limit` columns, and how many columns these are. */
static size_t cut(const char *text, unsigned limit, unsigned *ret_width)
{
    const size_t n = strlen(text);
    size_t at = 0;

    *ret_width = 0;
    while (at < n) {
        uint32_t cp;
        const size_t used = utf8_step((const uint8_t *)text + at, n - at, &cp);
        const int width = wcwidth((wchar_t)cp);
        const unsigned columns = width < 0 ? 1 : (unsigned)width;

        if (*ret_width + columns > limit)
            break;
        *ret_width += columns;
        at += used;
    }
    return at;
}

void table_measure(struct table *t, const char *const *cells)
{
    char text[CELL_SIZE];
    unsigned width;

    for (size_t i = 0; i < t->n; i++) {
        (void)cut(printable_text(cells[i], strlen(cells[i]), text, sizeof(text)), CELL_SIZE, &width);
        if (width > t->widths[i])
            t->widths[i] = width;
    }
}

void table_fit(struct table *t, unsigned terminal_columns)
{
    unsigned total = 0;

    for (size_t i = 0; i < t->n; i++)
        total += t->widths[i] + (i ? GAP : 0);
    while (terminal_columns && total > terminal_columns) {
        size_t widest = t->n;

        for (size_t i = 0; i < t->n; i++)
            if (t->columns[i].shrinks && t->widths[i] > LEAST_WIDTH &&
                (widest == t->n || t->widths[i] > t->widths[widest]))
                widest = i;
        if (widest == t->n)
            return;
        t->widths[widest]--;
        total--;
    }
}

void table_print(const struct table *t, const char *const *cells, FILE *out)
{
    unsigned blanks = 0; /* of the cells before */

    for (size_t i = 0; i < t->n; i++) {
        const unsigned limit = t->widths[i];
        char text[CELL_SIZE];
        unsigned width, full;
        size_t n;

        (void)printable_text(cells[i], strlen(cells[i]), text, sizeof(text));
        n = cut(text, limit, &width);
        if (text[n] && limit > 2) {
            n = cut(text, limit - 2, &width);
            memcpy(text + n, "..", 3);
            n += 2;
            width += 2;
        }
        full = limit - width;
        blanks += t->columns[i].is_number ? full : 0;
        if (n)
            fprintf(out, "%*s%.*s", (int)blanks, "", (int)n, text);
        blanks = (n ? 0 : blanks) + (t->columns[i].is_number ? 0 : full) + GAP;
    }
    fputc('\n', out);
}

void table_print_titles(const struct table *t, FILE *out)
{
    const char *titles[TABLE_MAX_COLUMNS];

    for (size_t i = 0; i < t->n; i++)
        titles[i] = t->columns[i].title;
    table_print(t, titles, out);
}
