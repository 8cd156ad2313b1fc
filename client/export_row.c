#include "client/export_row.h"

#include "model/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[] = {"jsonl", "csv", "txt"};

int export_format_parse(const char *word, enum export_format *ret)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret = (enum export_format)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Bytes of any kind as UTF-8 text. */
static json_t *json_text(const void *bytes, size_t n)
{
    struct buf text;
    json_t *ret = NULL;

    buf_init(&text, 0);
    if (utf8_append_lossy(&text, bytes, n) == 0)
        ret = json_stringn(text.size_bytes ? (const char *)text.data : "", text.size_bytes);
    buf_release(&text);
    return ret;
}

static char *base64(const uint8_t *bytes, size_t n)
{
    size_t size = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
    char *ret = malloc(size);

    if (ret)
        (void)sodium_bin2base64(ret, size, bytes, n, sodium_base64_VARIANT_ORIGINAL);
    return ret;
}

static int json_add_key(json_t *object, const struct export_row *row)
{
    char *code;
    int rc;

    if (json_object_set_new(object, "key", json_text(row->key, row->key_bytes)) < 0)
        return -ENOMEM;
    if (utf8_is_valid(row->key, row->key_bytes))
        return 0;
    code = base64(row->key, row->key_bytes);
    rc = code ? json_object_set_new(object, "key_base64", json_string(code)) : -1;
    free(code);
    return rc < 0 ? -ENOMEM : 0;
}

static int json_add_caption(json_t *object, const struct row_caption *c)
{
    if (json_object_set_new(object, "caption", json_text(c->text, c->text_bytes)) < 0 ||
        json_object_set_new(object, "logprob", json_real((double)c->logprob)) < 0 ||
        json_object_set_new(object, "tokens", json_integer((json_int_t)c->tokens)) < 0)
        return -ENOMEM;
    return 0;
}

static int json_add_error(json_t *object, const struct row_record *r)
{
    json_t *error = json_object();

    if (json_object_set_new(error, "code", json_string(r->error_code)) < 0 ||
        json_object_set_new(error, "message", json_text(r->error_message, r->error_message_bytes)) < 0) {
        json_decref(error);
        return -ENOMEM;
    }
    return json_object_set_new(object, "error", error) < 0 ? -ENOMEM : 0;
}

struct json_t *export_row_json(const struct export_row *row)
{
    static const struct row_caption none = {.text = (const uint8_t *)""};
    const struct row_record *r = row->record;
    json_t *object = json_object();
    int rc = json_object_set_new(object, "item", json_integer((json_int_t)r->item));

    if (rc == 0)
        rc = json_add_key(object, row);
    if (rc == 0)
        rc = r->failed ? json_add_error(object, r) : json_add_caption(object, r->n_captions ? r->captions : &none);
    if (rc == 0)
        return object;
    json_decref(object);
    return NULL;
}

static int append_json(const char *text, size_t n, void *arg)
{
    return buf_append(arg, text, n);
}

static int jsonl_row(const struct export_row *row, struct buf *out)
{
    size_t before = out->size_bytes;
    json_t *object = export_row_json(row);
    int rc = -ENOMEM;

    if (object && json_dump_callback(object, append_json, out, JSON_REAL_PRECISION(9)) == 0)
        rc = buf_append(out, "\n", 1);
    json_decref(object);
    if (rc < 0)
        out->size_bytes = before;
    return rc;
}

/* A field in quotes where RFC 4180 wants them. */
static int csv_field(struct buf *out, const void *bytes, size_t n)
{
    struct buf text;
    int rc;

    buf_init(&text, 0);
    rc = utf8_append_lossy(&text, bytes, n);
    if (rc == 0) {
        bool plain = true;

        for (size_t i = 0; i < text.size_bytes; i++)
            plain = plain && !strchr(",\"\r\n", text.data[i] ? text.data[i] : '\n');
        if (plain)
            rc = buf_append(out, text.data, text.size_bytes);
        else
            rc = buf_append(out, "\"", 1);
        for (size_t i = 0; rc == 0 && !plain && i < text.size_bytes; i++)
            rc = buf_append(out, text.data[i] == '"' ? "\"\"" : (const char *)&text.data[i],
                            text.data[i] == '"' ? 2 : 1);
        if (rc == 0 && !plain)
            rc = buf_append(out, "\"", 1);
    }
    buf_release(&text);
    return rc;
}

static int csv_key(struct buf *out, const struct export_row *row)
{
    char *code;
    int rc = csv_field(out, row->key, row->key_bytes);

    if (rc == 0)
        rc = buf_append(out, ",", 1);
    if (rc < 0 || utf8_is_valid(row->key, row->key_bytes))
        return rc;
    code = base64(row->key, row->key_bytes);
    rc = code ? buf_append(out, code, strlen(code)) : -ENOMEM;
    free(code);
    return rc;
}

/* item,key,key_base64,caption,logprob,tokens,error_code,error_message */
static int csv_row(const struct export_row *row, struct buf *out)
{
    const struct row_record *r = row->record;
    int rc = buf_appendf(out, "%" PRIu64 ",", r->item);

    if (rc == 0)
        rc = csv_key(out, row);
    if (rc == 0)
        rc = buf_append(out, ",", 1);
    if (rc < 0)
        return rc;
    if (r->failed) {
        rc = buf_appendf(out, ",,,%s,", r->error_code);
        if (rc == 0)
            rc = csv_field(out, r->error_message, r->error_message_bytes);
    } else if (r->n_captions) {
        rc = csv_field(out, r->captions[0].text, r->captions[0].text_bytes);
        if (rc == 0)
            rc = buf_appendf(out, ",%.9g,%" PRIu32 ",,", (double)r->captions[0].logprob, r->captions[0].tokens);
    } else {
        rc = buf_append(out, ",,,,", 4);
    }
    return rc < 0 ? rc : buf_append(out, "\r\n", 2);
}

/* The bytes as they are, but a tab, a line end and a backslash as \t, \n, \r and \\. */
static int txt_field(struct buf *out, const uint8_t *bytes, size_t n)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *escaped = bytes[i] == '\t'   ? "\\t"
                              : bytes[i] == '\n' ? "\\n"
                              : bytes[i] == '\r' ? "\\r"
                              : bytes[i] == '\\' ? "\\\\"
                                                 : NULL;

        rc = escaped ? buf_append(out, escaped, 2) : buf_append(out, &bytes[i], 1);
    }
    return rc;
}

static int txt_row(const struct export_row *row, struct buf *out)
{
    const struct row_record *r = row->record;
    int rc = txt_field(out, row->key, row->key_bytes);

    if (rc == 0)
        rc = buf_append(out, "\t", 1);
    if (rc == 0 && !r->failed && r->n_captions)
        rc = txt_field(out, r->captions[0].text, r->captions[0].text_bytes);
    return rc < 0 ? rc : buf_append(out, "\n", 1);
}

int export_head(enum export_format format, struct buf *out)
{
    static const char head[] = "item,key,key_base64,caption,logprob,tokens,error_code,error_message\r\n";

    return format == EXPORT_CSV ? buf_append(out, head, sizeof(head) - 1) : 0;
}

int export_row(enum export_format format, const struct export_row *row, struct buf *out)
{
    size_t before = out->size_bytes;
    int rc = format == EXPORT_JSONL ? jsonl_row(row, out)
             : format == EXPORT_CSV ? csv_row(row, out)
                                    : txt_row(row, out);

    if (rc < 0)
        out->size_bytes = before;
    return rc;
}
