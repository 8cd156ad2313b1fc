#include "wire/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

const char *wire_endpoint_ipc_path(const char *endpoint)
{
    return has_prefix(endpoint, "ipc://") && endpoint[6] != '@' ? endpoint + 6 : NULL;
}

static int check_path(const char *path, struct err *err)
{
    if (path[0] == '\0')
        return err_set(err, -EINVAL, "ipc:// without a path");
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return err_set(err, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes; use a shorter folder", path,
                       sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    return 0;
}

bool wire_endpoint_is_tcp(const char *endpoint)
{
    return has_prefix(endpoint, "tcp://");
}

/* Addresses only: a name may be resolved to anything. */
static bool is_loopback(const char *endpoint)
{
    char host[64] = "";
    const char *at = endpoint + strlen("tcp://"), *colon = strrchr(at, ':');
    struct in6_addr v6;
    struct in_addr v4;
    size_t n;

    if (!colon)
        return false;
    at += at[0] == '[';
    n = (size_t)(colon - at);
    n -= n && at[n - 1] == ']';
    if (n >= sizeof(host))
        return false;
    memcpy(host, at, n);
    return (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) ||
           (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

static int check_tcp(const char *endpoint, const struct wire_keys *keys, struct err *err)
{
    if (keys->curve || (keys->insecure && is_loopback(endpoint)))
        return 0;
    if (keys->insecure)
        return err_set(err, -EPERM, "%s: insecure = yes is for loopback addresses (127.0.0.1, [::1]) only; give keys",
                       endpoint);
    return err_set(err, -EPERM,
                   "%s: tcp needs keys: make them with blipline keygen and set secret_key_file (blipline help keys). "
                   "Without keys use ipc:///PATH, a socket that only its owner may open",
                   endpoint);
}

static int check_kind(const char *endpoint, const struct wire_keys *keys, struct err *err)
{
    const char *path = wire_endpoint_ipc_path(endpoint);

    if (path)
        return check_path(path, err);
    if (wire_endpoint_is_tcp(endpoint))
        return check_tcp(endpoint, keys, err);
    if (!has_prefix(endpoint, "inproc://"))
        return err_set(err, -EINVAL, "%s: not an endpoint; ipc:///PATH and tcp://HOST:PORT are", endpoint);
    return 0;
}

/* ZeroMQ unlinks the path before it binds, even if it is the socket of a running broker. */
static int check_unused(const char *path, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    int fd, rc;

    if (lstat(path, &st) < 0)
        return 0; /* free, or its folder does not exist: bind reports that */
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST, "%s exists and is not a socket; choose another path", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    memcpy(a.sun_path, path, strlen(path) + 1);
    rc = connect(fd, (const struct sockaddr *)(const void *)&a, sizeof(a)) < 0 ? errno : 0;
    (void)close(fd);
    if (rc == 0 || rc == EAGAIN) /* EAGAIN: alive, with a full backlog */
        return err_set(err, -EADDRINUSE, "%s: another broker answers there; stop it, or choose another path", path);
    return 0;
}

int wire_endpoint_check_bind(const char *endpoint, const struct wire_keys *keys, struct err *err)
{
    const char *path = wire_endpoint_ipc_path(endpoint);
    int rc = check_kind(endpoint, keys, err);

    return rc < 0 || !path ? rc : check_unused(path, err);
}

int wire_endpoint_check_connect(const char *endpoint, const struct wire_keys *keys, struct err *err)
{
    return check_kind(endpoint, keys, err);
}
