/* table_jsonl.c - JSON Lines: an object a line. */
#include "source/table.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int jsonl_begin(struct table *t, struct err *err)
{
    (void)t;
    (void)err;
    return 0;
}

static void jsonl_end(struct table *t)
{
    json_decref(t->state);
    t->state = NULL;
}

static int jsonl_next(struct table *t, struct err *err)
{
    json_error_t e;
    int rc;

    jsonl_end(t);
    do {
        t->row_line = t->line_number + 1;
        rc = table_read_line(t, err);
        if (rc <= 0)
            return rc;
    } while (strspn(t->line, " \t\r\n") == t->line_bytes);
    t->state = json_loadb(t->line, t->line_bytes, JSON_REJECT_DUPLICATES, &e);
    if (!t->state)
        return json_error_code(&e) == json_error_null_character || json_error_code(&e) == json_error_null_byte_in_key
                   ? table_error(t, -EINVAL, err, "holds a NUL character (\\u0000), which no text may have")
                   : table_error(t, -EINVAL, err, "not a JSON object: %.160s", e.text);
    if (!json_is_object((json_t *)t->state))
        return table_error(t, -EINVAL, err,
                           "not a JSON object but another value; a line looks like {\"path\": \"a.jpg\"}");
    return 1;
}

/* A value as text; *ret_n stays as it is for null. */
static int add(struct table *t, const char *column, const json_t *v, struct table_value *ret, uint32_t *ret_n,
               struct err *err)
{
    char *text = NULL;

    if (json_is_null(v))
        return 0;
    if (json_is_string(v)) {
        ret[(*ret_n)++] = (struct table_value){.text = json_string_value(v), .bytes = json_string_length(v)};
        return 0;
    }
    if (json_is_object(v) || json_is_array(v))
        return table_error(t, -EINVAL, err, "%.60s is neither text, a number, nor a list of such", column);
    text = json_dumps(v, JSON_ENCODE_ANY);
    if (!text)
        return table_error(t, -ENOMEM, err, "no memory");
    ret[*ret_n] = (struct table_value){.text = table_keep(t, text, strlen(text)), .bytes = strlen(text)};
    free(text);
    if (!ret[*ret_n].text)
        return table_error(t, -ENOMEM, err, "no memory");
    (*ret_n)++;
    return 0;
}

static int jsonl_get(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n,
                     struct err *err)
{
    const json_t *v = json_object_get(t->state, column);
    int rc = 0;

    if (!v || (max == 0 && json_is_null(v)))
        return 0;
    if ((json_is_array(v) ? json_array_size(v) : 1) > max)
        return table_error(t, -EINVAL, err, "%.60s: too many values in this row (%u are left for this column)", column,
                           max);
    if (!json_is_array(v))
        return add(t, column, v, ret, ret_n, err);
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++)
        rc = add(t, column, json_array_get(v, i), ret, ret_n, err);
    return rc;
}

static const char *jsonl_name(const struct table *t, uint32_t i)
{
    void *at = json_object_iter(t->state);

    while (at && i-- > 0)
        at = json_object_iter_next(t->state, at);
    return at ? json_object_iter_key(at) : NULL;
}

const struct table_format table_jsonl = {jsonl_begin, jsonl_next, jsonl_get, jsonl_name, jsonl_end};
