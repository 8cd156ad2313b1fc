#include "wire/listen.h"

#include "wire/endpoint.h"
#include "wire/socket_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

static bool uses_curve(const char *endpoint, const struct wire_keys *keys)
{
    return keys->curve && wire_endpoint_is_tcp(endpoint);
}

int listen_parse(const char *endpoints, const struct wire_keys *keys, struct listening *ret, struct err *err)
{
    static const char between[] = " \t,";
    struct listening l = {0};
    int rc;

    for (const char *at = endpoints + strspn(endpoints, between); *at; at += strspn(at, between)) {
        const size_t n = strcspn(at, between);

        if (l.n == LISTEN_MAX_ENDPOINTS || n >= LISTEN_TEXT_SIZE)
            return err_set(err, -EINVAL, "%s: at most %d endpoints of %d bytes", endpoints, LISTEN_MAX_ENDPOINTS,
                           LISTEN_TEXT_SIZE - 1);
        memcpy(l.endpoints[l.n], at, n);
        at += n;
        rc = wire_endpoint_check_bind(l.endpoints[l.n], keys, err);
        if (rc < 0)
            return rc;
        if (uses_curve(l.endpoints[l.n], keys))
            l.curve = true;
        else
            l.plain = true;
        l.n++;
    }
    if (l.n == 0)
        return err_set(err, -EINVAL, "no endpoint is given; ipc:///PATH and tcp://HOST:PORT are endpoints");
    *ret = l;
    return 0;
}

static int bind_one(void *socket, char endpoint[LISTEN_TEXT_SIZE], struct err *err)
{
    const char *path = wire_endpoint_ipc_path(endpoint);
    size_t n = LISTEN_TEXT_SIZE;
    /* IPv4 addresses without it, or they would be shown as [::ffff:127.0.0.1] */
    const bool v6 = strchr(endpoint, '[') || strncmp(endpoint, "tcp://*:", 8) == 0;
    mode_t mask;
    int rc = socket_set_int(socket, ZMQ_IPV6, v6);

    if (rc < 0)
        return err_set(err, rc, "ZeroMQ: %s", zmq_strerror(-rc));
    mask = umask(0177); /* the socket file is created 0600; no other thread creates files yet */
    rc = zmq_bind(socket, endpoint) < 0 ? errno : 0;
    (void)umask(mask);
    if (rc)
        return err_set(err, -rc, "cannot listen at %s: %s", endpoint, zmq_strerror(rc));
    if (path && chmod(path, 0600) < 0)
        return err_set(err, -errno, "cannot make %s mode 0600: %s", path, strerror(errno));
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &n) < 0)
        return err_set(err, -errno, "%s: %s", endpoint, zmq_strerror(errno));
    return 0;
}

/* Options apply to endpoints that are bound later: those without keys come first. */
int listen_bind(void *socket, const struct wire_keys *keys, struct listening *l, struct err *err)
{
    size_t at = 0;
    int rc = 0;

    for (int with_keys = 0; with_keys <= 1; with_keys++) {
        if (with_keys && l->curve && (rc = socket_set_server_keys(socket, keys)) < 0)
            return err_set(err, rc, "cannot use keys: %s", zmq_strerror(-rc));
        for (int i = 0; i < l->n; i++)
            if (uses_curve(l->endpoints[i], keys) == with_keys && (rc = bind_one(socket, l->endpoints[i], err)) < 0)
                return rc;
    }
    for (int i = 0; i < l->n; i++)
        at += (size_t)snprintf(l->text + at, sizeof(l->text) - at, "%s%s", i ? ", " : "", l->endpoints[i]);
    return 0;
}

void listen_unlink(const struct listening *l)
{
    for (int i = 0; l->text[0] && i < l->n; i++)
        if (wire_endpoint_ipc_path(l->endpoints[i]))
            (void)unlink(wire_endpoint_ipc_path(l->endpoints[i]));
}
