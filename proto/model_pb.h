/* model_pb.h - MODEL_OFFER, MODEL_WANT, MODEL_FILES, MODEL_LIST, MODEL_LISTED and MODEL_GET.
 *
 * Who may call: proto/ only. Memory: borrows from the plain struct. Errors: as msg.h. */
#ifndef BLIPLINE_PROTO_MODEL_PB_H
#define BLIPLINE_PROTO_MODEL_PB_H

#include "proto/msg.h"

#include "proto/wire.pb-c.h"

union model_message_pb {
    Blipline__ModelOffer offer;
    Blipline__ModelWant want;
    Blipline__ModelFiles files;
    Blipline__ModelList list;
    Blipline__ModelListed listed;
    Blipline__ModelGet get;
};

void model_message_to_pb(const struct msg *m, union model_message_pb *p, Blipline__Envelope *ret);
int model_message_check(const struct msg *m, struct err *err) CHECK_RESULT;

#endif
