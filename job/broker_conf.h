/* broker_conf.h - where the broker is, and with which keys to connect to it.
 *
 * The endpoint is the option's, else that of $BLIPLINE_BROKER, else the key `broker` of the configuration file. The
 * file is ~/.config/blipline/client.conf, or BROKER_CONF_SYSTEM if there is none. It also names the files of the keys.
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: negative errno and `err`; -EDOM: nothing names a broker, and err lists all places. */
#ifndef BLIPLINE_JOB_BROKER_CONF_H
#define BLIPLINE_JOB_BROKER_CONF_H

#include "base/err.h"
#include "wire/keys.h"

#include <limits.h>
#include <stdbool.h>

#define BROKER_CONF_SYSTEM "/etc/blipline/client.conf"

struct broker_conf {
    char broker[256]; /* an endpoint */
    struct wire_keys_conf keys;
    const char *named_by; /* where the endpoint is from, for messages */
};

/* `option`: the value of --broker, or NULL. `system_file`: BROKER_CONF_SYSTEM. */
int broker_conf_find(const char *option, const char *system_file, struct broker_conf *ret,
                     struct err *err) CHECK_RESULT;
/* Check the endpoint, and read the key files if it needs keys; the caller wipes them (wire_keys_wipe). -EDOM: not an
 * endpoint, or one that needs keys. */
int broker_conf_keys(const struct broker_conf *c, struct wire_keys *ret, struct err *err) CHECK_RESULT;

#endif
