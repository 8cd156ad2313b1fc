/* job_row.h - the number of a job, and its row in a broker's job table, as commands show them.
 *
 * Who may call: one thread. Units: milliseconds since 1970. Memory: json_decref frees the JSON; texts are constants.
 * Errors: see each function. */
#ifndef BLIPLINE_CLIENT_JOB_ROW_H
#define BLIPLINE_CLIENT_JOB_ROW_H

#include "base/err.h"
#include "proto/stored.h"

#include <stdint.h>

struct json_t;

enum { JOB_MAX_PRIORITY = 10000 };

/* -EDOM: not the number of a job. */
int job_number_parse(const char *text, uint64_t *ret, struct err *err) CHECK_RESULT;
/* One word for people and scripts: what the job does now. */
const char *job_row_state(const struct stored_job_entry *e);
uint32_t job_row_priority(const struct stored_job_entry *e);
/* NULL: no memory. */
struct json_t *job_row_json(const struct stored_job_entry *e);

#endif
