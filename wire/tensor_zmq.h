/* tensor_zmq.h - the private part of wire/tensor.h, for the code that sends and receives.
 * Who may call: only wire/. Memory, errors: as wire/tensor.h. */
#ifndef BLIPLINE_WIRE_TENSOR_ZMQ_H
#define BLIPLINE_WIRE_TENSOR_ZMQ_H

#include "wire/tensor.h"

#include <zmq.h>

struct wire_tensor {
    struct msg_tensor desc; /* inline_data points to inline_bytes below */
    uint64_t size_bytes, item_bytes;
    uint32_t n_frames; /* of `frames` that are initialised */
    zmq_msg_t *frames;
    uint8_t *inline_copy;
};

/* As described, frames initialised and empty: to be received into. `desc` has passed msg_unpack. */
int wire_tensor_from_desc(const struct msg_tensor *desc, struct wire_tensor **ret) CHECK_RESULT;
/* Another struct over the same bytes. */
int wire_tensor_ref(const struct wire_tensor *t, struct wire_tensor **ret) CHECK_RESULT;

#endif
