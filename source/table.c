/* table.c - a list with columns as a source: one row an item. */
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
    const struct table_format *format; /* NULL: refused by name */
} kinds[] = {
    {".jsonl", &table_jsonl}, {".ndjson", &table_jsonl}, {".csv", &table_csv}, {".tsv", &table_tsv}, {".json", NULL}};

/* Where the picture is, the first that a row has. */
static const char *const path_columns[] = {"path", "image", "file", "file_name", "filename", "key"};

static int kind_of(const char *path)
{
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot && i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcasecmp(dot, kinds[i].extension) == 0)
            return (int)i;
    return -1;
}

bool source_is_table(const char *path)
{
    return kind_of(path) >= 0;
}

int table_error(const struct table *t, int code, struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, code, "%s, line %" PRIu64 ": %s", t->name, t->row_line, text);
}

char *table_keep(struct table *t, const char *text, size_t bytes)
{
    return arena_strndup(&t->row_bytes, text, bytes);
}

int table_read_line(struct table *t, struct err *err)
{
    static const char bom[] = "\xef\xbb\xbf";
    size_t n = 0;
    int c;

    t->line_number++;
    while ((c = getc_unlocked(t->file)) != EOF) {
        if (n == SOURCE_MAX_ROW_BYTES)
            return table_error(t, -EFBIG, err, "longer than %d bytes", SOURCE_MAX_ROW_BYTES);
        t->line[n++] = (char)c;
        if (c == '\n')
            break;
        if (c == '\0')
            return table_error(t, -EINVAL, err, "holds a NUL byte, is this a text file?");
    }
    if (c == EOF && ferror(t->file))
        return table_error(t, -EIO, err, "cannot read: %s", strerror(errno));
    if (t->line_number == 1 && n >= 3 && memcmp(t->line, bom, 3) == 0) {
        n -= 3;
        memmove(t->line, t->line + 3, n);
    }
    t->line[n] = '\0';
    t->line_bytes = n;
    return n > 0 || c != EOF;
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

/* The values of the wanted columns. */
static int take_fields(struct table *t, struct source_item *ret, struct err *err)
{
    size_t total = 0;

    for (uint32_t k = 0; k < t->wanted.n; k++) {
        struct table_value values[SOURCE_MAX_FIELDS];
        const char *name = t->wanted.names[k];
        uint32_t n = 0;
        int rc = t->format->get(t, name, SOURCE_MAX_FIELDS - ret->n_fields, values, &n, err);

        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < n; i++) {
            if (values[i].bytes > SOURCE_MAX_FIELD_BYTES || total + values[i].bytes > SOURCE_MAX_ITEM_FIELD_BYTES)
                return table_error(t, -EFBIG, err,
                                   "%.60s has %zu bytes; the limits are %d, and %d for all that is used of a row", name,
                                   values[i].bytes, SOURCE_MAX_FIELD_BYTES, SOURCE_MAX_ITEM_FIELD_BYTES);
            if (!is_utf8(values[i].text, values[i].bytes))
                return table_error(t, -EINVAL, err, "%.60s is not UTF-8 (iconv -f latin1 -t utf-8 converts a file)",
                                   name);
            total += values[i].bytes;
            t->fields[ret->n_fields++] =
                (struct source_field){.name = name, .value = values[i].text, .value_bytes = values[i].bytes};
        }
    }
    ret->fields = t->fields;
    return 0;
}

static int single(struct table *t, const char *column, struct table_value *ret, struct err *err)
{
    uint32_t n = 0;
    int rc = t->format->get(t, column, 1, ret, &n, err);

    return rc < 0 ? rc : (int)n;
}

/* "a", "b", ... of the loaded row, and a guess where a delimiter went unnoticed. */
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
    name_columns((const struct table *)s, ret, size);
}

/* Path and key. */
static int take_name(struct table *t, struct source_item *ret, struct err *err)
{
    struct table_value path, key;
    char columns[160];
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(path_columns) / sizeof(*path_columns); i++)
        rc = single(t, path_columns[i], &path, err);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        bool url = single(t, "url", &path, err) > 0;

        name_columns(t, columns, sizeof(columns));
        return table_error(
            t, -EINVAL, err, "no picture: none of path, image, file, file_name, filename, key%s; there is %s",
            url ? " (url is not fetched: download the pictures first)" : "", columns[0] ? columns : "nothing");
    }
    if (path.bytes == 0)
        return table_error(t, -EINVAL, err, "the picture's path is empty");
    if (strstr(path.text, "://"))
        return table_error(t, -EINVAL, err, "%.200s: pictures are not fetched over the network, download them first",
                           path.text);
    if (source_join(t->base, path.text, t->path) < 0)
        return table_error(t, -ENAMETOOLONG, err, "the path would be longer than %d bytes", PATH_MAX - 1);
    rc = single(t, "key", &key, err);
    if (rc < 0)
        return rc;
    if (rc == 0 || key.bytes == 0)
        key = path;
    if (key.bytes > PATH_MAX)
        return table_error(t, -EINVAL, err, "a key of %zu bytes, the limit is %d", key.bytes, PATH_MAX);
    ret->key = key.text;
    ret->key_bytes = key.bytes;
    ret->path = t->path;
    ret->path_bytes = strlen(t->path);
    return 0;
}

static int table_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct table *t = (struct table *)s;
    struct source_item item = {0};
    int rc;

    arena_reset(&t->row_bytes);
    rc = t->format->next(t, err);
    if (rc <= 0)
        return rc;
    rc = take_name(t, &item, err);
    if (rc == 0)
        rc = take_fields(t, &item, err);
    if (rc < 0)
        return rc;
    if (t->examine)
        source_examine(&item);
    *ret = item;
    return 1;
}

static void table_free(struct source *s)
{
    struct table *t = (struct table *)s;

    t->format->end(t);
    if (t->file)
        (void)fclose(t->file);
    arena_release(&t->row_bytes);
    free(t->line);
    free(t);
}

int source_table_open(const char *path, const struct source_columns *wanted, bool examine, struct source **ret,
                      struct err *err)
{
    int kind = kind_of(path), rc;
    struct table *t;

    if (!kinds[kind].format)
        return err_set(err, -EINVAL, "%.300s: a list is JSONL, one object a line (jq -c '.[]' FILE.json > FILE.jsonl)",
                       path);
    t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, -ENOMEM, "%.300s: no memory", path);
    t->source.next = table_next;
    t->source.free = table_free;
    t->format = kinds[kind].format;
    t->examine = examine;
    t->row_line = 1;
    if (wanted)
        t->wanted = *wanted;
    arena_init(&t->row_bytes, 0);
    (void)snprintf(t->name, sizeof(t->name), "%s", path);
    t->line = malloc(SOURCE_MAX_ROW_BYTES + 2);
    rc = t->line ? source_list_file(path, &t->file, t->base, err) : err_set(err, -ENOMEM, "%.300s: no memory", path);
    if (rc == 0)
        rc = t->format->begin(t, err);
    if (rc < 0) {
        table_free(&t->source);
        return rc;
    }
    *ret = &t->source;
    return 0;
}
