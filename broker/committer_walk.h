/* committer_walk.h - a walk over pictures that is compared with a store while the store is written to.
 *
 * A request is compared once, in the order of the walk. It is applied in that order too, as often as it takes to commit
 * it: a transaction may be lost, and a request may wait for room on the disk.
 * Who may call: the committer's thread. Units: requests. Memory: committer_walk_end. Errors: as store.h. */
#ifndef BLIPLINE_BROKER_COMMITTER_WALK_H
#define BLIPLINE_BROKER_COMMITTER_WALK_H

#include "broker/committer.h"

/* Zeroed: there is no walk. */
struct committer_walk {
    struct compare *compare; /* NULL: no walk, or it has ended */
    uint64_t n_compared, n_applied, n_committed;
};

/* The first thing for any request, within a transaction of the store. What becomes of the rows of a COMPARE, and its
 * turn; that of a SEAL is behind those of all rows before it. Others are left alone. */
int committer_walk_compare(struct committer_walk *w, struct store *s, struct committer_request *q,
                           struct err *err) CHECK_RESULT;
/* -EAGAIN: it is not its turn. -EINVAL: nor will it ever be. */
int committer_walk_apply(struct committer_walk *w, struct store *s, const struct committer_request *q,
                         uint32_t *ret_unit, struct err *err) CHECK_RESULT;
int committer_walk_seal(struct committer_walk *w, struct store *s, const struct committer_request *q,
                        struct err *err) CHECK_RESULT;
/* The transaction was committed, or is lost. */
void committer_walk_committed(struct committer_walk *w);
void committer_walk_undo(struct committer_walk *w);
/* Requests of the walk that have not been applied will not be. */
void committer_walk_end(struct committer_walk *w);

#endif
