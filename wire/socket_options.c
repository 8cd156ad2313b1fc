#include "wire/socket_options.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#include "wire/context.h"
#include "wire/zap.h"

enum { HWM = 16, MAX_FRAME_BYTES = 16 << 20, HANDSHAKE_MS = 5000, MAX_RETRANSMISSION_MS = 30000 };

struct option {
    int option, value;
};

int socket_set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_all(void *socket, const struct option *options, size_t n)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = socket_set_int(socket, options[i].option, options[i].value);
    return rc;
}

#define SET_ALL(socket, options) set_all(socket, options, sizeof(options) / sizeof(*(options)))

/* No ZMTP heartbeats (ZMQ_HEARTBEAT_IVL): libzmq 4.3.4 aborts ("Assertion failed: !_io_error") when one falls due for a
 * peer that has disconnected and left more unread messages than ZMQ_RCVHWM; answering one can crash it, too. TCP's own
 * keep-alive finds dead hosts instead. */
int socket_set_common(void *socket)
{
    static const struct option options[] = {
        {ZMQ_SNDHWM, HWM},
        {ZMQ_RCVHWM, HWM},
        {ZMQ_LINGER, WIRE_LINGER_MS},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_IPV6, 1},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10},
        {ZMQ_TCP_KEEPALIVE_CNT, 3},
        {ZMQ_TCP_MAXRT, MAX_RETRANSMISSION_MS},
    };
    int64_t max_frame = MAX_FRAME_BYTES;
    int rc = SET_ALL(socket, options);

    if (rc < 0)
        return rc;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_frame, sizeof(max_frame)) < 0 ? -errno : 0;
}

/* Keys as text have their NUL counted. */
static int set_key(void *socket, int option, const char key[KEY_TEXT_SIZE])
{
    return zmq_setsockopt(socket, option, key, KEY_TEXT_SIZE) < 0 ? -errno : 0;
}

int socket_set_server_keys(void *socket, const struct wire_keys *keys)
{
    int rc = socket_set_int(socket, ZMQ_CURVE_SERVER, 1);

    if (rc == 0 && zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN)) < 0)
        rc = -errno;
    return rc < 0 ? rc : set_key(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key);
}

int socket_set_client_keys(void *socket, const struct wire_keys *keys)
{
    int rc = set_key(socket, ZMQ_CURVE_SERVERKEY, keys->server_key);

    if (rc == 0)
        rc = set_key(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key);
    return rc < 0 ? rc : set_key(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key);
}
