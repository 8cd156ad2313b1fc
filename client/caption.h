/* caption.h - one run of `blipline caption`, `score` or `embed`: it starts broker and workers, gives them the job, and
 * waits until the store is finished.
 *
 *   caption.c         the sequence: start the daemons, import the pictures, watch, stop, report
 *   caption_import.c  opens the job; import.c sends the pictures
 *   job_view.c        the progress
 *   store_check.c     checks of -o before anything starts
 *   dry_run.c         --dry-run; plan_show.c prints the plan
 *   source_notes.c    messages about the sources
 *   report.c          messages at the end
 * It uses job/ (the messages to the broker and the pictures) and local/ (the processes).
 *
 * Who may call: cmd_caption, once.
 * Units:  seconds and items. Memory: nothing is kept or left in the temporary folder.
 * Errors: returns the exit code; errors have been printed on standard error. */
#ifndef BLIPLINE_CLIENT_CAPTION_H
#define BLIPLINE_CLIENT_CAPTION_H

#include "client/job_options.h"
#include "local/place.h"
#include "store/compare.h"

#include <stdbool.h>
#include <stdint.h>

struct caption_options {
    struct job_options job;
    const char *store;
    const struct placement *placement;  /* of the plan */
    struct msg_comparison again;        /* which items of the store to redo */
    int64_t max_pixels, max_file_bytes; /* of a picture; 0: the encoder's own limits */
    bool check;                         /* check every page of an existing store */
    bool json, verbose, dry_run;
};

int caption_run(const struct caption_options *o);

#endif
