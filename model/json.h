/* json.h - jansson with limits, and typed reads whose errors name file and key.
 *
 * Who may call: model/ only.
 * Units: none.
 * Memory: json_parse_text's caller owns the value (json_decref); everything read from it is borrowed.
 * Errors: json_parse_text: -EFBIG, -EINVAL, -ENOMEM. A struct json_reader keeps its first error in `rc`; later reads
 *         return their fallback, so that a caller reads all keys and looks at `rc` once. */
#ifndef BLIPLINE_MODEL_JSON_H
#define BLIPLINE_MODEL_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_MAX_DEPTH = 64 };

/* Parse a whole document; size and depth are checked before any allocation, duplicate keys are refused. */
int json_parse_text(const void *data, size_t size_bytes, size_t max_bytes, const char *name, json_t **ret,
                    struct err *err) CHECK_RESULT;

struct json_reader {
    const char *file;
    const char *section; /* "vision_config.": put before keys in messages; "" at the top */
    const json_t *object;
    bool no_nulls; /* a null is an error where a value of a type is read */
    struct err *err;
    int rc;
};

/* A key that is missing or null (but see no_nulls) gives the fallback. Out of [min, max] or of another type: an
 * error. */
int64_t json_read_int(struct json_reader *r, const char *key, int64_t fallback, int64_t min, int64_t max);
double json_read_real(struct json_reader *r, const char *key, double fallback, double min, double max);
bool json_read_bool(struct json_reader *r, const char *key, bool fallback);
/* Borrowed from the document; the fallback may be NULL. */
const char *json_read_text(struct json_reader *r, const char *key, const char *fallback);
/* NULL when missing or null. `type` is JSON_OBJECT or JSON_ARRAY. */
const json_t *json_read_node(struct json_reader *r, const char *key, json_type type);
/* The value itself, any type; NULL when missing or null. */
const json_t *json_read_any(const struct json_reader *r, const char *key);
/* Set the reader's error (the first one stays). */
void json_reader_fail(struct json_reader *r, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

const char *json_type_text(const json_t *value); /* "an object", "a string", ... for messages; NULL: "nothing" */

#endif
