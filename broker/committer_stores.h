/* committer_stores.h - the stores that the committer has open: opening, closing, reading, building keys. A damaged or
 * truncated page of a store fails the request that touches it, and no other.
 *
 * Who may call: the committer's thread. Memory: what is read belongs to the passage. Errors: in the passage's err,
 * unless another one is given. */
#ifndef BLIPLINE_BROKER_COMMITTER_STORES_H
#define BLIPLINE_BROKER_COMMITTER_STORES_H

#include "broker/committer_private.h"

/* A call that touches pages of a store. */
struct committer_call {
    struct committer *c;
    struct open_store *store; /* NULL: it is being opened */
    struct passage *passage;  /* NULL: none in particular */
    int (*make)(const struct committer_call *call);
};

/* -EIO: it touched a page that cannot be read. */
int committer_store_guarded(struct committer *c, struct open_store *o, struct passage *p,
                            int (*function)(const struct committer_call *call), struct err *err) CHECK_RESULT;

/* Its index; SIZE_MAX: the job has no store open. */
size_t committer_store_find(const struct committer *c, uint64_t job);
int committer_store_open(struct committer *c, struct passage *p) CHECK_RESULT;
int committer_store_close(struct committer *c, struct passage *p) CHECK_RESULT;
/* Builds the keys of a small store, and closes it. */
void committer_store_finish(struct committer *c, struct open_store *o);
/* Requests that are answered from what is committed. */
bool committer_store_reads(const struct committer_request *q);
int committer_store_read(struct committer *c, struct passage *p) CHECK_RESULT;

/* One step for one store. False: there is nothing to do now; committer_keys_wait_ms says how long to wait, -1: for
 * ever. */
bool committer_keys_step(struct committer *c);
int64_t committer_keys_wait_ms(const struct committer *c);

#endif
