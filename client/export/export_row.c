#include "client/export/export_row.h"

#include "model/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdbool.h>
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

    if (json_object_set_new(object, "key", export_text(row->key, row->key_bytes)) < 0)
        return -ENOMEM;
    if (utf8_is_valid(row->key, row->key_bytes))
        return 0;
    code = base64(row->key, row->key_bytes);
    rc = code ? json_object_set_new(object, "key_base64", json_string(code)) : -1;
    free(code);
    return rc < 0 ? -ENOMEM : 0;
}

/* -- which captions, and what is said of each -- */

static uint32_t n_captions(const struct export_row *row)
{
    return row->picked ? row->n_picked : row->record->n_captions;
}

static const struct row_caption *caption_at(const struct export_row *row, uint32_t i)
{
    return &row->record->captions[row->picked ? row->picked[i] : i];
}

/* The words that the caption answers, where there are several or they have fields: else the recipe says it once. */
static const void *prompt_of(const struct export_row *row, const struct row_caption *c, size_t *ret_n)
{
    const char *prompt;

    *ret_n = c->prompt_text_bytes;
    if (c->prompt_text || c->given || !row->recipe || row->recipe->n_prompts < 2 || c->prompt >= row->recipe->n_prompts)
        return c->prompt_text;
    prompt = row->recipe->prompts[c->prompt];
    *ret_n = strlen(prompt);
    return prompt;
}

static int json_add_real(json_t *object, const char *key, float value)
{
    return json_object_set_new(object, key, json_real((double)value));
}

static int json_add_caption(json_t *object, const struct export_row *row, const struct row_caption *c)
{
    size_t n_prompt;
    const void *prompt = prompt_of(row, c, &n_prompt);
    int rc = json_object_set_new(object, "caption", export_text(c->text, c->text_bytes));

    if (rc == 0 && c->given)
        rc = json_object_set_new(object, "given", json_true());
    if (rc == 0 && !c->given) {
        rc = json_add_real(object, "logprob", c->logprob);
        if (rc == 0)
            rc = json_object_set_new(object, "tokens", json_integer((json_int_t)c->tokens));
    }
    if (rc == 0 && !c->given && c->score != c->logprob)
        rc = json_add_real(object, "score", c->score);
    if (rc == 0 && prompt)
        rc = json_object_set_new(object, "prompt", export_text(prompt, n_prompt));
    if (rc == 0 && c->has_itc)
        rc = json_add_real(object, "itc", c->itc);
    if (rc == 0 && c->has_itm)
        rc = json_add_real(object, "itm", c->itm);
    return rc < 0 ? -ENOMEM : 0;
}

/* The best caption's numbers in the row itself; where there are several, all of them in "captions". */
static int json_add_captions(json_t *object, const struct export_row *row)
{
    const uint32_t n = n_captions(row);
    json_t *list;
    int rc = n ? json_add_caption(object, row, caption_at(row, 0)) : 0;

    if (rc < 0 || n < 2)
        return rc;
    list = json_array();
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        json_t *one = json_object();

        rc = one ? json_add_caption(one, row, caption_at(row, i)) : -ENOMEM;
        if (json_array_append_new(list, one) < 0)
            rc = -ENOMEM;
    }
    if (json_object_set_new(object, "captions", list) < 0)
        rc = -ENOMEM;
    return rc;
}

static int json_add_error(json_t *object, const struct row_record *r)
{
    json_t *error = json_object();

    if (json_object_set_new(error, "code", json_string(r->error_code)) < 0 ||
        json_object_set_new(error, "message", export_text(r->error_message, r->error_message_bytes)) < 0) {
        json_decref(error);
        return -ENOMEM;
    }
    return json_object_set_new(object, "error", error) < 0 ? -ENOMEM : 0;
}

struct json_t *export_row_json(const struct export_row *row)
{
    const struct row_record *r = row->record;
    json_t *object = json_object();
    int rc = json_object_set_new(object, "item", json_integer((json_int_t)r->item));

    if (rc == 0)
        rc = json_add_key(object, row);
    for (uint32_t i = 0; rc == 0 && row->fields && i < row->fields->n; i++)
        rc = json_object_set_new(object, row->fields->list[i].name, export_field_value(row->fields, i, row->listed));
    if (rc == 0)
        rc = r->failed ? json_add_error(object, r) : json_add_captions(object, row);
    if (rc == 0)
        return object;
    json_decref(object);
    return NULL;
}

static int append_json(const char *text, size_t n, void *arg)
{
    return buf_append(arg, text, n);
}

int export_json_line(const struct json_t *object, struct buf *out)
{
    const size_t before = out->size_bytes;
    int rc = -ENOMEM;

    if (object && json_dump_callback(object, append_json, out, JSON_REAL_PRECISION(9)) == 0)
        rc = buf_append(out, "\n", 1);
    if (rc < 0)
        out->size_bytes = before;
    return rc;
}

static int jsonl_row(const struct export_row *row, struct buf *out)
{
    json_t *object = export_row_json(row);
    int rc = export_json_line(object, out);

    json_decref(object);
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

static int csv_number(struct buf *out, bool there, float value)
{
    return there ? buf_appendf(out, ",%.9g", (double)value) : buf_append(out, ",", 1);
}

/* caption,logprob,tokens,error_code,error_message,score,prompt,given,itc,itm; NULL: the item has none */
static int csv_caption(struct buf *out, const struct export_row *row, const struct row_caption *c)
{
    size_t n_prompt;
    const void *prompt;
    int rc;

    if (!c)
        return buf_append(out, ",,,,,,,,,", 9);
    prompt = prompt_of(row, c, &n_prompt);
    rc = csv_field(out, c->text, c->text_bytes);
    if (rc == 0)
        rc = csv_number(out, !c->given, c->logprob);
    if (rc == 0)
        rc = c->given ? buf_append(out, ",,,", 3) : buf_appendf(out, ",%" PRIu32 ",,", c->tokens);
    if (rc == 0)
        rc = csv_number(out, !c->given, c->score);
    if (rc == 0)
        rc = buf_append(out, ",", 1);
    if (rc == 0 && prompt)
        rc = csv_field(out, prompt, n_prompt);
    if (rc == 0)
        rc = buf_append(out, c->given ? ",1" : ",0", 2);
    if (rc == 0)
        rc = csv_number(out, c->has_itc, c->itc);
    return rc < 0 ? rc : csv_number(out, c->has_itm, c->itm);
}

/* A cell; null is an empty one, and a list is written as JSON. */
static int csv_value(struct buf *out, const json_t *value)
{
    char *text = NULL;
    int rc;

    if (!value || json_is_null(value))
        return value ? 0 : -ENOMEM;
    if (json_is_string(value))
        return csv_field(out, json_string_value(value), json_string_length(value));
    text = json_dumps(value, JSON_ENCODE_ANY);
    rc = text ? csv_field(out, text, strlen(text)) : -ENOMEM;
    free(text);
    return rc;
}

static int csv_fields(struct buf *out, const struct export_row *row)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && row->fields && i < row->fields->n; i++) {
        json_t *value = export_field_value(row->fields, i, row->listed);

        rc = buf_append(out, ",", 1);
        if (rc == 0)
            rc = csv_value(out, value);
        json_decref(value);
    }
    return rc;
}

static int csv_line(struct buf *out, const struct export_row *row, const struct row_caption *c)
{
    const struct row_record *r = row->record;
    int rc = buf_appendf(out, "%" PRIu64 ",", r->item);

    if (rc == 0)
        rc = csv_key(out, row);
    if (rc == 0)
        rc = buf_append(out, ",", 1);
    if (rc == 0 && r->failed) {
        rc = buf_appendf(out, ",,,%s,", r->error_code);
        if (rc == 0)
            rc = csv_field(out, r->error_message, r->error_message_bytes);
        if (rc == 0)
            rc = buf_append(out, ",,,,,", 5);
    } else if (rc == 0) {
        rc = csv_caption(out, row, c);
    }
    if (rc == 0)
        rc = csv_fields(out, row);
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

static int txt_line(struct buf *out, const struct export_row *row, const struct row_caption *c)
{
    int rc = txt_field(out, row->key, row->key_bytes);

    if (rc == 0)
        rc = buf_append(out, "\t", 1);
    if (rc == 0 && c)
        rc = txt_field(out, c->text, c->text_bytes);
    return rc < 0 ? rc : buf_append(out, "\n", 1);
}

/* A line a caption; one line for an item without any. */
static int lines(struct buf *out, const struct export_row *row,
                 int (*line)(struct buf *out, const struct export_row *row, const struct row_caption *c))
{
    const uint32_t n = row->record->failed ? 0 : n_captions(row);
    int rc = n ? 0 : line(out, row, NULL);

    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = line(out, row, caption_at(row, i));
    return rc;
}

int export_head(enum export_format format, const struct export_fields *fields, struct buf *out)
{
    static const char head[] = "item,key,key_base64,caption,logprob,tokens,error_code,error_message,score,prompt,"
                               "given,itc,itm";
    int rc;

    if (format != EXPORT_CSV)
        return 0;
    rc = buf_append(out, head, sizeof(head) - 1);
    for (uint32_t i = 0; rc == 0 && fields && i < fields->n; i++) {
        rc = buf_append(out, ",", 1);
        if (rc == 0)
            rc = csv_field(out, fields->list[i].name, strlen(fields->list[i].name));
    }
    return rc < 0 ? rc : buf_append(out, "\r\n", 2);
}

int export_row(enum export_format format, const struct export_row *row, struct buf *out)
{
    size_t before = out->size_bytes;
    int rc = format == EXPORT_JSONL ? jsonl_row(row, out) : lines(out, row, format == EXPORT_CSV ? csv_line : txt_line);

    if (rc < 0)
        out->size_bytes = before;
    return rc;
}
