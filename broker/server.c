/* server.c - start, loop, shutdown. The loop is the only place that sleeps; handlers and actions are in messages.c,
 * jobs.c, actions.c. */
#include "broker/server.h"

#include "base/clock.h"
#include "base/grow.h"
#include "base/log.h"
#include "base/stop.h"
#include "broker/shell.h"
#include "wire/context.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

const struct conf_key broker_conf_table[] = {
    {"endpoint", CONF_TEXT, CONF_AT(struct broker_conf, endpoint), "ipc:///run/blipline/broker", 1, 0,
     "where workers and clients connect: ipc:///path, a socket that its owner alone may open"},
    {"memory", CONF_SIZE, CONF_AT(struct broker_conf, memory), "8GiB", 1 << 20, 0,
     "most bytes of tensors between stages, all jobs"},
    {"rows", CONF_SIZE, CONF_AT(struct broker_conf, rows), "1GiB", 1 << 20, 0,
     "most bytes of captions and embeddings that wait for their commit, all jobs"},
    {"lease", CONF_DURATION, CONF_AT(struct broker_conf, lease), "30s", 100, 86400000,
     "a unit not heartbeated for this long goes to another worker"},
    {"heartbeat", CONF_DURATION, CONF_AT(struct broker_conf, heartbeat), "2s", 10, 3600000,
     "how often workers speak; less than a third of the lease"},
    {"stall", CONF_DURATION, CONF_AT(struct broker_conf, stall), "0s", 0, 86400000,
     "a worker that keeps a unit so long is cut off, unless the others' speed says that it takes longer; 0: ten "
     "leases, "
     "sixty while no unit of its stage is done"},
    {"max_given_up", CONF_INT, CONF_AT(struct broker_conf, max_given_up), "32", 0, 1000000000,
     "so many items in a row that fail again and again pause their job; 0: any number may"},
    {"max_attempts", CONF_INT, CONF_AT(struct broker_conf, max_attempts), "3", 1, 100,
     "failures of an item before it is quarantined"},
    {"min_free", CONF_SIZE, CONF_AT(struct broker_conf, min_free), "64MiB", 0, 0,
     "no commits below this much free disk"},
    {"allow_network_fs", CONF_BOOL, CONF_AT(struct broker_conf, allow_network_fs), "no", 0, 0,
     "open stores on NFS and the like: LMDB is not safe there"},
    {"log_level", CONF_TEXT, CONF_AT(struct broker_conf, log_level), "info", 1, 0, "err, warn, info or debug"},
    {0}};

enum { MESSAGES_A_ROUND = 256, DRAIN_MS = 5000, WATCHDOG_MS = 5000, MAX_PEERS = 4096, MAX_DESCRIPTORS = 65536 };

/* -- feeding the core -- */

void broker_fail(struct broker *b, int rc, const char *fmt, ...)
{
    va_list ap;

    if (b->failed < 0)
        return;
    b->failed = rc;
    va_start(ap, fmt);
    (void)vsnprintf(b->why.text, sizeof(b->why.text), fmt, ap);
    va_end(ap);
}

static int feed_one(struct broker *b, const struct core_event *event)
{
    int rc;

    core_actions_clear(&b->actions);
    rc = core_step(b->core, event, b->now_ms, &b->actions);
    if (rc == -ENOMEM)
        broker_fail(b, rc, "no memory for the state of jobs and workers");
    else if (rc < 0)
        log_warn("event=core_refused type=%d reason=\"%s\" the event is dropped", event->type, strerror(-rc));
    for (size_t i = 0; i < b->actions.n && b->failed == 0; i++)
        broker_act(b, &b->actions.items[i]);
    return rc;
}

void broker_feed_later(struct broker *b, const struct core_event *event)
{
    if (grow_array(&b->pending, &b->pending_capacity, b->n_pending, sizeof(*b->pending), 64) < 0) {
        broker_fail(b, -ENOMEM, "no memory for events");
        return;
    }
    b->pending[b->n_pending++] = *event;
}

void broker_feed_rest(struct broker *b)
{
    for (size_t i = 0; i < b->n_pending; i++) { /* grows while it runs */
        struct core_event later = b->pending[i];

        if (b->failed == 0)
            (void)feed_one(b, &later);
    }
    b->n_pending = 0;
}

int broker_feed(struct broker *b, const struct core_event *event)
{
    const int rc = feed_one(b, event);

    broker_feed_rest(b);
    return rc;
}

/* -- answers -- */

void broker_send(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct err err = {""};
    int rc = broker_socket_send_msg(b->socket, peer, m, &err);

    if (rc < 0 && rc != -EHOSTUNREACH)
        log_warn("event=not_sent type=%s peer=%llu reason=\"%s\" the peer will ask again", msg_type_name(m->type),
                 (unsigned long long)peer, err.text);
}

void broker_welcome(struct broker *b, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_WELCOME);
    m.seq = seq;
    m.welcome = (struct msg_welcome){.epoch = b->epoch,
                                     .version = MSG_VERSION,
                                     .heartbeat_ms = (uint32_t)b->conf->heartbeat,
                                     .lease_ms = (uint32_t)b->conf->lease};
    broker_send(b, peer, &m);
}

void broker_refuse(struct broker *b, uint64_t peer, uint64_t seq, enum msg_reason reason, const char *fmt, ...)
{
    struct msg m;
    va_list ap;

    msg_init(&m, MSG_REFUSE);
    m.seq = seq;
    m.refuse.reason = reason;
    va_start(ap, fmt);
    (void)vsnprintf(m.refuse.text, sizeof(m.refuse.text), fmt, ap);
    va_end(ap);
    b->n_refusals++;
    log_warn("event=refused peer=%llu reason=%s text=\"%s\"", (unsigned long long)peer, msg_reason_name(reason),
             m.refuse.text);
    broker_send(b, peer, &m);
    broker_note_refusal(b, peer);
}

/* -- start and end -- */

static struct core_limits limits_of(const struct broker_conf *conf)
{
    struct core_limits limits = core_limits_default();

    limits.memory_bytes = (uint64_t)conf->memory;
    limits.row_bytes = (uint64_t)conf->rows;
    limits.lease_ms = conf->lease;
    limits.worker_ms = conf->lease * 2;
    limits.stall_ms = conf->stall ? conf->stall : conf->lease * 10;
    limits.first_stall_ms = conf->stall ? conf->stall : conf->lease * 60;
    limits.max_given_up = (uint32_t)conf->max_given_up;
    limits.max_attempts = (uint32_t)conf->max_attempts;
    limits.max_jobs = BROKER_MAX_JOBS;
    return limits;
}

/* Every peer is a descriptor, and so are stores and logs: half are for peers, an eighth for those to be told that
 * they are too many. */
static void limit_peers(struct broker_socket_conf *socket)
{
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max && limit.rlim_cur < MAX_DESCRIPTORS) {
        limit.rlim_cur = limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    socket->max_peers = limit.rlim_cur / 2 < MAX_PEERS ? (size_t)limit.rlim_cur / 2 : MAX_PEERS;
    socket->max_connections = socket->max_peers + socket->max_peers / 4;
}

int broker_new(const struct broker_conf *conf, struct broker **ret, struct err *err)
{
    const struct core_limits limits = limits_of(conf);
    struct broker_socket_conf socket = {.endpoint = conf->endpoint};
    const struct committer_conf committer = {.allow_network_fs = conf->allow_network_fs,
                                             .min_free_bytes = (uint64_t)conf->min_free};
    struct broker *b;
    int rc;

    if (conf->heartbeat * 3 > conf->lease)
        return err_set(err, -EINVAL, "heartbeat = %lld ms is more than a third of lease = %lld ms",
                       (long long)conf->heartbeat, (long long)conf->lease);
    b = calloc(1, sizeof(*b));
    if (!b)
        return err_set(err, -ENOMEM, "no memory");
    b->conf = conf;
    b->backlog_end = &b->backlog;
    b->retry_at_ms = INT64_MAX;
    b->epoch = (uint64_t)clock_wall_ms() << 16 | ((uint64_t)clock_mono_ns() & 0xffff); /* differs at every start */
    b->now_ms = clock_mono_ms();
    core_actions_init(&b->actions);
    b->core = core_new(&limits, b->epoch);
    limit_peers(&socket);
    rc = b->core ? wire_init(2, err) : err_set(err, -ENOMEM, "no memory");
    if (rc == 0)
        rc = broker_socket_open(&socket, &b->socket, err);
    if (rc == 0)
        rc = committer_start(&committer, &b->committer, err);
    if (rc < 0) {
        broker_free(b);
        return rc;
    }
    log_info("event=ready endpoint=%s epoch=%llu memory=%lld peers=%zu", broker_socket_endpoint(b->socket),
             (unsigned long long)b->epoch, (long long)conf->memory, socket.max_peers);
    *ret = b;
    return 0;
}

void broker_free(struct broker *b)
{
    if (!b)
        return;
    committer_free(b->committer);
    payloads_release(&b->payloads);
    broker_socket_close(&b->socket);
    wire_exit();
    broker_jobs_free(b);
    broker_lost_free(b);
    for (size_t i = 0; i < b->peers.capacity; i++)
        if (b->peers.slots[i].key)
            free(b->peers.slots[i].value);
    for (size_t i = 0; i < b->questions.capacity; i++)
        if (b->questions.slots[i].key)
            free(b->questions.slots[i].value);
    core_map_release(&b->peers);
    core_map_release(&b->questions);
    core_actions_release(&b->actions);
    core_free(b->core);
    free(b->pending);
    free(b);
}

/* -- the loop -- */

void broker_begin_shutdown(struct broker *b)
{
    if (b->shutting_down)
        return;
    log_info("event=draining");
    b->shutting_down = true;
    broker_feed(b, &(struct core_event){.type = CORE_EVENT_SHUTDOWN});
}

static void round_of_messages(struct broker *b)
{
    struct broker_socket_event event;
    int rc;

    for (int n = 0; n < MESSAGES_A_ROUND && b->failed == 0; n++) {
        rc = broker_socket_next(b->socket, &event);
        if (rc < 0)
            broker_fail(b, rc, "the socket failed: %s", strerror(-rc));
        if (rc != 1)
            return;
        broker_handle(b, &event);
        broker_feed_rest(b);
    }
}

/* Milliseconds until something is due. */
static int64_t time_left(struct broker *b, int64_t other_at_ms)
{
    int64_t at = core_next_deadline(b->core);

    if (other_at_ms < at)
        at = other_at_ms;
    if (at == INT64_MAX)
        return 10000;
    return at > b->now_ms ? at - b->now_ms : 0;
}

/* Tell the workers to go, and give them time to say good-bye. */
static void dismiss(struct broker *b)
{
    const int64_t until = clock_mono_ms() + DRAIN_MS;
    struct core_stats stats;
    struct msg m;

    msg_init(&m, MSG_DRAIN);
    for (size_t i = 0; i < b->peers.capacity; i++) {
        const struct broker_peer *p = b->peers.slots[i].key ? b->peers.slots[i].value : NULL;

        if (p && p->role == MSG_ROLE_WORKER)
            broker_send(b, p->number, &m);
    }
    for (;;) {
        b->now_ms = clock_mono_ms();
        core_stats_get(b->core, &stats);
        if (stats.n_workers == 0 || b->now_ms >= until || b->failed < 0)
            return;
        if (broker_socket_wait(b->socket, NULL, 0, until - b->now_ms) < 0)
            return;
        round_of_messages(b);
    }
}

/* systemd's, where the unit asks for one. */
static void feed_watchdog(struct broker *b)
{
    if (b->watchdog_at_ms > b->now_ms)
        return;
    b->watchdog_at_ms = b->now_ms + WATCHDOG_MS;
    (void)sd_notify(0, "WATCHDOG=1");
}

int broker_run(struct broker *b, struct err *err)
{
    int64_t retry_at_ms = INT64_MAX, watch_at_ms = INT64_MAX, lost_at_ms = INT64_MAX;

    while (b->failed == 0 && !b->drained) {
        feed_watchdog(b);
        struct pollfd fds[] = {{.fd = committer_fd(b->committer), .events = POLLIN},
                               {.fd = stop_requested() ? -1 : stop_fd(), .events = POLLIN}};
        const int64_t other_at_ms = retry_at_ms < watch_at_ms ? retry_at_ms : watch_at_ms;
        int rc = broker_socket_wait(b->socket, fds, sizeof(fds) / sizeof(fds[0]),
                                    time_left(b, other_at_ms < lost_at_ms ? other_at_ms : lost_at_ms));

        if (rc < 0)
            broker_fail(b, rc, "waiting failed: %s", strerror(-rc));
        b->now_ms = clock_mono_ms();
        if (stop_requested())
            broker_begin_shutdown(b);
        round_of_messages(b);
        broker_completions(b);
        broker_feed_rest(b);
        broker_units_held(b);
        retry_at_ms = broker_retry_due(b);
        watch_at_ms = broker_watch(b);
        lost_at_ms = broker_lost_look(b);
        if (core_next_deadline(b->core) <= b->now_ms)
            broker_feed(b, &(struct core_event){.type = CORE_EVENT_TICK});
    }
    if (b->failed == 0)
        dismiss(b);
    if (b->failed < 0)
        return err_set(err, b->failed, "%s", b->why.text);
    log_info("event=drained");
    return 0;
}
