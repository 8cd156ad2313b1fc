/* recipe_file.c - reads and writes recipes as INI files; checks a recipe as a whole. */
#include "recipe/recipe.h"

#include "base/file.h"
#include "base/ini.h"
#include "base/nearest.h"
#include "console/printable.h"
#include "recipe/recipe_private.h"
#include "model/utf8.h"
#include "proto/msg.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 * 1024, MAX_LINE_VALUE = 120 };

struct reading {
    struct recipe *r;
    unsigned begun;
    unsigned seen[RECIPE_MAX_KEYS]; /* line of each key that is no list */
};

static int begin_section(void *arg, const char *name, const char *at, struct err *err)
{
    char hint[96];

    if (recipe_begin_section(((struct reading *)arg)->r, name))
        return 0;
    return err_set(err, -EINVAL, "%s: unknown section %s%s", at, name, recipe_section_hint(name, hint, sizeof(hint)));
}

static int take(void *arg, const char *section, const char *key, const char *value, unsigned line, const char *at,
                struct err *err)
{
    struct reading *f = arg;
    const int number = recipe_key_number(key);
    const char *belongs = number >= 0 ? recipe_key_section(number) : "";
    int rc;

    if (number >= 0 && strcmp(belongs, section) != 0)
        return belongs[0] ? err_set(err, -EINVAL, "%s: %s belongs in section [%s]", at, key, belongs)
                          : err_set(err, -EINVAL, "%s: %s belongs above the first section", at, key);
    if (number >= 0 && !recipe_key_is_list(number) && f->seen[number])
        return err_set(err, -EINVAL, "%s: %s is already set in line %u", at, key, f->seen[number]);
    rc = recipe_set(f->r, key, value, at, &f->begun, err);
    if (rc == 0)
        f->seen[number] = line;
    return rc;
}

_Static_assert((int)INI_VALUE_SIZE > (int)MSG_PROMPT_SIZE, "the longest prompt fits, with its quotes");

int recipe_parse(const char *text, size_t bytes, const char *name, const char *where, struct recipe *ret,
                 struct err *err)
{
    struct recipe r;
    struct reading f = {.r = &r};
    const struct ini_reader how = {.continues = true, .section = begin_section, .value = take, .arg = &f};
    FILE *file;
    int rc = 0;

    if (memchr(text, 0, bytes) || !utf8_is_valid(text, bytes))
        return err_set(err, -EINVAL, "%s: is not UTF-8 text", where);
    recipe_init(&r);
    (void)msg_text_set(r.name, sizeof(r.name), name);
    file = fmemopen((void *)(uintptr_t)text, bytes, "r");
    if (!file)
        return err_set(err, -ENOMEM, "%s: no memory", where);
    rc = ini_read(file, where, &how, err);
    (void)fclose(file);
    if (rc == 0 && recipe_check(&r, RECIPE_FILE, err) < 0)
        rc = err_prefix(err, -EINVAL, "%s", where);
    if (rc == 0)
        *ret = r;
    return rc;
}

/* -- printing -- */

/* The end of the longest part of `text` that fits a line. It ends at a single space that does not precede a comment
 * character, because the parser restores only such spaces. Without one: the end of `text`. */
static size_t line_part(const char *text)
{
    size_t n = strlen(text), at = n;

    for (size_t i = 1; n > MAX_LINE_VALUE && i + 1 < n && (i <= MAX_LINE_VALUE || at == n); i++)
        if (text[i] == ' ' && !isspace((unsigned char)text[i - 1]) && !isspace((unsigned char)text[i + 1]) &&
            text[i + 1] != '#')
            at = i;
    return at;
}

/* Writes several lines; all but the first begin with spaces. */
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

/* For values that a file cannot hold. */
static int print_comment(struct buf *ret, const char *key, const char *value)
{
    char shown[MSG_PROMPT_SIZE];

    return buf_appendf(ret, "# %s = %s (contains line ends: only possible as an option)\n", key,
                       printable_text(value, strlen(value), shown, sizeof(shown)));
}

/* Quotes a value if the parser would strip parts of it or take them for a comment. */
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

/* The value as the user writes it: "beams = 3" in a file, "--beams 3" on the command line. */
static const char *written(enum recipe_form form, const char *key, const char *value, char ret[64])
{
    if (form == RECIPE_FILE)
        (void)snprintf(ret, 64, "%s = %s", key, value);
    else if (strcmp(value, "yes") == 0)
        (void)snprintf(ret, 64, "--%s", key);
    else /* with "=" because the value is optional */
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
        return err_set(err, -EINVAL, "%s: these texts would not be used; add %s or %s", field,
                       written(form, "score", "itc,itm", score), written(form, "embed", "itc_text", embed));
    if (wants_texts && !has_texts)
        return err_set(
            err, -EINVAL,
            "there are no texts to %s: name the column of the list that has them with %s (blipline help sources)",
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
        return err_set(err, -EINVAL, "%d captions from %d beam%s: use as many beams (%s), or sampling (%s)",
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
        return err_set(err, -EINVAL, "no embeddings are named: add %s", written(form, "embed", "KIND", embed));
    if (r->stages & RECIPE_CAPTION)
        rc = check_decoding(r, form, err);
    return rc < 0 ? rc : check_texts(r, form, err);
}
