/* select.h - which of an item's captions are good enough: the filter of the paper's CapFilt, on stored scores.
 *
 * Who may call: anyone; pure functions. Units: itc -1 to 1, itm 0 to 1 (a probability), logprob natural logarithms.
 * Memory: indices into the record, nothing is copied. Errors: none. */
#ifndef BLIPLINE_CLIENT_EXPORT_SELECT_H
#define BLIPLINE_CLIENT_EXPORT_SELECT_H

#include "proto/row.h"

#include <stdbool.h>
#include <stdint.h>

enum select_order {
    SELECT_AS_STORED, /* generated ones by prompt and rank, then those that came with the item */
    SELECT_BY_ITM,
    SELECT_BY_ITC,
    SELECT_BY_LOGPROB, /* of the whole caption; texts that came with the item have none and are last */
};

struct select_options {
    enum select_order order; /* best first; the order of the store decides between equals */
    bool want_itm, want_itc; /* drop what has no such score or a lower one */
    double min_itm, min_itc;
    uint32_t max_per_image; /* 0: all */
    bool dedup_text;        /* of equal texts the first in this order */
    bool generated_only, given_only;
};

bool select_is_filter(const struct select_options *o); /* anything else than all, as stored */
/* Returns how many captions of the record are left; their numbers in `ret`. */
uint32_t select_captions(const struct select_options *o, const struct row_record *record,
                         uint32_t ret[ROW_MAX_CAPTIONS]);

#endif
