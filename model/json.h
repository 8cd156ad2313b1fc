/* json.h - JSON parsing with limits (jansson), and typed reads whose errors name file and key.
 *
 * Who may call: model/ only.
 * Units: none.
 * Memory: the caller owns json_parse_text's value (json_decref); everything read from it is borrowed.
 * Errors: json_parse_text: -EFBIG, -EINVAL, -ENOMEM. A struct json_reader keeps its first error in `rc`; later reads
 *         return their fallback, so callers read all keys and check `rc` once. */
#ifndef BLIPLINE_MODEL_JSON_H
#define BLIPLINE_MODEL_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_MAX_DEPTH = 64 };

/* Parses a whole document. Size and depth are checked before allocation; duplicate keys are an error. */
int json_parse_text(const void *data, size_t size_bytes, size_t max_bytes, const char *name, json_t **ret,
                    struct err *err) CHECK_RESULT;

struct json_reader {
    const char *file;
    const char *section; /* "vision_config.": prefix of keys in messages; "" at the top */
    const json_t *object;
    bool no_nulls; /* typed reads treat null as an error */
    struct err *err;
    int rc;
};

/* Return the fallback for a missing or null key (but see no_nulls). Another type, or a value outside [min, max], is
 * an error. */
int64_t json_read_int(struct json_reader *r, const char *key, int64_t fallback, int64_t min, int64_t max);
double json_read_real(struct json_reader *r, const char *key, double fallback, double min, double max);
bool json_read_bool(struct json_reader *r, const char *key, bool fallback);
/* Borrowed from the document; the fallback may be NULL. */
const char *json_read_text(struct json_reader *r, const char *key, const char *fallback);
/* NULL if missing or null. `type` is JSON_OBJECT or JSON_ARRAY. */
const json_t *json_read_node(struct json_reader *r, const char *key, json_type type);
/* The value of any type; NULL if missing or null. */
const json_t *json_read_any(const struct json_reader *r, const char *key);
/* Sets the reader's error unless it already has one. */
void json_reader_fail(struct json_reader *r, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

const char *json_type_text(const json_t *value); /* "an object", "a string", ... for messages; NULL: "nothing" */

#endif
