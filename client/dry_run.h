/* dry_run.h - --dry-run: shows what would be computed, and for how many pictures.
 *
 * Who may call: caption.c, once -o is checked. Units: none. Memory: none. Errors: negative errno and `err`. */
#ifndef BLIPLINE_CLIENT_DRY_RUN_H
#define BLIPLINE_CLIENT_DRY_RUN_H

#include "client/caption.h"
#include "job/feed.h"
#include "console/terminal.h"

/* `there`: the store is. `columns`: names of the plan's fields. */
int dry_run(const struct caption_options *o, struct feed *f, const char *const *columns, bool there, struct terminal *s,
            struct err *err) CHECK_RESULT;

#endif
