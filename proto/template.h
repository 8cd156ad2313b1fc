/* template.h - prompts with {fields} that are filled in from an item.
 *
 *   {name}    the item's field of that name; {key} is the item's key unless it has a field "key"
 *   {{ and }} a brace
 * A field with several values (a list in the item's row) gives one prompt per value. A template may have one such
 * field.
 *
 * Who may call: anyone; a parsed template is immutable.
 * Units:  bytes. A key may contain bytes that are not UTF-8: check a rendered prompt before tokenizing it.
 * Memory: a template borrows the text it was parsed from; there is nothing to free.
 * Errors: template_parse: -EINVAL, err says where. The others: -ENOENT if the item lacks a field, -EINVAL if two fields
 *         have several values, -EFBIG if the prompt is longer than ROW_MAX_CAPTION_BYTES; -ENOMEM of the buf. */
#ifndef BLIPLINE_PROTO_TEMPLATE_H
#define BLIPLINE_PROTO_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/row.h"

#include <stdbool.h>
#include <stdint.h>

enum { TEMPLATE_MAX_PARTS = 64 };

struct template_part {
    const char *text; /* not NUL-terminated; the field's name if is_field */
    uint32_t bytes;
    bool is_field;
};

struct template
{
    uint32_t n_parts;
    struct template_part parts[TEMPLATE_MAX_PARTS];
};

/* `text` must outlive `ret` unchanged. */
int template_parse(const char *text, struct template *ret, struct err *err) CHECK_RESULT;
/* True if it renders the same for every item. */
bool template_is_constant(const struct template *t);

/* How many prompts it gives for this item: at least 1. */
int template_count(const struct template *t, const struct row_item *item, uint32_t *ret_n,
                   struct err *err) CHECK_RESULT;
/* Append prompt `i`. `ret` is unchanged on failure. */
int template_render(const struct template *t, const struct row_item *item, uint32_t i, struct buf *ret,
                    struct err *err) CHECK_RESULT;

#endif
