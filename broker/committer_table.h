/* committer_table.h - the committer's requests about the rest of the state directory: job table and models.
 *
 * Who may call: the committer's thread. Memory: what they find belongs to the passage. Errors: in the passage's err. */
#ifndef BLIPLINE_BROKER_COMMITTER_TABLE_H
#define BLIPLINE_BROKER_COMMITTER_TABLE_H

#include "broker/committer_private.h"

/* OPEN: the job's row is that of the table, or else the one of the request, which is put there. */
int committer_table_open(struct committer *c, struct passage *p) CHECK_RESULT;
/* ENTRY. COMMITTER_TABLE_LATER: a job is being removed, and committer_table_removed returns the passage. */
enum { COMMITTER_TABLE_LATER = 1 };
int committer_table_entry(struct committer *c, struct passage *p) CHECK_RESULT;
/* A removal that is over; NULL: none is, or, if it waits for one, there are none. */
struct passage *committer_table_removed(struct committer *c, bool wait);
/* LIST */
int committer_table_list(struct committer *c, struct passage *p) CHECK_RESULT;
/* MODEL */
int committer_table_model(struct committer *c, struct passage *p) CHECK_RESULT;

#endif
