/* tensor.h - a tensor that travels: its description and reference-counted frames, which are never copied.
 *
 * Frames are <= 8 MiB, cut on item boundaries. The producer hashes once (wire_tensor_new); a relay adds the same tensor
 * to any number of messages without touching its bytes; the consumer gathers and verifies in one pass.
 * Who may call: any thread, one at a time for one struct wire_tensor.
 * Units:  bytes; host memory, little endian, row-major.
 * Memory: wire_tensor_new keeps `data` borrowed until `release(arg)` is called, which happens once, after the last
 * message with these bytes has been freed, possibly in a thread of ZeroMQ: it must be thread-safe and must not block.
 *         The bytes must not change until then.
 * Errors: -EBADMSG for bytes that disagree with their description, -EINVAL for another dtype or shape than wanted,
 *         -EMSGSIZE past a limit, -ENOMEM; err says which. */
#ifndef BLIPLINE_WIRE_TENSOR_H
#define BLIPLINE_WIRE_TENSOR_H

#include "base/err.h"
#include "proto/msg.h"

#include <stddef.h>
#include <stdint.h>

struct wire_tensor;

/* Hash `data` and wrap it; its size follows from dtype and shape (shape[0] = items). At most 4 KiB travel inside the
 * envelope (release is then called before this returns). `release` may be NULL: the bytes are copied.
 * On failure `release` has not been called. -EMSGSIZE when one item passes 8 MiB. */
int wire_tensor_new(enum dtype dtype, const uint32_t *shape, uint32_t n_dims, const void *data,
                    void (*release)(void *arg), void *arg, struct wire_tensor **ret, struct err *err) CHECK_RESULT;
/* Frees the struct and its references; the bytes live on in messages that carry them. NULL is fine. */
void wire_tensor_free(struct wire_tensor *t);

/* dtype, shape, transport, hash, number of frames. Valid as long as `t`. */
const struct msg_tensor *wire_tensor_desc(const struct wire_tensor *t);
uint64_t wire_tensor_size_bytes(const struct wire_tensor *t);
/* Frame i (INLINE: one frame), to read it in place after wire_tensor_verify. */
const uint8_t *wire_tensor_frame(const struct wire_tensor *t, uint32_t i, size_t *ret_bytes);
uint32_t wire_tensor_n_frames(const struct wire_tensor *t);

/* Check dtype, shape (a 0 in `shape` matches any number; shape NULL: any shape) and hash. */
int wire_tensor_verify(const struct wire_tensor *t, enum dtype dtype, const uint32_t *shape, uint32_t n_dims,
                       struct err *err) CHECK_RESULT;

#endif
