/* peers.h - the connected workers and clients: what they have told about themselves, and the answers they wait for.
 *
 * Who may call: the loop's thread. Units: in the names. Memory: a zeroed table is empty; it owns its peers.
 * Errors: see each function. */
#ifndef BLIPLINE_BROKER_PEERS_H
#define BLIPLINE_BROKER_PEERS_H

#include "broker/core_table.h"
#include "broker/rate.h"
#include "proto/msg.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a worker has said of its model. */
struct peer_offer {
    struct fingerprint model; /* struct model.id; none: it has said nothing */
    uint32_t settings;
    struct fingerprint fingerprint; /* without the settings */
};

struct peer {
    uint64_t number;
    enum msg_role role;       /* 0: it has not sent HELLO */
    enum msg_role entitled;   /* what its key allows; ADMIN includes the others, as on ipc */
    char name[KEY_NAME_SIZE]; /* of its key; "uid:1000" on ipc: the owner of its jobs */
    enum stage stage;
    enum dtype dtype;
    struct fingerprint fingerprint;
    char model[MSG_NAME_SIZE], host[MSG_NAME_SIZE], device[MSG_NAME_SIZE];
    struct peer_offer offer;
    uint32_t hello_pid; /* of the process, as it says */
    /* of a worker, for fleet.h: */
    uint64_t n_items; /* in its results */
    struct rate items, busy;
    enum msg_worker_state state; /* when it was last looked at */
    int64_t state_at_ms;         /* since then */
    uint32_t n_bad;
    pid_t pid;          /* of a worker on this machine; 0: not known */
    uint32_t n_refused; /* within the time that began at refused_at_ms */
    int64_t refused_at_ms;
    bool drop;        /* close its connection after its current message */
    uint32_t n_asked; /* of a client: requests that wait for the committer, rows included */
    /* its messages of rows: unanswered ones; whether some were refused since it last sent JOB_OPEN */
    uint32_t n_unanswered;
    uint64_t unanswered_bytes;
    bool rows_refused;
};

struct peers {
    struct core_map by_number;
};

/* NULL: not known. */
struct peer *peers_find(const struct peers *all, uint64_t number);
/* Find the peer, or add it. NULL: no memory. */
struct peer *peers_require(struct peers *all, uint64_t number);
/* Peers that have sent HELLO as workers, or as clients and admins; only those called `name` unless that is NULL; `but`
 * is not counted. */
size_t peers_count(const struct peers *all, bool workers, const char *name, const struct peer *but);
void peers_forget(struct peers *all, uint64_t number);
/* The peer after *at, which begins at 0; NULL: there is none. Nothing may be added or forgotten meanwhile. */
struct peer *peers_next(const struct peers *all, size_t *at);
/* A message of this peer was refused. A peer with too many refusals is marked to be dropped. */
void peers_note_refusal(struct peers *all, uint64_t number);
void peers_release(struct peers *all);

#endif
