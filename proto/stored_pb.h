/* stored_pb.h - generated messages as values of the store, with their checksum. Inside proto/ only; who may call,
 * memory and errors: as stored.h. */
#ifndef BLIPLINE_PROTO_STORED_PB_H
#define BLIPLINE_PROTO_STORED_PB_H

#include "proto/stored.h"

#include <protobuf-c/protobuf-c.h>

/* Append `value` (its crc32 field is 0, so nothing of it is packed) and the checksum over it. */
int stored_append_pb(struct buf *out, const ProtobufCMessage *value) CHECK_RESULT;
/* Check, then unpack a value of ordinary size into `memory`. */
int stored_unpack_pb(struct row_memory *memory, const ProtobufCMessageDescriptor *kind, const void *data,
                     size_t n_bytes, ProtobufCMessage **ret, struct err *err) CHECK_RESULT;

#endif
