#include "base/page.h"

#include <stdbool.h>
#include <string.h>

/* A paragraph that is being wrapped. */
struct fill {
    FILE *out;
    const char *before; /* begins each line but the first, before the indent; may be NULL */
    int indent;         /* of each line but the first */
    int column;         /* of the next character */
    bool begun;         /* the line has a word already */
};

static void put_words(struct fill *f, const char *text, size_t size)
{
    const char *end = text + size;

    while (text < end) {
        int n;

        text += strspn(text, " ");
        if (text >= end)
            return;
        n = (int)strcspn(text, " \n");
        if (f->begun && f->column + 1 + n > PAGE_WIDTH) {
            f->column = fprintf(f->out, "\n%s%*s", f->before ? f->before : "", f->indent, "") - 1;
            f->begun = false;
        }
        f->column += fprintf(f->out, "%s%.*s", f->begun ? " " : "", n, text);
        f->begun = true;
        text += n;
    }
}

/* The column of the text in "  WORD   text"; 0 if the line is not an item. */
static size_t item_column(const char *line, size_t n)
{
    for (size_t i = strspn(line, " "); i + 2 < n; i++)
        if (line[i] == ' ' && line[i + 1] == ' ')
            return i + strspn(line + i, " ");
    return 0;
}

/* Print the item that begins here, with its further lines. Returns the end of it. */
static const char *put_item(const char *text, size_t n, size_t column, FILE *out)
{
    struct fill f = {.out = out, .indent = (int)column, .column = (int)column};

    fprintf(out, "%.*s", (int)column, text);
    put_words(&f, text + column, n - column);
    for (text += n; *text == '\n' && strspn(text + 1, " ") == column && text[1 + column]; text += n) {
        text++;
        n = strcspn(text, "\n");
        put_words(&f, text, n);
    }
    return text;
}

static const char *put_paragraph(const char *text, size_t n, FILE *out)
{
    struct fill f = {.out = out};

    put_words(&f, text, n);
    for (text += n; *text == '\n' && text[1] && !strchr(" \n", text[1]); text += n) {
        text++;
        n = strcspn(text, "\n");
        put_words(&f, text, n);
    }
    return text;
}

void page_text(const char *text, FILE *out)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        size_t column = *text == ' ' ? item_column(text, n) : 0;

        if (n && *text != ' ') {
            text = put_paragraph(text, n, out);
        } else if (column) {
            text = put_item(text, n, column, out);
        } else {
            fprintf(out, "%.*s", (int)n, text);
            text += n;
        }
        fputc('\n', out);
        text += *text == '\n';
    }
}

void page_item(const char *name, int column, const char *text, FILE *out)
{
    struct fill f = {.out = out, .indent = column, .column = column};

    if (fprintf(out, "%-*s", column, name) > column || (int)strlen(name) == column)
        fprintf(out, "\n%*s", column, "");
    put_words(&f, text, strlen(text));
    fputc('\n', out);
}

void page_comment(const char *text, FILE *out)
{
    struct fill f = {.out = out, .before = "# ", .column = 2};

    fputs(f.before, out);
    put_words(&f, text, strlen(text));
    fputc('\n', out);
}
