#include "job/broker_conf.h"

#include "base/conf.h"
#include "wire/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const struct conf_key keys[] = {
    {"broker", CONF_TEXT, CONF_AT(struct broker_conf, broker), "", 0, 0,
     "the endpoint of the broker: ipc:///PATH or tcp://HOST:PORT"},
    WIRE_KEYS_CONF_SERVER(struct broker_conf, keys),
    WIRE_KEYS_CONF(struct broker_conf, keys),
    {0},
};

/* The user's file if it exists, else the system's, else NULL. */
static const char *choose_file(const char *system_file, char user_file[PATH_MAX])
{
    if (conf_user_path("client.conf", user_file) && access(user_file, F_OK) == 0)
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
    int rc = 0;

    *ret = (struct wire_keys){.insecure = c->keys.insecure};
    if (wire_endpoint_is_tcp(c->broker))
        rc = wire_keys_load(&c->keys, false, ret, err);
    if (rc < 0)
        return rc;
    rc = wire_endpoint_check_connect(c->broker, ret, err);
    return rc < 0 ? err_prefix(err, -EDOM, "%s", c->named_by) : 0;
}
