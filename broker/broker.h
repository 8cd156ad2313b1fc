/* broker.h - the parts of a broker, put together.
 *
 * Inside broker/, includes and calls run in one direction:
 *
 *   main -> server -> messages (from peers), completions (from the committer), watch (by time), actions (from the core)
 *        -> fleet, jobs_open, jobs_control, jobs_read -> jobs_table, jobs_find, jobs_import, progress, results, work
 *        -> jobs -> readings, units, requests, answers, crew -> driver, committer, peers, payloads and other leaves
 *
 * One call goes back up: the driver passes the core's actions to actions_do, by a pointer that server.c gave it.
 * Only server, messages and actions know struct broker; the files below take struct jobs, or less.
 *
 * Who may call: the loop's thread. Memory: server.c owns everything. */
#ifndef BLIPLINE_BROKER_BROKER_H
#define BLIPLINE_BROKER_BROKER_H

#include "broker/answers.h"
#include "broker/committer.h"
#include "broker/driver.h"
#include "broker/fleet.h"
#include "broker/jobs.h"
#include "broker/lost.h"
#include "broker/models.h"
#include "broker/payloads.h"
#include "broker/peers.h"
#include "broker/readings.h"
#include "broker/requests.h"
#include "broker/server.h"

struct broker {
    const struct broker_conf *conf;
    struct driver driver;
    struct peers peers;
    struct answers answers;
    struct lost lost;
    struct payloads payloads;
    struct requests requests;
    struct readings readings;
    struct jobs jobs;
    struct fleet fleet;
    struct models models;
    struct job_table *table; /* NULL: none; the committer's thread uses it */
    int64_t watchdog_at_ms;
    int64_t denied_at_ms; /* n_denied keys were denied within the time that began then */
    uint32_t n_denied;
    bool drained;
};

#endif
