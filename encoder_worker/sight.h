/* sight.h - can this worker see the folder that a unit's pictures are in? If not, the pictures are not missing: the
 * file system is not mounted on this host, for instance.
 *
 * Who may call: the compute thread; may block on the file system.
 * Units: -
 * Memory: nothing is kept.
 * Errors: see the function. */
#ifndef BLIPLINE_ENCODER_WORKER_SIGHT_H
#define BLIPLINE_ENCODER_WORKER_SIGHT_H

#include "encoder_worker/encoder_unit.h"

/* Call when all pictures are decoded. False: pictures failed since the root of their source cannot be seen; *ret_unseen
 * says which and why. A root that is an empty folder cannot be seen: a mount point looks like that. */
bool sight_check(const struct unit *u, struct err *ret_unseen) CHECK_RESULT;

#endif
