/* failures.h - which items of a job failed in this run, so that a pause can be explained.
 *
 * Who may call: the loop's thread. Memory: a zeroed struct knows of none. Errors: none. */
#ifndef BLIPLINE_BROKER_FAILURES_H
#define BLIPLINE_BROKER_FAILURES_H

#include "broker/load.h"
#include "proto/row.h"

#include <stdint.h>

struct failures {
    struct failed_code {
        char code[MSG_CODE_SIZE];
        uint64_t n;
    } codes[8];          /* "": free; those that find no place are not counted */
    uint32_t unit, item; /* the last one, counted within its unit */
    char text[256];      /* what it said */
};

void failures_note(struct failures *f, uint32_t unit, uint32_t item, const struct row_record *record);
/* Why the core paused the job. `last`: the unit of the last one, NULL where it is not in hand; `given_up`: why no
 * worker could do the last one, NULL: one could. */
void failures_explain(const struct failures *f, const struct unit_rows *last, uint64_t n_failed, uint64_t n_finished,
                      const char *given_up, char text[MSG_TEXT_SIZE]);

#endif
