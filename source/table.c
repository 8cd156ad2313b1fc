/* table.c - a list with columns as a source: each row is an item. */
#include "source/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

static const struct {
    const char *extension;
    const struct table_format *format; /* NULL: an error that names the kind */
} kinds[] = {
    {".jsonl", &table_jsonl}, {".ndjson", &table_jsonl}, {".csv", &table_csv}, {".tsv", &table_tsv}, {".json", NULL}};

/* Columns for the image's path; the first that a row has is used. */
static const char *const path_columns[] = {"path",      "image",    "image_path", "img", "file",
                                           "file_name", "filename", "filepath",   "url", "image_url"};
#define PATH_COLUMNS "path, image, image_path, img, file, file_name, filename, filepath, url, image_url or key"

static int kind_of(const char *path)
{
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot && i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcasecmp(dot, kinds[i].extension) == 0)
            return (int)i;
    return -1;
}

bool source_is_table(const char *path, const struct lines *lines)
{
    return kind_of(path) >= 0 || (lines->is_pipe && lines_first_byte(lines) == '{');
}

int source_table_refused(const char *path, struct err *err)
{
    int kind = kind_of(path);

    if (kind < 0 || kinds[kind].format)
        return 0;
    return err_set(err, -EINVAL,
                   "%.300s: a list must be JSONL, one object per line (jq -c '.[]' FILE.json > FILE.jsonl)", path);
}

int table_error(const struct table *t, int code, struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, code, "%s, line %" PRIu64 ": %s", t->lines.name, t->row_line, text);
}

int table_bad_row(struct table *t, enum image_error code, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    t->problem_code = code;
    return err_set(&t->problem, -EILSEQ, "%.100s, line %" PRIu64 ": %s", t->lines.name, t->row_line, text);
}

bool table_uses(const struct table *t, const char *column)
{
    bool used = strcmp(column, "key") == 0 || (t->wanted.picture && strcmp(column, t->wanted.picture) == 0);

    for (size_t i = 0; !t->wanted.picture && i < sizeof(path_columns) / sizeof(*path_columns); i++)
        used |= strcmp(column, path_columns[i]) == 0;
    for (uint32_t i = 0; i < t->wanted.n; i++)
        used |= strcmp(column, t->wanted.names[i]) == 0;
    return used;
}

char *table_keep(struct table *t, const char *text, size_t bytes)
{
    return arena_strndup(&t->row_bytes, text, bytes);
}

static bool is_utf8(const char *text, size_t bytes)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;

    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n = utf8proc_iterate(p + i, (utf8proc_ssize_t)(bytes - i), &cp);

        if (n <= 0)
            return false;
        i += (size_t)n;
    }
    return true;
}

/* Checks that a value is usable text. */
static int check_text(struct table *t, const char *column, const struct table_value *v)
{
    if (!is_utf8(v->text, v->bytes))
        return table_bad_row(t, IMAGE_BAD_ROW, "%.60s is not UTF-8 (iconv -f latin1 -t utf-8 converts a file)", column);
    if (memchr(v->text, 0, v->bytes) || memmem(v->text, v->bytes, TABLE_NO_CHARACTER, strlen(TABLE_NO_CHARACTER)))
        return table_bad_row(
            t, IMAGE_BAD_ROW,
            "%.60s contains an invalid character: \\u0000, or one half of a pair such as \\ud83d\\ude00", column);
    return 0;
}

/* Takes the values of wanted column k; *total: bytes of the row so far. */
static int take_column(struct table *t, uint32_t k, struct source_item *ret, size_t *total)
{
    struct table_value values[SOURCE_MAX_FIELDS];
    const char *name = t->wanted.names[k];
    uint32_t n = 0;
    int rc = t->format->get(t, name, SOURCE_MAX_FIELDS - ret->n_fields, values, &n);

    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        if (values[i].bytes > SOURCE_MAX_FIELD_BYTES || *total + values[i].bytes > SOURCE_MAX_ITEM_FIELD_BYTES)
            return table_bad_row(t, IMAGE_BAD_ROW,
                                 "%.60s has %zu bytes; the limit is %d, and %d for all used values of a row", name,
                                 values[i].bytes, SOURCE_MAX_FIELD_BYTES, SOURCE_MAX_ITEM_FIELD_BYTES);
        rc = check_text(t, name, &values[i]);
        *total += values[i].bytes;
        t->fields[ret->n_fields++] =
            (struct source_field){.name = name, .value = values[i].text, .value_bytes = values[i].bytes};
    }
    return rc;
}

static int take_fields(struct table *t, struct source_item *ret)
{
    size_t total = 0;

    for (uint32_t k = 0; k < t->wanted.n; k++) {
        const uint32_t n_before = ret->n_fields;
        const size_t before = total;
        int rc = take_column(t, k, ret, &total);

        if (rc == -EILSEQ && k >= t->wanted.n - t->wanted.n_kept) {
            t->problem_code = IMAGE_OK;
            ret->n_fields = n_before;
            ret->n_left_out++;
            total = before;
            rc = 0;
        }
        if (rc < 0)
            return rc;
    }
    ret->fields = t->fields;
    return 0;
}

static int single(struct table *t, const char *column, struct table_value *ret)
{
    uint32_t n = 0;
    int rc = t->format->get(t, column, 1, ret, &n);

    return rc < 0 ? rc : (int)n;
}

/* The column names of the loaded row, with a hint if the delimiter is probably wrong. */
static void name_columns(const struct table *t, char *ret, size_t size)
{
    const char *name, *first = t->format->name(t, 0);
    size_t used = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; (name = t->format->name(t, i)); i++) {
        int n = snprintf(ret + used, size - used, "%s\"%.40s\"", i ? ", " : "", name);

        if (n < 0 || (size_t)n + sizeof(", ...") >= size - used) {
            (void)snprintf(ret + used, size - used, "%s", size - used > sizeof(", ...") ? ", ..." : "");
            return;
        }
        used += (size_t)n;
    }
    if (first && !t->format->name(t, 1) && strpbrk(first, ";\t") && t->format != &table_jsonl)
        (void)snprintf(ret + used, size - used, " (columns are separated by %s)",
                       t->format == &table_csv ? "commas; a file with tabs is named .tsv" : "tabs");
}

void source_table_columns(const struct source *s, char *ret, size_t size)
{
    ret[0] = '\0';
    if (s->is_table)
        name_columns((const struct table *)s, ret, size);
}

static bool has_column(const struct table *t, const char *column)
{
    const char *name;

    for (uint32_t i = 0; (name = t->format->name(t, i)); i++)
        if (strcmp(name, column) == 0)
            return true;
    return false;
}

/* The row has no image column: an error of the list, unless an earlier row had one. */
static int complain_no_column(struct table *t, struct err *err)
{
    const char *want = t->wanted.picture ? t->wanted.picture : "none of " PATH_COLUMNS;
    char columns[160];

    name_columns(t, columns, sizeof(columns));
    if (t->had_picture)
        return table_bad_row(t, IMAGE_NO_PICTURE, "no picture: %s%s", t->wanted.picture ? "no " : "", want);
    return table_error(t, -EINVAL, err, "no picture: %s%.150s; there is %s (--image-column NAME names another)",
                       t->wanted.picture ? "no column " : "", want, columns[0] ? columns : "nothing");
}

/* Returns 1 if the column names an image and sets t->path, 0 if it is empty, -EILSEQ if it is not a path. */
static int look_for_picture(struct table *t, const char *column, struct table_value *ret)
{
    int rc = single(t, column, ret);

    if (rc <= 0 || ret->bytes == 0)
        return rc < 0 ? rc : 0;
    if (memchr(ret->text, 0, ret->bytes) || memmem(ret->text, ret->bytes, TABLE_NO_CHARACTER, 3))
        return table_bad_row(t, IMAGE_BAD_ROW, "%.60s: the picture's path contains an invalid character", column);
    if (lines_is_url(ret->text))
        return table_bad_row(t, IMAGE_URL, "%.200s: pictures are not downloaded; download them first", ret->text);
    if (source_join(t->lines.base, ret->text, t->path) < 0)
        return table_bad_row(t, IMAGE_BAD_ROW, "%.60s: the path would be longer than %d bytes", column, PATH_MAX - 1);
    return 1;
}

/* Uses the first image column with a path; `key` only in a row without one. If none has a path, the message names
 * the first column with another value. */
static int take_picture(struct table *t, struct table_value *ret, struct err *err)
{
    const size_t n_usual = sizeof(path_columns) / sizeof(*path_columns);
    const char *empty = NULL;
    enum image_error code = IMAGE_OK;
    struct err problem;
    struct table_value value;
    int rc = 0;

    for (size_t i = 0; rc <= 0 && i < (t->wanted.picture ? 1 : n_usual); i++) {
        const char *column = t->wanted.picture ? t->wanted.picture : path_columns[i];

        if (!has_column(t, column))
            continue;
        t->had_picture = true;
        value = (struct table_value){0};
        rc = look_for_picture(t, column, &value);
        if (rc == 0 && !empty)
            empty = column;
        if (rc > 0 || (rc < 0 && !code))
            *ret = value;
        if (rc < 0 && !code) {
            code = t->problem_code;
            problem = t->problem;
        }
    }
    t->problem_code = rc > 0 ? IMAGE_OK : code;
    if (rc > 0)
        return 0;
    if (code) {
        t->problem = problem;
        return -EILSEQ;
    }
    if (empty)
        return table_bad_row(t, IMAGE_NO_PICTURE, "%.60s is empty; no picture is named", empty);
    if (t->wanted.picture || !has_column(t, "key"))
        return complain_no_column(t, err);
    t->had_picture = true;
    rc = look_for_picture(t, "key", ret);
    return rc > 0 ? 0 : rc < 0 ? rc : table_bad_row(t, IMAGE_NO_PICTURE, "key is empty; no picture is named");
}

/* The row's own key, else `picture`, else the line number. */
static int take_key(struct table *t, const struct table_value *picture, struct source_item *ret)
{
    struct table_value key = {0};
    int rc = single(t, "key", &key);

    if (rc < 0 || key.bytes == 0)
        key = *picture;
    if (rc == 0 && key.bytes > PATH_MAX)
        rc = table_bad_row(t, IMAGE_BAD_ROW, "the key has %zu bytes; the limit is %d", key.bytes, PATH_MAX);
    if (key.bytes == 0 || key.bytes > PATH_MAX || memchr(key.text, 0, key.bytes)) {
        (void)snprintf(t->key, sizeof(t->key), "line %" PRIu64, t->row_line);
        key = (struct table_value){.text = t->key, .bytes = strlen(t->key)};
    }
    ret->key = key.text;
    ret->key_bytes = key.bytes;
    return rc < 0 ? rc : 0;
}

/* If only the row is invalid, t->problem holds the reason. */
static int take_row(struct table *t, struct source_item *ret, struct err *err)
{
    struct table_value picture = {0};
    int rc = t->problem_code ? -EILSEQ : take_picture(t, &picture, err);

    if (rc < 0 && rc != -EILSEQ)
        return rc;
    if (rc < 0) {
        const enum image_error code = t->problem_code;
        const struct err problem = t->problem;

        (void)take_key(t, &picture, ret);
        t->problem_code = code; /* the first problem is reported */
        t->problem = problem;
        return rc;
    }
    ret->path = t->path;
    ret->path_bytes = strlen(t->path);
    rc = take_key(t, &picture, ret);
    return rc < 0 ? rc : take_fields(t, ret);
}

static int table_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct table *t = (struct table *)s;
    struct source_item item = {0};
    int rc;

    arena_reset(&t->row_bytes);
    t->problem_code = IMAGE_OK;
    rc = t->format->next(t, err);
    if (rc == 0 || (rc < 0 && rc != -EILSEQ))
        return rc;
    rc = take_row(t, &item, err);
    if (rc < 0 && rc != -EILSEQ)
        return rc;
    if (t->problem_code)
        item = (struct source_item){.key = item.key,
                                    .key_bytes = item.key_bytes,
                                    .path = "",
                                    .problem_code = t->problem_code,
                                    .problem = t->problem.text};
    else if (t->examine)
        source_examine(&item);
    *ret = item;
    return 1;
}

static void table_free(struct source *s)
{
    struct table *t = (struct table *)s;

    t->format->end(t);
    lines_close(&t->lines);
    arena_release(&t->row_bytes);
    free(t);
}

int source_table_open(const char *path, const struct lines *lines, const struct source_columns *wanted, bool examine,
                      struct source **ret, struct err *err)
{
    struct table *t = calloc(1, sizeof(*t));
    int kind = kind_of(path), rc;

    if (!t) {
        struct lines taken = *lines;

        lines_close(&taken);
        return err_set(err, -ENOMEM, "%.300s: no memory", path);
    }
    t->source.next = table_next;
    t->source.free = table_free;
    t->source.is_table = true;
    t->format = kind < 0 ? &table_jsonl : kinds[kind].format;
    t->lines = *lines;
    t->examine = examine;
    t->row_line = 1;
    if (wanted)
        t->wanted = *wanted;
    arena_init(&t->row_bytes, 0);
    rc = t->format->begin(t, err);
    if (rc < 0) {
        table_free(&t->source);
        return rc;
    }
    *ret = &t->source;
    return 0;
}
