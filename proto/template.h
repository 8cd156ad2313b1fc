/* template.h - a prompt with {fields} of an item, and the prompts that it becomes.
 *
 *   {name}    the item's field of that name; {key} is the item's key, unless it has a field "key"
 *   {{ and }} a brace
 * A field with several values (a list in the item's row) gives one prompt a value; one such field a template.
 *
 * Who may call: anyone; a parsed template is immutable.
 * Units:  bytes. Text is UTF-8 by contract, but a key may be any bytes: who tokenizes a rendered prompt checks it.
 * Memory: a template borrows the text that it was parsed from; nothing to free, nothing is allocated but by the buf.
 * Errors: template_parse -EINVAL, the text says where. Of an item: -ENOENT it has no such field, -EINVAL two fields
 *         with several values, -EFBIG the prompt is longer than ROW_MAX_CAPTION_BYTES; -ENOMEM of the buf. */
#ifndef BLIPLINE_PROTO_TEMPLATE_H
#define BLIPLINE_PROTO_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stdint.h>

enum { TEMPLATE_MAX_PARTS = 64 };

struct template_part {
    const char *text; /* not NUL-terminated; a field's name where is_field */
    uint32_t bytes;
    bool is_field;
};

struct template
{
    uint32_t n_parts;
    struct template_part parts[TEMPLATE_MAX_PARTS];
};

/* `text` must outlive `ret`, as it stands. */
int template_parse(const char *text, struct template *ret, struct err *err) CHECK_RESULT;
/* It is the same for every item. */
bool template_is_constant(const struct template *t);

/* How many prompts it becomes for this item: at least 1. */
int template_count(const struct template *t, const struct row_item *item, uint32_t *ret_n,
                   struct err *err) CHECK_RESULT;
/* Append prompt `i` of them. A call that fails leaves `ret` as it was. */
int template_render(const struct template *t, const struct row_item *item, uint32_t i, struct buf *ret,
                    struct err *err) CHECK_RESULT;

#endif
