#include "job/broker_conf.h"

#include "base/conf.h"
#include "wire/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct conf_key keys[] = {
    {"broker", CONF_TEXT, CONF_AT(struct broker_conf, broker), "", 0, 0,
     "the endpoint of the broker: ipc:///PATH or tcp://HOST:PORT"},
    {"server_key_file", CONF_TEXT, CONF_AT(struct broker_conf, server_key_file), "", 0, 0,
     "the broker's public key, for tcp"},
    {"secret_key_file", CONF_TEXT, CONF_AT(struct broker_conf, secret_key_file), "", 0, 0,
     "your secret key, for tcp (blipline keygen)"},
    {"insecure", CONF_BOOL, CONF_AT(struct broker_conf, insecure), "no", 0, 0,
     "allow tcp without keys, on loopback addresses only"},
    {0},
};

/* The user's file if it exists, else the system's, else NULL. */
static const char *choose_file(const char *system_file, char user_file[PATH_MAX])
{
    const char *home = getenv("HOME");

    if (home && home[0] && snprintf(user_file, PATH_MAX, "%s/.config/blipline/client.conf", home) < PATH_MAX &&
        access(user_file, F_OK) == 0)
        return user_file;
    return access(system_file, F_OK) == 0 ? system_file : NULL;
}

int broker_conf_find(const char *option, const char *system_file, struct broker_conf *ret, struct err *err)
{
    const char *variable = getenv("BLIPLINE_BROKER");
    char user_file[PATH_MAX];
    int rc = conf_load(keys, ret, choose_file(system_file, user_file), err);

    if (rc < 0)
        return rc;
    ret->named_by = option ? "--broker" : variable && variable[0] ? "$BLIPLINE_BROKER" : "the broker of client.conf";
    if (option || (variable && variable[0]))
        rc = conf_set(keys, ret, "broker", option ? option : variable, err);
    if (rc < 0)
        return err_prefix(err, -EDOM, "%s", ret->named_by);
    if (ret->broker[0])
        return 0;
    return err_set(err, -EDOM,
                   "no broker is named. Use --broker ENDPOINT, or set BLIPLINE_BROKER=ENDPOINT, or write the line "
                   "\"broker = ENDPOINT\" into ~/.config/blipline/client.conf or %s",
                   system_file);
}

int broker_conf_keys(const struct broker_conf *c, struct wire_keys *ret, struct err *err)
{
    const struct wire_keys_conf files = {
        .secret_key_file = c->secret_key_file, .server_key_file = c->server_key_file, .insecure = c->insecure};
    int rc = 0;

    *ret = (struct wire_keys){.insecure = c->insecure};
    if (wire_endpoint_is_tcp(c->broker))
        rc = wire_keys_load(&files, ret, err);
    if (rc < 0)
        return rc;
    rc = wire_endpoint_check_connect(c->broker, ret, err);
    return rc < 0 ? err_prefix(err, -EDOM, "%s", c->named_by) : 0;
}
