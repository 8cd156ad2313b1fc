/* stored_pb.h - stored values to and from protobuf structs, with their checksum.
 *
 * Who may call: proto/ only. Memory, errors: as stored.h. */
#ifndef BLIPLINE_PROTO_STORED_PB_H
#define BLIPLINE_PROTO_STORED_PB_H

#include "proto/stored.h"

#include <protobuf-c/protobuf-c.h>

/* Append `value`, whose crc32 field is 0 and hence not packed, and its checksum. */
int stored_append_pb(struct buf *out, const ProtobufCMessage *value) CHECK_RESULT;
/* Check the checksum and unpack into `memory`. */
int stored_unpack_pb(struct row_memory *memory, const ProtobufCMessageDescriptor *kind, const void *data,
                     size_t n_bytes, ProtobufCMessage **ret, struct err *err) CHECK_RESULT;

#endif
