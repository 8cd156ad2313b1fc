/* source_notes.h - messages about the sources of a run: changed, unusable and redone items.
 *
 * Who may call: one thread. Units: none. Memory: none. Errors: none. */
#ifndef BLIPLINE_CLIENT_SOURCE_NOTES_H
#define BLIPLINE_CLIENT_SOURCE_NOTES_H

#include "client/caption.h"
#include "client/import.h"
#include "console/terminal.h"

/* Call after the walk. `store`: its name in messages. */
void source_notes(const struct import *i, const struct msg_compared *compared, const char *store);
/* Call before items are redone. */
void source_notes_again(const struct msg_compared *compared, const struct caption_options *o, struct terminal *s);

#endif
