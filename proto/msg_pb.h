/* msg_pb.h - conversion of plain structs to protobuf structs and back, for the parts that wire and store share.
 *
 * Who may call: proto/ only.
 * Memory: `_to_pb` borrows from the plain struct; `_from_pb` copies.
 * Errors: -EBADMSG / -EMSGSIZE / -EINVAL with the field's name in err. */
#ifndef BLIPLINE_PROTO_MSG_PB_H
#define BLIPLINE_PROTO_MSG_PB_H

#include "proto/msg.h"

#include "proto/wire.pb-c.h"

/* "" becomes an absent field. */
ProtobufCBinaryData msg_text_to_pb(const char *text);
/* Refuses text that contains a NUL or does not fit `dst_size` with one. */
int msg_text_from_pb(char *dst, size_t dst_size, const ProtobufCBinaryData *from, const char *field,
                     struct err *err) CHECK_RESULT;
/* 16 bytes, or none. */
ProtobufCBinaryData msg_fingerprint_to_pb(const struct fingerprint *from);
int msg_fingerprint_from_pb(const ProtobufCBinaryData *from, struct fingerprint *to, struct err *err) CHECK_RESULT;
#define TEXT_FROM_PB(dst, from, field, err) msg_text_from_pb(dst, sizeof(dst), &(from), field, err)

/* None is empty. -EBADMSG: neither empty nor of 16 bytes. */
ProtobufCBinaryData msg_fingerprint_to_pb(const struct fingerprint *f);
int msg_fingerprint_from_pb(const ProtobufCBinaryData *from, struct fingerprint *to, struct err *err) CHECK_RESULT;

/* JobProgress and what it points to. */
struct msg_progress_pb {
    Blipline__JobProgress progress;
    Blipline__StageProgress stages[MSG_MAX_STAGES], *stage_list[MSG_MAX_STAGES];
    Blipline__HungWorker hung[MSG_MAX_HUNG], *hung_list[MSG_MAX_HUNG];
    Blipline__BrokerCounters broker;
};

void msg_progress_to_pb(const struct msg_job_progress *from, struct msg_progress_pb *p);
int msg_progress_from_pb(const Blipline__JobProgress *from, struct msg_job_progress *to, struct err *err) CHECK_RESULT;
void msg_fleet_query_to_pb(const struct msg_fleet_query *from, Blipline__FleetQuery *to);
void msg_fleet_query_from_pb(const Blipline__FleetQuery *from, struct msg_fleet_query *to);
void msg_fleet_to_pb(const struct msg_fleet *from, Blipline__Fleet *to);
void msg_fleet_from_pb(const Blipline__Fleet *from, struct msg_fleet *to);
int msg_fleet_check(const struct msg *m, struct err *err) CHECK_RESULT; /* of FLEET_QUERY and FLEET */
/* STORE_READ, STORE_ROWS: msg_store.c */
void msg_store_read_to_pb(const struct msg_store_read *from, Blipline__StoreRead *to);
int msg_store_read_from_pb(const Blipline__StoreRead *from, struct msg_store_read *to, struct err *err) CHECK_RESULT;
int msg_store_read_check(const struct msg_store_read *r, struct err *err) CHECK_RESULT;
void msg_store_rows_to_pb(const struct msg_store_rows *from, Blipline__StoreRows *to);
int msg_store_rows_from_pb(const Blipline__StoreRows *from, struct msg_store_rows *to, struct err *err) CHECK_RESULT;

void msg_node_to_pb(const struct msg_node *from, Blipline__Node *to);
int msg_node_from_pb(const Blipline__Node *from, struct msg_node *to, struct err *err) CHECK_RESULT;

/* Range checks, used before packing and after unpacking. */
int msg_check(const struct msg *m, struct err *err) CHECK_RESULT;
int msg_check_nodes(const struct msg_node *nodes, uint32_t n_nodes, struct err *err) CHECK_RESULT;
int msg_check_code(const char *code, struct err *err) CHECK_RESULT;

/* Codes of failures: at most MSG_MAX_RETRY_CODES. -EMSGSIZE: more; `message` is named. */
void msg_codes_to_pb(uint32_t n, const char codes[][MSG_CODE_SIZE], ProtobufCBinaryData *ret);
int msg_codes_from_pb(size_t n, const ProtobufCBinaryData *from, const char *message, uint32_t *ret_n,
                      char ret[][MSG_CODE_SIZE], struct err *err) CHECK_RESULT;
int msg_check_codes(uint32_t n, const char codes[][MSG_CODE_SIZE], const char *message, struct err *err) CHECK_RESULT;

#endif
