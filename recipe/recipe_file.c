/* recipe_file.c - recipes as INI files, and what is asked of a recipe as a whole. */
#include "recipe/recipe.h"

#include "base/file.h"
#include "base/nearest.h"
#include "console/printable.h"
#include "recipe/recipe_private.h"
#include "model/utf8.h"
#include "proto/msg.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 * 1024, MAX_SECTION = 32, MAX_KEY = 40, MAX_LINE_VALUE = 120 };

/* Stands for a semicolon in quotes on its way through inih, which would begin a comment there. */
#define SEMICOLON '\x01'

/* One file being read. inih cuts its lines at the length that it was built with, so we hand it whole lines or complain;
 * it tells a continued value by the line's first byte, and so do we. */
struct reading {
    const char *at, *end;
    const char *where;
    unsigned line;
    bool continues; /* the line begins with white space */
    struct recipe *r;
    struct err *err;
    int rc;
    unsigned begun;
    unsigned seen[RECIPE_MAX_KEYS];                /* line of each key that is no list */
    char section[MAX_SECTION];                     /* the handler's last */
    char key[MAX_KEY], value[MSG_PROMPT_SIZE + 8]; /* not yet set: the next line may continue it */
    unsigned value_line;
};

static int complain(struct reading *f, unsigned line, const char *text, const char *what)
{
    if (f->rc == 0)
        f->rc = err_set(f->err, -EINVAL, "%s, line %u: %s%.160s", f->where, line, text, what);
    return 0;
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
    int number = recipe_key_number(f->key);
    size_t n = strlen(f->value);
    char where[320];

    if (f->rc < 0 || !f->key[0])
        return f->rc;
    if (f->value[0] == '"' && !strchr(f->value + 1, '"')) {
        (void)complain(f, f->value_line, "a quote that does not end: ", f->key);
        return f->rc;
    }
    if (n >= 2 && f->value[0] == '"' && f->value[n - 1] == '"') {
        memmove(f->value, f->value + 1, n - 2);
        f->value[n - 2] = '\0';
    }
    for (char *p = f->value; *p; p++)
        if (*p == SEMICOLON)
            *p = ';';
    (void)snprintf(where, sizeof(where), "%.280s, line %u", f->where, f->value_line);
    if (number >= 0 && strcmp(recipe_key_section(number), f->section) != 0)
        f->rc = recipe_key_section(number)[0]
                    ? err_set(f->err, -EINVAL, "%s: %s belongs into the section [%s]", where, f->key,
                              recipe_key_section(number))
                    : err_set(f->err, -EINVAL, "%s: %s belongs above the first section", where, f->key);
    else if (number >= 0 && !recipe_key_is_list(number) && f->seen[number])
        f->rc = err_set(f->err, -EINVAL, "%s: %s is there already, in line %u", where, f->key, f->seen[number]);
    else
        f->rc = recipe_set(f->r, f->key, f->value, where, &f->begun, f->err);
    if (f->rc == 0)
        f->seen[number] = f->value_line;
    f->key[0] = '\0';
    return f->rc;
}

static bool enter_section(struct reading *f, const char *section)
{
    if (strcmp(section, f->section) == 0)
        return true;
    if (!msg_text_set(f->section, sizeof(f->section), section) || !recipe_begin_section(f->r, section)) {
        char hint[96], what[192];

        (void)snprintf(what, sizeof(what), "%.60s%s", section, recipe_section_hint(section, hint, sizeof(hint)));
        return complain(f, f->line, "there is no section ", what);
    }
    return true;
}

/* inih calls nobody for a section without keys. */
static void note_section(struct reading *f, const char *line)
{
    char name[MAX_SECTION];
    size_t n;

    if (f->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3;
    n = strcspn(line, "]");
    if (line[0] != '[' || line[n] != ']' || flush(f) < 0)
        return;
    (void)snprintf(name, sizeof(name), "%.*s", (int)(n - 1), line + 1);
    (void)enter_section(f, name);
}

static bool is_comment(const char *line, size_t n)
{
    size_t i = 0;

    while (i < n && (line[i] == ' ' || line[i] == '\t'))
        i++;
    return i < n && (line[i] == '#' || line[i] == ';');
}

/* For ini_parse_stream: the next line, as fgets gives it. */
static char *next_line(char *to, int size, void *user)
{
    struct reading *f = user;
    const char *newline;
    size_t n;

    if (f->rc < 0 || f->at == f->end)
        return NULL;
    f->line++;
    newline = memchr(f->at, '\n', (size_t)(f->end - f->at));
    n = (size_t)((newline ? newline + 1 : f->end) - f->at);
    if (n + 2 > (size_t)size && is_comment(f->at, n)) { /* nothing is lost */
        memcpy(to, f->at, (size_t)size - 2);
        memcpy(to + size - 2, "\n", 2);
        f->at += n;
        return to;
    }
    if (n + 2 > (size_t)size) {
        (void)err_set(f->err, -EINVAL, "%s, line %u: longer than %d bytes; go on in a line that begins with spaces",
                      f->where, f->line, size - 3);
        f->rc = -EINVAL;
        return NULL;
    }
    memcpy(to, f->at, n);
    to[n] = '\0';
    hide_semicolons(to);
    f->continues = isspace((unsigned char)to[0]) && to[0] != '\r' && to[0] != '\n';
    f->at += n;
    note_section(f, to);
    return f->rc < 0 ? NULL : to;
}

/* For ini_parse_stream: a key with its value, or the continuation of the one before. */
static int take(void *user, const char *section, const char *name, const char *value)
{
    struct reading *f = user;

    if (f->rc < 0)
        return 0;
    if (f->continues && strcmp(name, f->key) == 0 && strcmp(section, f->section) == 0) {
        size_t used = strlen(f->value);
        int n = snprintf(f->value + used, sizeof(f->value) - used, "%s%s", used ? " " : "", value);

        return (size_t)n < sizeof(f->value) - used || complain(f, f->value_line, "a value that is too long: ", f->key);
    }
    if (flush(f) < 0 || !enter_section(f, section))
        return 0;
    if (!msg_text_set(f->key, sizeof(f->key), name))
        return complain(f, f->line, "there is no key ", name);
    (void)msg_text_set(f->value, sizeof(f->value), value);
    f->value_line = f->line;
    return 1;
}

int recipe_parse(const char *text, size_t bytes, const char *name, const char *where, struct recipe *ret,
                 struct err *err)
{
    struct recipe r;
    struct reading f = {.at = text, .end = text + bytes, .where = where, .r = &r, .err = err};
    int bad;

    if (memchr(text, 0, bytes) || memchr(text, SEMICOLON, bytes) || !utf8_is_valid(text, bytes))
        return err_set(err, -EINVAL, "%s: is not UTF-8 text", where);
    recipe_init(&r);
    (void)msg_text_set(r.name, sizeof(r.name), name);
    bad = ini_parse_stream(next_line, &f, take, &f);
    if (f.rc == 0 && bad > 0)
        f.rc = err_set(err, -EINVAL, "%s, line %d: neither a [section] nor \"key = value\"", where, bad);
    if (f.rc == 0 && bad < 0)
        f.rc = err_set(err, -ENOMEM, "%s: no memory", where);
    if (f.rc == 0)
        (void)flush(&f);
    if (f.rc == 0 && recipe_check(&r, RECIPE_FILE, err) < 0)
        f.rc = err_prefix(err, -EINVAL, "%s", where);
    if (f.rc == 0)
        *ret = r;
    return f.rc;
}

/* -- printing -- */

/* The end of the longest part of `text` that a line may hold, at a space that its parser gives back: one alone, with
 * nothing behind it that would begin a comment. All of it where there is no such place. */
static size_t line_part(const char *text)
{
    size_t n = strlen(text), at = n;

    for (size_t i = 1; n > MAX_LINE_VALUE && i + 1 < n && (i <= MAX_LINE_VALUE || at == n); i++)
        if (text[i] == ' ' && !isspace((unsigned char)text[i - 1]) && !isspace((unsigned char)text[i + 1]) &&
            text[i + 1] != '#')
            at = i;
    return at;
}

/* Several lines: those after the first begin with spaces. */
static int print_long_text(struct buf *ret, const char *key, const char *value, const char *quote)
{
    int rc = buf_appendf(ret, "%s = %s", key, quote);

    while (rc == 0) {
        size_t n = line_part(value);

        rc = buf_append(ret, value, n);
        value += n;
        if (!*value)
            break;
        value++; /* the space */
        if (rc == 0)
            rc = buf_appendf(ret, "\n    ");
    }
    return rc < 0 ? rc : buf_appendf(ret, "%s\n", quote);
}

/* What no file can say. */
static int print_comment(struct buf *ret, const char *key, const char *value)
{
    char shown[MSG_PROMPT_SIZE];

    return buf_appendf(ret, "# %s = %s (has line ends: only an option can say it)\n", key,
                       printable_text(value, strlen(value), shown, sizeof(shown)));
}

/* As the file's parser takes it: what it would strip or take for a comment stands in quotes. */
int recipe_print_text(struct buf *ret, const char *key, const char *value)
{
    size_t n = strlen(value);
    bool quoted = n > 0 && (isspace((unsigned char)value[0]) || isspace((unsigned char)value[n - 1]) ||
                            value[0] == '"' || strchr(value, ';'));

    if (strpbrk(value, "\r\n"))
        return print_comment(ret, key, value);
    if (n > MAX_LINE_VALUE && !strchr(value, ';')) /* quotes keep a semicolon within a line only */
        return print_long_text(ret, key, value, quoted ? "\"" : "");
    return buf_appendf(ret, quoted ? "%s = \"%s\"\n" : "%s = %s\n", key, value);
}

/* -- loading -- */

static int complain_unknown(const char *name, struct err *err)
{
    const char *words[64];
    char list[256] = "", hint[96];
    size_t n = 0;

    for (const struct recipe_builtin *b = recipe_builtins; b->name && n < 63; b++) {
        size_t used = strlen(list);

        words[n++] = b->name;
        (void)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", b->name);
    }
    words[n] = NULL;
    return err_set(err, -ENOENT, "there is no recipe %.200s: neither a file nor one of %s%s", name, list,
                   nearest_hint("", name, words, hint, sizeof(hint)));
}

int recipe_load(const char *name_or_path, struct recipe *ret, struct err *err)
{
    char name[MSG_NAME_SIZE];
    struct err file_err;
    struct buf text;
    size_t n;
    int rc;

    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++)
        if (strcmp(b->name, name_or_path) == 0)
            return recipe_parse(b->text, strlen(b->text), b->name, b->name, ret, err);
    buf_init(&text, MAX_FILE_BYTES);
    rc = file_read(name_or_path, MAX_FILE_BYTES, &text, &file_err);
    file_base_name(name_or_path, name, sizeof(name));
    n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".conf") == 0)
        name[n - 5] = '\0';
    if (rc == -ENOENT && !strchr(name_or_path, '/'))
        rc = complain_unknown(name_or_path, err);
    else if (rc < 0)
        rc = err_set(err, rc, "%s", file_err.text);
    else
        rc =
            recipe_parse(text.size_bytes ? (const char *)text.data : "", text.size_bytes, name, name_or_path, ret, err);
    buf_release(&text);
    return rc;
}

static bool keeps(const struct recipe *r, enum msg_embedding kind)
{
    for (uint32_t i = 0; i < r->n_embeddings; i++)
        if (r->embeddings[i].kind == kind)
            return true;
    return false;
}

/* A value as whoever has to change it writes it: "beams = 3" in a file, "--beams 3" on the command line. */
static const char *written(enum recipe_form form, const char *key, const char *value, char ret[64])
{
    if (form == RECIPE_FILE)
        (void)snprintf(ret, 64, "%s = %s", key, value);
    else if (strcmp(value, "yes") == 0)
        (void)snprintf(ret, 64, "--%s", key);
    else /* with "=", since some take a value or none */
        (void)snprintf(ret, 64, "--%s%s%s", key, strcmp(key, "score") == 0 ? "=" : " ", value);
    return ret;
}

static int check_texts(const struct recipe *r, enum recipe_form form, struct err *err)
{
    bool scores = (r->stages & RECIPE_SCORE) && (r->itc || r->itm);
    bool wants_texts = scores || keeps(r, MSG_EMBEDDING_ITC_TEXT);
    bool has_texts = (r->stages & RECIPE_CAPTION) || r->n_text_fields;
    char field[64], score[64], embed[64];

    (void)written(form, "text-field", "NAME", field);
    if (r->n_text_fields && !wants_texts)
        return err_set(err, -EINVAL, "%s: nothing is done with these texts; say %s too, or %s", field,
                       written(form, "score", "itc,itm", score), written(form, "embed", "itc_text", embed));
    if (wants_texts && !has_texts)
        return err_set(err, -EINVAL,
                       "there are no texts to %s: say which column of the list has them, %s (blipline help sources)",
                       scores ? "score" : "embed", field);
    return 0;
}

static int check_decoding(const struct recipe *r, enum recipe_form form, struct err *err)
{
    const struct generation_options *d = &r->decode;
    const char *dashes = form == RECIPE_FILE ? "" : "--";
    char number[16], beams[64], sample[64];

    (void)snprintf(number, sizeof(number), "%d", d->n_return);
    if (d->n_beams > 1 && d->sample)
        return err_set(err, -EINVAL, "%s with %d beams: sampling takes one beam (%s)",
                       written(form, "sample", "yes", sample), d->n_beams, written(form, "beams", "1", beams));
    if (!d->sample && d->n_return > d->n_beams)
        return err_set(err, -EINVAL, "%d captions of %d beam%s: take as many beams (%s), or draw them at random (%s)",
                       d->n_return, d->n_beams, cli_s(d->n_beams), written(form, "beams", number, beams),
                       written(form, "sample", "yes", sample));
    if (d->min_new_tokens > d->max_new_tokens)
        return err_set(err, -EINVAL, "%smin-new-tokens %d is more than %smax-new-tokens %d", dashes, d->min_new_tokens,
                       dashes, d->max_new_tokens);
    return 0;
}

int recipe_check(const struct recipe *r, enum recipe_form form, struct err *err)
{
    char embed[64];
    int rc = 0;

    if (!r->stages)
        return err_set(err, -EINVAL, "asks for nothing: a section [caption], [score] or [embed] is missing");
    if ((r->stages & RECIPE_EMBED) && r->n_embeddings == 0)
        return err_set(err, -EINVAL, "which embeddings? Say it with %s", written(form, "embed", "KIND", embed));
    if (r->stages & RECIPE_CAPTION)
        rc = check_decoding(r, form, err);
    return rc < 0 ? rc : check_texts(r, form, err);
}
