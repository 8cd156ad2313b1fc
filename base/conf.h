/* conf.h - a daemon's configuration: one struct, one table.
 *
 * The table drives the parser (base/ini.h, keys without sections), the range check and --help.
 * Who may call: main, at start-up.
 * Units: durations are stored as int64_t milliseconds ("30s", "500ms", "2m", "1h"), sizes as int64_t bytes ("64MiB",
 *         "8GiB", "4096").
 * Memory: strings are copied into fixed char arrays of the struct.
 * Errors: -ENOENT, -EINVAL or -ERANGE; `err` names the file, line and key and says what was expected. */
#ifndef BLIPLINE_BASE_CONF_H
#define BLIPLINE_BASE_CONF_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum conf_type {
    CONF_TEXT,     /* char field[size]; empty is allowed unless min > 0 */
    CONF_INT,      /* int64_t */
    CONF_BOOL,     /* bool; yes/no/true/false/on/off */
    CONF_DURATION, /* int64_t, milliseconds */
    CONF_SIZE,     /* int64_t, bytes */
};

struct conf_key {
    const char *key;
    enum conf_type type;
    size_t offset;
    size_t size;               /* CONF_TEXT: size of the array */
    const char *default_value; /* as written in a file; NULL: the key is required */
    int64_t min, max;          /* numbers: in stored units; text: length. max 0: no limit */
    const char *help;
};

/* Offset and size of a field, for tables. */
#define CONF_AT(type, field) offsetof(type, field), sizeof(((type *)0)->field)

/* Fill `conf` with the defaults, then from `path` (NULL: defaults only). The table ends with a zeroed entry. */
int conf_load(const struct conf_key *table, void *conf, const char *path, struct err *err) CHECK_RESULT;
/* Set one key; the others keep their values. */
int conf_set(const struct conf_key *table, void *conf, const char *key, const char *value,
             struct err *err) CHECK_RESULT;
/* ~/.config/blipline/`name`. False: $HOME names no folder, or is too long. */
bool conf_user_path(const char *name, char ret[PATH_MAX]);
/* Print a commented example file with the defaults. */
void conf_print_help(const struct conf_key *table, FILE *out);

/* Parse a size or a duration of the command line. */
int conf_parse_size(const char *text, int64_t *ret_bytes) CHECK_RESULT;
int conf_parse_duration(const char *text, int64_t *ret_ms) CHECK_RESULT;

/* Format a size in the largest unit that divides it: 268435456 is "256MiB", 5000 is "5000 bytes". Returns `ret`. */
enum { CONF_SIZE_TEXT = 32 };
char *conf_size_text(uint64_t bytes, char ret[CONF_SIZE_TEXT]);

#endif
