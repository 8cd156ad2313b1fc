#include "model/json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Counts brackets outside strings; the parser reports text that is not JSON. */
static int depth_of(const unsigned char *p, size_t n)
{
    int depth = 0, deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < n && deepest <= JSON_MAX_DEPTH; i++) {
        if (in_string) {
            if (p[i] == '\\')
                i++;
            else if (p[i] == '"')
                in_string = false;
        } else if (p[i] == '"') {
            in_string = true;
        } else if (p[i] == '{' || p[i] == '[') {
            if (++depth > deepest)
                deepest = depth;
        } else if (p[i] == '}' || p[i] == ']') {
            depth--;
        }
    }
    return deepest;
}

int json_parse_text(const void *data, size_t size_bytes, size_t max_bytes, const char *name, json_t **ret,
                    struct err *err)
{
    json_error_t why;
    json_t *root;

    if (size_bytes > max_bytes)
        return err_set(err, -EFBIG, "%s: %zu bytes of JSON, the limit is %zu", name, size_bytes, max_bytes);
    if (depth_of(data, size_bytes) > JSON_MAX_DEPTH)
        return err_set(err, -EINVAL, "%s: JSON nested deeper than %d", name, JSON_MAX_DEPTH);
    root = json_loadb(size_bytes ? data : "", size_bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, json_error_code(&why) == json_error_out_of_memory ? -ENOMEM : -EINVAL,
                       "%s: not valid JSON, line %d: %s", name, why.line, why.text);
    *ret = root;
    return 0;
}

const char *json_type_text(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null"};

    return value ? names[json_typeof(value)] : "nothing";
}

void json_reader_fail(struct json_reader *r, const char *key, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    if (r->rc < 0)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    r->rc = err_set(r->err, -EINVAL, "%s: %s%s: %s", r->file, r->section, key, why);
}

const json_t *json_read_any(const struct json_reader *r, const char *key)
{
    const json_t *v = json_object_get(r->object, key); /* NULL object: NULL */

    return json_is_null(v) ? NULL : v;
}

/* The value for a typed read; NULL if missing, or if null is allowed and it is null. */
static const json_t *value_of(const struct json_reader *r, const char *key)
{
    return r->no_nulls ? json_object_get(r->object, key) : json_read_any(r, key);
}

int64_t json_read_int(struct json_reader *r, const char *key, int64_t fallback, int64_t min, int64_t max)
{
    const json_t *v = value_of(r, key);
    int64_t n;

    if (!v)
        return fallback;
    if (!json_is_integer(v)) {
        json_reader_fail(r, key, "is %s, expected an integer", json_type_text(v));
        return fallback;
    }
    n = json_integer_value(v);
    if (n < min || n > max) {
        json_reader_fail(r, key, "%lld is out of range, %lld to %lld", (long long)n, (long long)min, (long long)max);
        return fallback;
    }
    return n;
}

double json_read_real(struct json_reader *r, const char *key, double fallback, double min, double max)
{
    const json_t *v = value_of(r, key);
    double x;

    if (!v)
        return fallback;
    if (!json_is_number(v)) {
        json_reader_fail(r, key, "is %s, expected a number", json_type_text(v));
        return fallback;
    }
    x = json_number_value(v);
    if (!(x >= min && x <= max)) {
        json_reader_fail(r, key, "%g is out of range, %g to %g", x, min, max);
        return fallback;
    }
    return x;
}

bool json_read_bool(struct json_reader *r, const char *key, bool fallback)
{
    const json_t *v = value_of(r, key);

    if (!v)
        return fallback;
    if (!json_is_boolean(v)) {
        json_reader_fail(r, key, "is %s, expected true or false", json_type_text(v));
        return fallback;
    }
    return json_is_true(v);
}

const char *json_read_text(struct json_reader *r, const char *key, const char *fallback)
{
    const json_t *v = value_of(r, key);

    if (!v)
        return fallback;
    if (!json_is_string(v)) {
        json_reader_fail(r, key, "is %s, expected a string", json_type_text(v));
        return fallback;
    }
    return json_string_value(v);
}

const json_t *json_read_node(struct json_reader *r, const char *key, json_type type)
{
    const json_t *v = json_read_any(r, key);

    if (v && json_typeof(v) != type) {
        json_reader_fail(r, key, "is %s, expected %s", json_type_text(v),
                         type == JSON_OBJECT ? "an object" : "an array");
        return NULL;
    }
    return v;
}
