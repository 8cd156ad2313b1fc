/* hung.h - workers that make no progress; clients are told, since only who started a worker can end it.
 *
 * Who may call: the loop's thread. Units: milliseconds. Memory: a zeroed ring is empty. Errors: none. */
#ifndef BLIPLINE_BROKER_HUNG_H
#define BLIPLINE_BROKER_HUNG_H

#include "broker/peers.h"
#include "proto/msg.h"

#include <stdint.h>

struct hung {
    struct {
        struct msg_hung_worker worker;
        int64_t at_ms; /* 0: none */
    } latest[MSG_MAX_HUNG];
    uint32_t n; /* ever */
};

/* `p` may be NULL. */
void hung_note(struct hung *h, uint64_t number, const struct peer *p, const char *text, int64_t now_ms);
/* Add those of the last minutes to the message. */
void hung_tell(const struct hung *h, int64_t now_ms, struct msg_job_progress *ret);

#endif
