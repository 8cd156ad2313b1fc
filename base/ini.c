#include "base/ini.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <string.h>

/* Stands for a semicolon in quotes on its way through inih, which would begin a comment there. */
#define SEMICOLON '\x01'

struct reading {
    FILE *file;
    const char *where;
    const struct ini_reader *how;
    struct err *err;
    int rc;
    unsigned line, error_line;
    bool continues; /* the line begins with blanks, and that means something */
    char section[INI_SECTION_SIZE];
    char key[INI_KEY_SIZE], value[INI_VALUE_SIZE]; /* not yet given away: the next line may continue it */
    unsigned value_line;
};

static const char *place(const struct reading *f, unsigned line, char ret[320])
{
    (void)snprintf(ret, 320, "%.280s, line %u", f->where, line);
    return ret;
}

static int failed(struct reading *f, unsigned line, int rc)
{
    if (rc < 0 && f->rc == 0) {
        f->rc = rc;
        f->error_line = line;
    }
    return f->rc;
}

static int complain(struct reading *f, unsigned line, const char *text, const char *what)
{
    return f->rc < 0 ? f->rc
                     : failed(f, line, err_set(f->err, -EINVAL, "%s, line %u: %s%.160s", f->where, line, text, what));
}

static void hide_semicolons(char *line)
{
    char *first = line + strcspn(line, "=\n"), *last = strrchr(line, '"');

    first += strspn(first, "= \t");
    if (*first == '"')
        for (char *p = first; p < last; p++)
            if (*p == ';')
                *p = SEMICOLON;
}

/* The value is complete. */
static int flush(struct reading *f)
{
    size_t n = strlen(f->value);
    char at[320];

    if (f->rc < 0 || !f->key[0])
        return f->rc;
    if (f->value[0] == '"' && !strchr(f->value + 1, '"'))
        return complain(f, f->value_line, "a quote is not closed: ", f->key);
    if (n >= 2 && f->value[0] == '"' && f->value[n - 1] == '"') {
        memmove(f->value, f->value + 1, n - 2);
        f->value[n - 2] = '\0';
    }
    for (char *p = f->value; *p; p++)
        if (*p == SEMICOLON)
            *p = ';';
    (void)failed(
        f, f->value_line,
        f->how->value(f->how->arg, f->section, f->key, f->value, f->value_line, place(f, f->value_line, at), f->err));
    f->key[0] = '\0';
    return f->rc;
}

/* inih calls nobody for a section without keys, so that its line is looked at here. */
static int note_section(struct reading *f, const char *line)
{
    char name[INI_SECTION_SIZE], at[320];
    size_t n;

    if (f->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3;
    n = strcspn(line, "]");
    if (line[0] != '[' || line[n] != ']' || flush(f) < 0)
        return f->rc;
    (void)snprintf(name, sizeof(name), "%.*s", (int)(n - 1), line + 1);
    if (!f->how->section)
        return complain(f, f->line, "this file cannot have sections: ", name);
    memcpy(f->section, name, sizeof(name));
    return failed(f, f->line, f->how->section(f->how->arg, name, place(f, f->line, at), f->err));
}

/* The line does not fit. A comment is dropped, and nothing is lost. */
static int drop_or_refuse(struct reading *f, char *line, int size)
{
    const char first = line[strspn(line, " \t")];

    if (first != '#' && first != ';') {
        char what[80];

        (void)snprintf(what, sizeof(what), "%d bytes%s", size - 2,
                       f->how->continues ? "; continue on a line that begins with spaces" : "");
        return complain(f, f->line, "longer than ", what);
    }
    while (!strchr(line, '\n'))
        if (!fgets(line, size, f->file))
            break;
    (void)snprintf(line, (size_t)size, "\n");
    return 0;
}

/* For ini_parse_stream: the next line, as fgets gives it. */
static char *next_line(char *to, int size, void *user)
{
    struct reading *f = user;
    size_t n;

    if (f->rc < 0 || !fgets(to, size, f->file))
        return NULL;
    f->line++;
    n = strlen(to);
    if (n + 1 == (size_t)size && to[n - 1] != '\n' && drop_or_refuse(f, to, size) < 0)
        return NULL;
    if (strchr(to, SEMICOLON)) {
        (void)complain(f, f->line, "holds a control character", "");
        return NULL;
    }
    if (!f->how->continues) {
        n = strspn(to, " \t");
        memmove(to, to + n, strlen(to + n) + 1);
    }
    hide_semicolons(to);
    f->continues = isspace((unsigned char)to[0]) && to[0] != '\r' && to[0] != '\n';
    return note_section(f, to) < 0 ? NULL : to;
}

static bool copy(char *to, size_t size, const char *from)
{
    return (size_t)snprintf(to, size, "%s", from) < size;
}

/* For ini_parse_stream: a key with its value, or the continuation of the one before. */
static int take(void *user, const char *section, const char *name, const char *value)
{
    struct reading *f = user;

    (void)section; /* note_section has seen it */
    if (f->rc < 0)
        return 0;
    if (f->continues && strcmp(name, f->key) == 0) {
        const size_t used = strlen(f->value);
        int n = snprintf(f->value + used, sizeof(f->value) - used, "%s%s", used ? " " : "", value);

        return (size_t)n < sizeof(f->value) - used ||
               complain(f, f->value_line, "the value is too long: ", f->key) == 0;
    }
    if (flush(f) < 0)
        return 0;
    if (!copy(f->key, sizeof(f->key), name))
        return complain(f, f->line, "unknown key ", name) == 0;
    (void)copy(f->value, sizeof(f->value), value);
    f->value_line = f->line;
    return 1;
}

int ini_read(FILE *file, const char *where, const struct ini_reader *how, struct err *err)
{
    struct reading f = {.file = file, .where = where, .how = how, .err = err};
    int bad = ini_parse_stream(next_line, &f, take, &f);

    (void)flush(&f);
    if (ferror(file))
        return err_set(err, -EIO, "%s: cannot be read", where);
    if (bad < 0)
        return err_set(err, -ENOMEM, "%s: no memory", where);
    if (bad > 0 && (f.rc == 0 || (unsigned)bad < f.error_line))
        return err_set(err, -EINVAL, "%s, line %d: %s\"key = value\"", where, bad,
                       how->section ? "neither a [section] nor " : "not ");
    return f.rc;
}
