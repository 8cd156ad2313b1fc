/* broker.h - the parts of a broker, put together.
 *
 * server.c owns it and runs the loop. What comes in goes down through messages.c (peers), completions.c (the committer)
 * and watch.c (time) to jobs.c, results.c and units.c, which feed the driver; what the core then decides comes back as
 * actions (actions.c, work.c). Each part has a header of its own, knows those above it in this struct alone, and is
 * called by those below.
 *
 * Who may call: the loop's thread. Memory: server.c owns everything. */
#ifndef BLIPLINE_BROKER_BROKER_H
#define BLIPLINE_BROKER_BROKER_H

#include "broker/answers.h"
#include "broker/committer.h"
#include "broker/driver.h"
#include "broker/hung.h"
#include "broker/jobs.h"
#include "broker/lost.h"
#include "broker/payloads.h"
#include "broker/peers.h"
#include "broker/requests.h"
#include "broker/server.h"
#include "broker/units.h"

struct broker {
    const struct broker_conf *conf;
    struct driver driver;
    struct peers peers;
    struct answers answers;
    struct lost lost;
    struct hung hung;
    struct payloads payloads;
    struct requests requests;
    struct units_budget units;
    struct jobs jobs;
    int64_t watch_at_ms, watchdog_at_ms;
    uint64_t n_bad_messages;
    bool shutting_down, drained;
};

#endif
