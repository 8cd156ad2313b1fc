#include "wire/gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int gate_open(struct gate *g, const struct wire_keys *keys, const struct listening *l, const char *authorized,
              void (*warn)(const char *text), struct err *err)
{
    struct allowed *copy;
    int rc;

    *g = (struct gate){.keys = *keys, .plain = l->plain, .warn = warn};
    if (!l->curve)
        return 0;
    if (!authorized || !authorized[0])
        return err_set(err, -EINVAL, "authorized_keys is missing: the folder of the keys that may connect by tcp");
    g->authorized = strdup(authorized);
    if (!g->authorized)
        return err_set(err, -ENOMEM, "no memory for keys");
    rc = allowed_load(g->authorized, warn, &g->allowed, err);
    if (rc < 0)
        return rc;
    copy = allowed_copy(g->allowed);
    return copy ? zap_start(copy, &g->zap, err) : err_set(err, -ENOMEM, "no memory for keys");
}

void gate_release(struct gate *g)
{
    zap_stop(&g->zap);
    allowed_free(g->allowed);
    free(g->authorized);
    wire_keys_wipe(&g->keys);
    *g = (struct gate){0};
}

int gate_reload(struct gate *g, struct err *err)
{
    struct allowed *fresh, *copy;
    int rc;

    if (!g->zap)
        return 0;
    rc = allowed_load(g->authorized, g->warn, &fresh, err);
    if (rc < 0)
        return rc;
    copy = allowed_copy(fresh);
    if (!copy) {
        allowed_free(fresh);
        return err_set(err, -ENOMEM, "no memory for keys");
    }
    zap_replace(g->zap, copy);
    allowed_free(g->allowed);
    g->allowed = fresh;
    return 0;
}

bool gate_identify(const struct gate *g, struct peer *p)
{
    struct ucred user = {.uid = geteuid()}; /* only this user and root can open the ipc sockets */
    const struct allowed_key *key;
    socklen_t n = sizeof(user);

    if (p->routing.user[0]) {
        key = g->allowed ? allowed_find_id(g->allowed, p->routing.user) : NULL;
        if (key) {
            p->role = key->role;
            memcpy(p->name, key->name, sizeof(p->name));
        }
        return key != NULL;
    }
    (void)getsockopt(p->routing.fd, SOL_SOCKET, SO_PEERCRED, &user, &n);
    p->role = MSG_ROLE_ADMIN;
    (void)snprintf(p->name, sizeof(p->name), "uid:%u", user.uid);
    return g->plain;
}

bool gate_allows(const struct gate *g, const struct peer *p)
{
    return !p->routing.user[0] || (g->allowed && allowed_find_id(g->allowed, p->routing.user));
}
