/* fake_async_ops.h - a fake asynchronous device: wraps the operators of another back end and fails the test if a caller
 * relies on more than tensor/ops.h guarantees.
 *
 * A download arrives only when it is waited for. upload_begin returns a separate buffer, which upload_end frees. A norm
 * with a consumer leaves NaN for all other readers. Between graph_begin and graph_end only calls that can be captured
 * are allowed, arrays must not change, and a key must stand for the same calls with the same pointers and shapes each
 * time. Memory from alloc is full of NaN.
 * Who may call: tests, like struct ops. Memory: fake_async_ops_new takes `inner`; ops_free frees both.
 * Errors: those of `inner`; -EIO from the call after fake_async_ops_fail_in. A violation of the contract ends the
 * process with a message. */
#ifndef BLIPLINE_TESTS_UNIT_FAKE_ASYNC_OPS_H
#define BLIPLINE_TESTS_UNIT_FAKE_ASYNC_OPS_H

#include "tensor/ops.h"

struct ops *fake_async_ops_new(struct ops *inner);

/* The size that memory() reports and that alloc counts against. 1 TiB at first. */
void fake_async_ops_set_memory(struct ops *o, size_t total_bytes);
/* The n-th call of an operator or transfer from now on fails for good, and says "the card fell off the bus". */
void fake_async_ops_fail_in(struct ops *o, int n);
/* Every second run of a key is a capture that fails: its calls do nothing, graph_end returns -EAGAIN. */
void fake_async_ops_refuse_recordings(struct ops *o);
/* How many keys were seen, and how many graphs had a key that was known. */
int fake_async_ops_n_keys(const struct ops *o);
int fake_async_ops_n_replays(const struct ops *o);
/* Downloads under way now, and the most that ever were at once. */
int fake_async_ops_n_downloads(const struct ops *o);
int fake_async_ops_most_downloads(const struct ops *o);

#endif
