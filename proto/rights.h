/* rights.h - which role may send which message; proto/README.md has the same table.
 *
 * Who may call: anyone, from any thread. Memory: static. Errors: none. */
#ifndef BLIPLINE_PROTO_RIGHTS_H
#define BLIPLINE_PROTO_RIGHTS_H

#include "proto/msg.h"

enum msg_right {
    MSG_RIGHT_NONE,
    MSG_RIGHT_OWN, /* about jobs of the sender only */
    MSG_RIGHT_ALL,
};

/* Also for messages that do not exist: MSG_RIGHT_NONE. */
enum msg_right msg_right(enum msg_role role, enum msg_type type);
/* "worker", "client", "admin" */
const char *msg_role_name(enum msg_role role);

#endif
