/* row_fleet.h - the rows of FLEET: stages, workers and jobs of a broker.
 *
 * Who may call: anyone. Units: in the names; a rate is in items per 1000 seconds, over the last 10 seconds or so.
 * Memory: plain values, copied. Errors: as row.h. */
#ifndef BLIPLINE_PROTO_ROW_FLEET_H
#define BLIPLINE_PROTO_ROW_FLEET_H

#include "proto/stored.h"

/* The workers of one stage that compute the same, and the units of all jobs that wait for them. */
struct row_fleet_stage {
    enum stage stage;
    enum dtype dtype; /* 0: unknown */
    char model[MSG_NAME_SIZE];
    uint32_t n_workers, n_able; /* connected; of those, idle or working */
    uint32_t units_ready, units_leased;
    uint64_t rate;
    uint32_t busy_per_mille; /* share of the time that the able workers held units */
    uint64_t capacity;       /* what the able workers do while they hold units, since they connected; 0: unknown */
    struct fingerprint fingerprint;
};

struct row_fleet_worker {
    uint64_t number; /* of its connection */
    char host[MSG_NAME_SIZE];
    uint32_t pid;
    enum stage stage;
    char device[MSG_NAME_SIZE];
    enum dtype dtype;
    char model[MSG_NAME_SIZE];
    enum msg_worker_state state;
    uint64_t state_ms;        /* for so long */
    char text[MSG_TEXT_SIZE]; /* the last thing that went wrong, while it is benched */
    uint32_t n_bad;           /* units in a row that went wrong */
    uint64_t n_items;         /* done since it connected */
    uint64_t rate;
    uint32_t busy_per_mille;
    uint32_t n_leases, held_items, window_items;
    uint64_t held_bytes, window_bytes;
    uint64_t heard_ms; /* ago */
};

struct row_fleet_job {
    uint64_t job;
    char name[MSG_NAME_SIZE], owner[MSG_NAME_SIZE];
    enum msg_job_state state;
    enum stored_wanted wanted;
    char text[MSG_TEXT_SIZE]; /* what it waits for, or why it does not go on */
    uint32_t priority;
    uint64_t n_items, n_done, n_failed, n_again;
    uint64_t rate;
    uint32_t n_stages;
    struct row_fleet_units {
        enum stage stage;
        uint32_t ready, leased;
    } stages[MSG_MAX_STAGES];
};

int row_fleet_stage_append(struct buf *frame, const struct row_fleet_stage *r) CHECK_RESULT;
int row_fleet_worker_append(struct buf *frame, const struct row_fleet_worker *r) CHECK_RESULT;
int row_fleet_job_append(struct buf *frame, const struct row_fleet_job *r) CHECK_RESULT;

/* As row_cursor_next_item. */
int row_cursor_next_fleet_stage(struct row_cursor *c, struct row_fleet_stage *ret, struct err *err) CHECK_RESULT;
int row_cursor_next_fleet_worker(struct row_cursor *c, struct row_fleet_worker *ret, struct err *err) CHECK_RESULT;
int row_cursor_next_fleet_job(struct row_cursor *c, struct row_fleet_job *ret, struct err *err) CHECK_RESULT;

const char *msg_worker_state_name(enum msg_worker_state state); /* "idle", ...; "?" */

#endif
