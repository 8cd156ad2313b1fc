/* payloads.h - the contents of results: tensors, kept until their last consumer is done; records, until the commit.
 *
 * Who may call: the loop's thread. Memory: a zeroed table is empty; it owns its payloads. Errors: see payloads_add. */
#ifndef BLIPLINE_BROKER_PAYLOADS_H
#define BLIPLINE_BROKER_PAYLOADS_H

#include "broker/core_table.h"
#include "broker/records.h"
#include "wire/tensor.h"

#include <stdint.h>

struct payload {
    struct wire_tensor *tensor; /* NULL: none, or dropped */
    struct records records;
};

struct payloads {
    struct core_map by_handle;
    uint64_t last_handle;
};

/* Takes the tensor, which may be NULL, and the records, and returns a handle. 0: no memory; nothing is taken. */
uint64_t payloads_add(struct payloads *all, struct wire_tensor *tensor, struct records *records);
/* NULL: it was dropped. */
struct payload *payloads_find(const struct payloads *all, uint64_t handle);
void payloads_drop_tensor(struct payloads *all, uint64_t handle);
void payloads_drop(struct payloads *all, uint64_t handle);
void payloads_release(struct payloads *all);

#endif
