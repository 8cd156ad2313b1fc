/* job_row.h - the number of a job, and its row in a broker's job table, as commands show them.
 *
 * Who may call: one thread. Units: milliseconds since 1970. Memory: json_decref frees the JSON; texts are constants.
 * Errors: see each function. */
#ifndef BLIPLINE_CLIENT_JOB_ROW_H
#define BLIPLINE_CLIENT_JOB_ROW_H

#include "base/err.h"
#include "client/progress.h"
#include "proto/stored.h"

#include <stdint.h>

struct json_t;

enum { JOB_MAX_PRIORITY = 10000 };

/* -EDOM: not the number of a job. */
int job_number_parse(const char *text, uint64_t *ret, struct err *err) CHECK_RESULT;
/* One word for people and scripts: what the job does now; one of those in JOB_ROW_STATES. */
#define JOB_ROW_STATES \
    "importing incomplete starting waiting running blocked pausing paused failed done cancelled removing"
const char *job_row_state(const struct stored_job_entry *e);
uint32_t job_row_priority(const struct stored_job_entry *e);
/* "3m07s": how long ago `then_ms` was; "?" for a time that cannot be. Returns `ret`. */
char *job_row_age(int64_t then_ms, int64_t now_ms, char ret[PROGRESS_DURATION_SIZE]);
/* NULL: no memory. */
struct json_t *job_row_json(const struct stored_job_entry *e);

#endif
