/* recipe_pb.h - conversion of recipes to protobuf structs and back.
 *
 * Who may call: proto/ only.
 * Memory: `_to_pb` borrows from the plain struct; `_from_pb` copies.
 * Errors: -EBADMSG / -EMSGSIZE with the field's name in err. */
#ifndef BLIPLINE_PROTO_RECIPE_PB_H
#define BLIPLINE_PROTO_RECIPE_PB_H

#include "proto/recipe.h"

#include "proto/wire.pb-c.h"

struct msg_recipe_pb {
    Blipline__Recipe recipe;
    Blipline__Decode decode;
    ProtobufCBinaryData prompts[MSG_MAX_PROMPTS], text_fields[MSG_MAX_TEXT_FIELDS];
    Blipline__EmbeddingSpec embeddings[MSG_MAX_EMBEDDINGS], *embedding_list[MSG_MAX_EMBEDDINGS];
};

void msg_recipe_to_pb(const struct msg_recipe *from, struct msg_recipe_pb *to);
int msg_recipe_from_pb(const Blipline__Recipe *from, struct msg_recipe *to, struct err *err) CHECK_RESULT;

#endif
