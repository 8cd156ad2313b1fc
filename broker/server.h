/* server.h - the broker's shell: one thread that owns the socket and the core, and carries out what the core decides.
 *
 * Who may call: main. Units: in the names. Memory: owned by the struct.
 * Errors: negative errno with err; what peers and jobs do wrong is answered to them and never ends the broker. */
#ifndef BLIPLINE_BROKER_SERVER_H
#define BLIPLINE_BROKER_SERVER_H

#include "base/conf.h"
#include "base/err.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stdint.h>

struct broker_conf {
    char endpoint[512];
    struct wire_keys_conf keys;
    char authorized_keys[1024];
    int64_t max_workers;
    int64_t max_clients;
    int64_t max_connections;
    int64_t max_jobs;
    int64_t max_open_jobs;
    int64_t client_requests;
    int64_t client_messages;
    int64_t client_bytes;
    int64_t all_clients_bytes;
    int64_t memory;
    int64_t rows;
    int64_t lease;
    int64_t heartbeat;
    int64_t stall;
    int64_t max_given_up;
    int64_t max_attempts;
    int64_t min_free;
    bool allow_network_fs;
    char state_dir[1024]; /* "": clients bring their own stores */
    char log_level[16];
};

extern const struct conf_key broker_conf_table[];

struct broker;

/* Binds the endpoint and starts the committer. */
int broker_new(const struct broker_conf *conf, struct broker **ret, struct err *err) CHECK_RESULT;
/* Until SIGTERM, or SHUTDOWN by a client: leases in flight end, what is finished is committed. -EIO,
 * -ENOMEM: the broker cannot go on. */
int broker_run(struct broker *b, struct err *err) CHECK_RESULT;
void broker_free(struct broker *b);

#endif
