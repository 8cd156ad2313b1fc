/* msg_fleet.h - what a broker has connected and open: part of msg.h, and the rows of FLEET.
 *
 * Who may call: anyone, from any thread. Units: in the names; a rate is in items per 1000 seconds.
 * Memory: plain values; a row from a cursor is copied. Errors: as msg.h and row.h. */
#ifndef BLIPLINE_PROTO_MSG_FLEET_H
#define BLIPLINE_PROTO_MSG_FLEET_H

#include <stdint.h>

enum { MSG_MAX_FLEET_ROWS = 1024 }; /* of one answer */

enum msg_fleet_what { MSG_FLEET_STAGES = 1, MSG_FLEET_WORKERS, MSG_FLEET_JOBS };

enum msg_worker_state {
    MSG_WORKER_IDLE = 1,
    MSG_WORKER_WORKING,
    MSG_WORKER_BENCHED,
    MSG_WORKER_DRAINING,
    MSG_WORKER_SILENT,
};

struct msg_fleet_query {
    enum msg_fleet_what what;
    uint64_t from; /* rows with this number and larger ones */
};

struct msg_fleet {
    uint64_t next; /* 0: there are no more rows */
    uint64_t uptime_ms;
    uint64_t memory_bytes;               /* resident, without mapped files */
    uint64_t tensor_bytes, tensor_limit; /* reserved for tensors between stages */
    uint64_t row_bytes, row_limit;       /* results that wait for their commit */
    uint64_t disk_room;                  /* bytes that may still be written where the broker keeps its jobs */
    uint32_t n_workers, n_jobs, n_other_jobs;
};

#endif
