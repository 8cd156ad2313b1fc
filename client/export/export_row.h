/* export_row.h - one item of a store as a line of JSON Lines, CSV or text.
 *
 * The line depends on the stored values alone, so that two exports of the same results are equal byte by byte: no
 * times, no unit numbers, floats with the nine digits that give a float32 back.
 * Who may call: anyone. Units: none. Memory: lines are appended to the caller's buffer; rows borrow their bytes.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_CLIENT_EXPORT_EXPORT_ROW_H
#define BLIPLINE_CLIENT_EXPORT_EXPORT_ROW_H

#include "base/buf.h"
#include "client/export/export_fields.h"
#include "proto/row.h"

#include <stddef.h>
#include <stdint.h>

enum export_format { EXPORT_JSONL, EXPORT_CSV, EXPORT_TXT };

struct export_row {
    const uint8_t *key; /* any bytes */
    size_t key_bytes;
    const struct row_record *record;
    const struct msg_recipe *recipe; /* whose prompts the captions answer; NULL: prompts are left out */
    const uint32_t *picked;          /* [n_picked] captions of the record to be exported, best first; NULL: all */
    uint32_t n_picked;
    const struct row_item *listed;      /* with `fields` */
    const struct export_fields *fields; /* what is said beside; NULL: nothing */
};

int export_format_parse(const char *word, enum export_format *ret) CHECK_RESULT; /* -EINVAL */
/* What comes before the first row: the head line of CSV. */
int export_head(enum export_format format, const struct export_fields *fields, struct buf *out) CHECK_RESULT;
int export_row(enum export_format format, const struct export_row *row, struct buf *out) CHECK_RESULT;

/* {"item", "key", "caption", "logprob", "tokens"} or {"item", "key", "error": {"code", "message"}}, with "key_base64"
 * where the key is not UTF-8 ("key" then shows U+FFFD for the wrong bytes). NULL: no memory. */
struct json_t *export_row_json(const struct export_row *row);
/* Append it as one line, the way every JSON Lines file of an export is written; NULL: -ENOMEM. */
int export_json_line(const struct json_t *object, struct buf *out) CHECK_RESULT;

#endif
