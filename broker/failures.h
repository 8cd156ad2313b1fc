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
    } codes[8];          /* "": free; further codes are not counted */
    uint32_t unit, item; /* the item that failed last, counted within its unit */
    char text[256];      /* its message */
};

void failures_note(struct failures *f, uint32_t unit, uint32_t item, const struct row_record *record);
/* Write why the core paused the job. `last`: the unit of the item that failed last; NULL: it is not in memory.
 * `given_up`: why no worker could do that item; NULL: a worker reported the failure itself. */
void failures_explain(const struct failures *f, const struct unit_rows *last, uint64_t n_failed, uint64_t n_finished,
                      const char *given_up, char text[MSG_TEXT_SIZE]);

#endif
