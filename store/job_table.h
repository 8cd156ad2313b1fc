/* job_table.h - the jobs that a broker keeps in its state directory.
 *
 *   STATE/jobs.lmdb            one row a job (proto/store.proto, JobEntry), by its number
 *   STATE/jobs/00000042.lmdb   the store of job 42
 *
 * A job's number is one more than the largest that a row or a store has or had: short, in the order of submission, and
 * the same wherever it is shown. A new job's store is made and synced first, then its row. So after a crash there may
 * be a store without a row, which job_table_open adopts. A row without a store is kept, and its text says so. A removal
 * that was cut off is finished.
 *
 * Who may call: one thread at a time. Memory: see each function. Errors: as store.h. */
#ifndef BLIPLINE_STORE_JOB_TABLE_H
#define BLIPLINE_STORE_JOB_TABLE_H

#include "base/err.h"
#include "proto/stored.h"

#include <limits.h>
#include <stdint.h>

struct job_table;

/* What the last open found. */
struct job_table_found {
    uint32_t n_rows;      /* sound ones */
    uint32_t n_adopted;   /* stores that had no row */
    uint32_t n_set_aside; /* that cannot be read and had no row: their folders are now called NAME.set-aside */
    uint32_t n_missing;   /* rows whose store is gone */
};

/* Makes the folders where there are none (but not STATE's parent). -EBUSY: another broker has the table. */
int job_table_open(const char *state_dir, bool allow_network_fs, struct job_table **ret, struct job_table_found *found,
                   struct err *err) CHECK_RESULT;
void job_table_close(struct job_table *t); /* NULL is fine */

/* The largest number that was ever taken; 0: none. */
uint64_t job_table_last(const struct job_table *t);
int job_table_store_path(const struct job_table *t, uint64_t job, char ret[PATH_MAX], struct err *err) CHECK_RESULT;

/* Insert or replace the row. Durable when it returns 0. */
int job_table_put(struct job_table *t, const struct stored_job_entry *entry, struct err *err) CHECK_RESULT;
/* To remove a job, whose store nothing may have open: begin, which says in the row that it is REMOVED; delete the store
 * (folder_remove of ret_path, whose result is `rc` and *err); end, which removes the row. If that fails, or `rc` says
 * that the store is still there, the job stays in the table with a text; the next job_table_open tries again. */
int job_table_remove_begin(struct job_table *t, const struct stored_job_entry *entry, char ret_path[PATH_MAX],
                           struct err *err) CHECK_RESULT;
int job_table_remove_end(struct job_table *t, const struct stored_job_entry *entry, int rc,
                         struct err *err) CHECK_RESULT;
/* The row with the smallest number above `after`. 1: *ret is it; 0: there is none. -EBADMSG: it is damaged; ret->job
 * is its number. */
int job_table_next(struct job_table *t, uint64_t after, struct stored_job_entry *ret, struct err *err) CHECK_RESULT;

#endif
