/* source_notes.h - messages about the sources of a run: changed, unusable and redone items.
 *
 * Who may call: caption.c. Units: none. Memory: none. Errors: none. */
#ifndef BLIPLINE_CLIENT_SOURCE_NOTES_H
#define BLIPLINE_CLIENT_SOURCE_NOTES_H

#include "client/caption.h"
#include "job/feed.h"
#include "console/terminal.h"

/* Call after the walk. `columns`: names of the plan's fields. */
void source_notes(const struct feed *f, const struct msg_compared *compared, const struct caption_options *o,
                  const char *const *columns, struct terminal *s);
/* Call before items are redone. */
void source_notes_again(const struct msg_compared *compared, const struct caption_options *o, struct terminal *s);

#endif
