#include "broker/failures.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { N_CODES = sizeof(((struct failures *)0)->codes) / sizeof(struct failed_code) };

void failures_note(struct failures *f, uint32_t unit, uint32_t item, const struct row_record *record)
{
    const int n = (int)(record->error_message_bytes < sizeof(f->text) ? record->error_message_bytes : sizeof(f->text));

    for (size_t i = 0; i < N_CODES; i++) {
        if (f->codes[i].code[0] && strcmp(f->codes[i].code, record->error_code) != 0)
            continue;
        (void)msg_text_set(f->codes[i].code, sizeof(f->codes[i].code), record->error_code);
        f->codes[i].n++;
        break;
    }
    f->unit = unit;
    f->item = item;
    (void)snprintf(f->text, sizeof(f->text), "%.*s", n, n ? (const char *)record->error_message : "");
}

static void append(char *text, const char *more)
{
    const size_t used = strlen(text);

    (void)snprintf(text + used, MSG_TEXT_SIZE - used, "%s", more);
}

/* "; the last one is /photos/a.jpg: no such file" */
static void add_last(const struct failures *f, const struct unit_rows *unit, char *text)
{
    struct row_cursor cursor;
    struct row_frame frame;
    struct row_item item;
    char line[512];

    if (!unit)
        return;
    frame = (struct row_frame){unit->bytes + unit_rows_start(unit, f->item),
                               unit->ends[f->item] - unit_rows_start(unit, f->item)};
    row_cursor_init(&cursor, &frame, 1, 1);
    if (row_cursor_next_item(&cursor, &item, NULL) == 1) {
        (void)snprintf(line, sizeof(line), "; the last one is %.200s: %.200s", (const char *)item.path, f->text);
        append(text, line);
    }
    row_cursor_release(&cursor);
}

void failures_explain(const struct failures *f, const struct unit_rows *last, uint64_t n_failed, uint64_t n_finished,
                      const char *given_up, char text[MSG_TEXT_SIZE])
{
    char line[96];

    if (n_finished)
        (void)snprintf(text, MSG_TEXT_SIZE, "%" PRIu64 " of %" PRIu64 " items failed", n_failed, n_finished);
    else
        (void)snprintf(text, MSG_TEXT_SIZE, "%" PRIu64 " items in a row failed", n_failed);
    if (given_up) {
        append(text, "; no worker could do the last of them: ");
        append(text, given_up);
    }
    append(text, f->codes[0].code[0] ? " (in this run: " : "");
    for (size_t i = 0; i < N_CODES && f->codes[i].code[0]; i++) {
        (void)snprintf(line, sizeof(line), "%s%" PRIu64 " %s", i ? ", " : "", f->codes[i].n, f->codes[i].code);
        append(text, line);
    }
    if (f->codes[0].code[0]) {
        append(text, ")");
        add_last(f, last, text);
    }
}
