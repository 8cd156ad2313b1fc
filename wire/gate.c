#include "wire/gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Read the folder; the copy is for the zap's thread. */
static int load(const struct gate *g, struct allowed **ret, struct allowed **ret_copy, struct err *err)
{
    struct allowed *list;
    int rc = allowed_load(g->authorized, g->warn, &list, err);

    if (rc < 0)
        return rc;
    *ret_copy = allowed_copy(list);
    if (!*ret_copy) {
        allowed_free(list);
        return err_set(err, -ENOMEM, "no memory for keys");
    }
    *ret = list;
    return 0;
}

int gate_open(struct gate *g, const struct wire_keys *keys, const struct listening *l, const char *authorized,
              void (*warn)(const char *text), struct err *err)
{
    struct allowed *copy = NULL;
    int rc;

    *g = (struct gate){.keys = *keys, .plain = l->plain, .warn = warn};
    if (!l->curve)
        return 0;
    if (!authorized || !authorized[0])
        return err_set(err, -EINVAL, "authorized_keys is missing: the folder of the keys that may connect by tcp");
    g->authorized = strdup(authorized);
    if (!g->authorized)
        return err_set(err, -ENOMEM, "no memory for keys");
    rc = load(g, &g->allowed, &copy, err);
    return rc < 0 ? rc : zap_start(copy, &g->zap, err);
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
    struct allowed *fresh = NULL, *copy = NULL;
    int rc;

    if (!g->zap)
        return 0;
    rc = load(g, &fresh, &copy, err);
    if (rc < 0)
        return rc;
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
