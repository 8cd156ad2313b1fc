/* late_ops.h - operators that behave like a device behind the host, over any others, and that end the test where a caller
 * relies on less than tensor/ops.h promises.
 *
 * Downloads that were started arrive when they are waited for and not before; memory for uploads is another than where
 * they go, and gone after upload_end; a norm with a consumer leaves NaN behind for everybody else; between graph_begin and
 * graph_end only what may be recorded is allowed, arrays must stay as they are, and a key must mean the same calls with the
 * same pointers and shapes each time. What alloc gives is full of NaN.
 * Who may call: tests, like struct ops. Memory: late_ops_new takes `inner`; ops_free frees both.
 * Errors: those of `inner`; -EIO from the call after late_ops_fail_in. A broken promise ends the process with a message. */
#ifndef BLIPLINE_TESTS_UNIT_LATE_OPS_H
#define BLIPLINE_TESTS_UNIT_LATE_OPS_H

#include "tensor/ops.h"

struct ops *late_ops_new(struct ops *inner);

/* What memory() answers; alloc counts against it. At first 1 TiB. */
void late_ops_set_memory(struct ops *o, size_t total_bytes);
/* The n-th call of an operator or transfer from now on fails for good, and says "the card fell off the bus". */
void late_ops_fail_in(struct ops *o, int n);
/* Every second run of a key is taken for a recording that does not succeed: its calls do nothing, graph_end is -EAGAIN. */
void late_ops_refuse_recordings(struct ops *o);
/* Keys of passes that were seen, and passes that had been seen before. */
int late_ops_n_keys(const struct ops *o);
int late_ops_n_replays(const struct ops *o);
/* Downloads under way now, and the most there ever were. */
int late_ops_n_downloads(const struct ops *o);
int late_ops_most_downloads(const struct ops *o);

#endif
