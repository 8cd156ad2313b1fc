#include "client/export/export_fields.h"

#include "model/utf8.h"
#include "proto/template.h"
#include "store/reader.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool is(const char *name, const char *at, uint32_t n)
{
    return strlen(name) == n && memcmp(name, at, n) == 0;
}

/* Columns that a prompt or a text field has made the store keep. */
static bool is_of_recipe(const struct msg_recipe *recipe, const char *name, uint32_t n)
{
    for (uint32_t i = 0; i < recipe->n_text_fields; i++)
        if (is(recipe->text_fields[i], name, n))
            return true;
    for (uint32_t i = 0; i < recipe->n_prompts; i++) {
        struct template t;

        if (template_parse(recipe->prompts[i], &t, NULL) < 0)
            continue;
        for (uint32_t k = 0; k < t.n_parts; k++)
            if (t.parts[k].is_field && t.parts[k].bytes == n && memcmp(t.parts[k].text, name, n) == 0)
                return true;
    }
    return false;
}

static bool is_kept(const struct row_source *sources, uint32_t n_sources, const char *name, uint32_t n)
{
    for (uint32_t i = 0; i < n_sources; i++)
        for (uint32_t k = 0; k < sources[i].n_columns; k++)
            if (is(sources[i].columns[k], name, n))
                return true;
    return false;
}

/* What the row has by this name already. */
static bool is_taken(const char *name, uint32_t n)
{
    static const char *const names[] = {
        "item", "key", "key_base64", "caption", "captions", "logprob",    "tokens",        "score",  "prompt", "given",
        "itc",  "itm", "error",      "row",     "pending",  "error_code", "error_message", "schema", "version"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (is(names[i], name, n))
            return true;
    return false;
}

int export_fields_parse(const char *names, struct reader *r, struct export_fields *ret, struct err *err)
{
    const struct row_source *sources;
    const char *at;
    uint32_t n, n_sources;
    int rc = reader_sources(r, &sources, &n_sources, err);

    *ret = (struct export_fields){.reader = r};
    if (!names)
        names = rc == 0 && n_sources > 1 ? "source" : "";
    while (rc == 0 && field_names_next(&names, &at, &n)) {
        struct export_field *f = &ret->list[ret->n];

        if (ret->n == EXPORT_MAX_FIELDS || n >= sizeof(f->name))
            return err_set(err, -EINVAL, "--fields: more than %d fields, or a name that is too long",
                           EXPORT_MAX_FIELDS);
        if (is_taken(at, n))
            return err_set(err, -EINVAL, "--fields %.*s: every row has something else by this name", (int)n, at);
        f->kind = field_names_kind(at, n);
        if (f->kind == FIELD_COLUMN && !is_kept(sources, n_sources, at, n) &&
            !is_of_recipe(&reader_meta(r)->recipe, at, n))
            return err_set(err, -EINVAL,
                           "--fields %.*s: the store has not kept such a column; there are source, path, size, mtime, "
                           "and what `caption --fields` asked for when the list was read",
                           (int)n, at);
        (void)snprintf(f->name, sizeof(f->name), "%.*s", (int)n, at);
        ret->n++;
    }
    return rc;
}

json_t *export_text(const void *bytes, size_t n)
{
    struct buf text;
    json_t *ret = NULL;

    buf_init(&text, 0);
    if (utf8_append_lossy(&text, bytes, n) == 0)
        ret = json_stringn(text.size_bytes ? (const char *)text.data : "", text.size_bytes);
    buf_release(&text);
    return ret;
}

static json_t *time_of(int64_t ns)
{
    time_t t = (time_t)(ns / 1000000000 - (ns % 1000000000 < 0));
    char text[64], all[96];
    struct tm tm;

    if (!gmtime_r(&t, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm))
        return json_null();
    (void)snprintf(all, sizeof(all), "%s.%09dZ", text, (int)(ns - (int64_t)t * 1000000000));
    return json_string(all);
}

/* One value of the list's column is text, several are a list. */
static json_t *column_of(const struct row_item *item, const char *name)
{
    json_t *first = NULL, *list = NULL;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < item->n_fields; i++) {
        const struct row_field *f = &item->fields[i];

        if (!is(name, (const char *)f->name, f->name_bytes))
            continue;
        if (!first) {
            first = export_text(f->value, f->value_bytes);
            rc = first ? 0 : -ENOMEM;
            continue;
        }
        if (!list) {
            list = json_array();
            rc = json_array_append(list, first);
        }
        if (rc == 0)
            rc = json_array_append_new(list, export_text(f->value, f->value_bytes));
    }
    if (rc < 0 || list)
        json_decref(first);
    if (rc < 0)
        json_decref(list);
    return rc < 0 ? NULL : list ? list : first ? first : json_null();
}

json_t *export_field_value(const struct export_fields *fields, uint32_t i, const struct row_item *item)
{
    const struct row_source *source;

    switch (fields->list[i].kind) {
    case FIELD_SOURCE:
        source = reader_source(fields->reader, item->source);
        return source ? export_text(source->name, strlen(source->name)) : json_null();
    case FIELD_PATH:
        return item->path_bytes ? export_text(item->path, item->path_bytes) : json_null();
    case FIELD_SIZE:
        return item->size_bytes || item->mtime_ns ? json_integer((json_int_t)item->size_bytes) : json_null();
    case FIELD_MTIME:
        return item->mtime_ns ? time_of(item->mtime_ns) : json_null();
    case FIELD_COLUMN:
        break;
    }
    return column_of(item, fields->list[i].name);
}
