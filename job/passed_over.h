/* passed_over.h - counts of files that walks over folders did not take, by kind, as text and as JSON.
 *
 * Who may call: anyone. Units: files, links, folders. Memory: plain values. Errors: see each. */
#ifndef BLIPLINE_JOB_PASSED_OVER_H
#define BLIPLINE_JOB_PASSED_OVER_H

#include "proto/row_source.h"
#include "source/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_t;

struct passed_over {
    uint32_t n;
    struct row_passed kinds[ROW_SOURCE_MAX_PASSED];
};

void passed_over_of_walk(const struct source_skipped *from, struct passed_over *ret);
/* Add the counts of a stored source. */
void passed_over_add(struct passed_over *p, const struct row_source *source);
/* True if pictures may be missing, for example because a folder could not be read. */
bool passed_over_is_incomplete(const struct passed_over *p);
/* "other names 3, hidden names 1"; "" for nothing. Returns `ret`. */
char *passed_over_words(const struct passed_over *p, char *ret, size_t size);
/* {"other_names": 3, "hidden": 1}. NULL: no memory. */
struct json_t *passed_over_json(const struct passed_over *p);

#endif
