#include "proto/rights.h"

#include <stddef.h>

enum { NONE = MSG_RIGHT_NONE, OWN = MSG_RIGHT_OWN, ALL = MSG_RIGHT_ALL, N_ROLES = MSG_ROLE_ADMIN + 1 };

static const unsigned char rights[][N_ROLES] = {
    /*                  worker client admin */
    [MSG_HELLO] = {NONE, ALL, ALL, ALL},         [MSG_BYE] = {NONE, ALL, ALL, ALL},
    [MSG_CREDIT] = {NONE, ALL, NONE, NONE},      [MSG_RESULT] = {NONE, ALL, NONE, NONE},
    [MSG_FAILURE] = {NONE, ALL, NONE, NONE},     [MSG_RETURN] = {NONE, ALL, NONE, NONE},
    [MSG_HEARTBEAT] = {NONE, ALL, NONE, NONE},   [MSG_JOB_OPEN] = {NONE, NONE, OWN, ALL},
    [MSG_JOB_ROWS] = {NONE, NONE, OWN, ALL},     [MSG_JOB_AGAIN] = {NONE, NONE, OWN, ALL},
    [MSG_JOB_SEAL] = {NONE, NONE, OWN, ALL},     [MSG_JOB_QUERY] = {NONE, NONE, OWN, ALL},
    [MSG_JOB_STOP] = {NONE, NONE, OWN, ALL},     [MSG_JOB_CLOSE] = {NONE, NONE, OWN, ALL},
    [MSG_JOB_FIND] = {NONE, NONE, OWN, ALL},     [MSG_JOB_LIST] = {NONE, NONE, OWN, ALL},
    [MSG_JOB_CONTROL] = {NONE, NONE, OWN, ALL},  [MSG_FLEET_QUERY] = {NONE, NONE, OWN, ALL},
    [MSG_STORE_READ] = {NONE, NONE, OWN, ALL},   [MSG_JOB_PUSH] = {NONE, NONE, OWN, ALL},
    [MSG_SHUTDOWN] = {NONE, NONE, NONE, ALL},    [MSG_MODEL_OFFER] = {NONE, ALL, NONE, NONE},
    [MSG_MODEL_FILES] = {NONE, ALL, NONE, NONE}, [MSG_MODEL_LIST] = {NONE, NONE, ALL, ALL},
    [MSG_MODEL_GET] = {NONE, NONE, ALL, ALL},
};

enum msg_right msg_right(enum msg_role role, enum msg_type type)
{
    if ((size_t)role >= N_ROLES || (size_t)type >= sizeof(rights) / sizeof(rights[0]))
        return MSG_RIGHT_NONE;
    return (enum msg_right)rights[type][role];
}

const char *msg_role_name(enum msg_role role)
{
    static const char *const names[N_ROLES] = {
        [MSG_ROLE_WORKER] = "worker", [MSG_ROLE_CLIENT] = "client", [MSG_ROLE_ADMIN] = "admin"};

    return (size_t)role < N_ROLES && names[role] ? names[role] : "?";
}
