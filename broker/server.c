/* server.c - start, loop, shutdown. The loop is the only place that sleeps. */
#include "broker/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/stop.h"
#include "broker/actions.h"
#include "broker/broker.h"
#include "broker/completions.h"
#include "broker/messages.h"
#include "broker/watch.h"
#include "wire/context.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

const struct conf_key broker_conf_table[] = {
    {"endpoint", CONF_TEXT, CONF_AT(struct broker_conf, endpoint), "ipc:///run/blipline/broker", 1, 0,
     "where workers and clients connect, several with commas between: ipc:///PATH, a socket that only its owner may "
     "open; tcp://ADDRESS:PORT, with keys"},
    WIRE_KEYS_CONF(struct broker_conf, keys),
    {"authorized_keys", CONF_TEXT, CONF_AT(struct broker_conf, authorized_keys), "", 0, 0,
     "who may connect by tcp: a folder with the public keys workers/NAME.pub, clients/NAME.pub and admins/NAME.pub; "
     "read again on SIGHUP"},
    {"max_workers", CONF_INT, CONF_AT(struct broker_conf, max_workers), "2048", 1, 65536,
     "workers that may be connected at once; more are refused, and try again"},
    {"max_clients", CONF_INT, CONF_AT(struct broker_conf, max_clients), "1024", 1, 65536,
     "clients and admins that may be connected at once; more are refused"},
    {"max_connections", CONF_INT, CONF_AT(struct broker_conf, max_connections), "256", 1, 65536,
     "connections that one client or admin may have at once; more are refused"},
    {"max_jobs", CONF_INT, CONF_AT(struct broker_conf, max_jobs), "10000", 1, 1000000000,
     "jobs that state_dir keeps of one owner, ended ones included; more are refused until some are removed"},
    {"max_open_jobs", CONF_INT, CONF_AT(struct broker_conf, max_open_jobs), "1024", 1, JOBS_MAX,
     "jobs that one owner may have open at once: running, or looked at by a client; more are refused"},
    {"client_requests", CONF_INT, CONF_AT(struct broker_conf, client_requests), "64", 16, 65536,
     "requests that one client may send without waiting for the answers; more are refused"},
    {"client_messages", CONF_INT, CONF_AT(struct broker_conf, client_messages), "4", 4, 65536,
     "of these requests, messages with items; more are refused"},
    {"client_bytes", CONF_SIZE, CONF_AT(struct broker_conf, client_bytes), "64MiB", 64 << 20, 0,
     "most bytes of messages with items of one client; a client with a larger message is cut off"},
    {"all_clients_bytes", CONF_SIZE, CONF_AT(struct broker_conf, all_clients_bytes), "1GiB", 64 << 20, 0,
     "most bytes of messages with items, all clients"},
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
    {"state_dir", CONF_TEXT, CONF_AT(struct broker_conf, state_dir), "", 0, 0,
     "keep jobs and their stores in this folder, and go on with them at every start; empty: clients name stores"},
    {"log_level", CONF_TEXT, CONF_AT(struct broker_conf, log_level), "info", 1, 0, "err, warn, info or debug"},
    {0}};

enum { MESSAGES_A_ROUND = 256, DRAIN_MS = 5000, WATCHDOG_MS = 5000, MAX_PEERS = 4096, MAX_DESCRIPTORS = 65536 };

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
    limits.max_jobs = JOBS_MAX;
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

static void warn_of_key(const char *text)
{
    log_warn("event=key_file_skipped msg=\"%s\"", text);
}

static int open_socket(struct broker *b, struct broker_socket_conf socket, struct err *err)
{
    struct wire_keys keys;
    int rc = wire_keys_load(&b->conf->keys, true, &keys, err);

    if (rc < 0)
        return rc;
    socket.keys = &keys;
    socket.authorized = b->conf->authorized_keys;
    socket.warn = warn_of_key;
    rc = broker_socket_open(&socket, &b->answers.socket, err);
    wire_keys_wipe(&keys);
    return rc;
}

static int open_table(struct broker *b, struct err *err)
{
    struct job_table_found found;
    int rc = job_table_open(b->conf->state_dir, b->conf->allow_network_fs, &b->table, &found, err);

    if (rc == 0)
        log_info("event=job_table state_dir=\"%s\" jobs=%u adopted=%u set_aside=%u missing=%u", b->conf->state_dir,
                 found.n_rows, found.n_adopted, found.n_set_aside, found.n_missing);
    return rc;
}

int broker_new(const struct broker_conf *conf, struct broker **ret, struct err *err)
{
    const struct core_limits limits = limits_of(conf);
    struct broker_socket_conf socket = {.endpoint = conf->endpoint};
    struct committer_conf committer = {.allow_network_fs = conf->allow_network_fs,
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
    b->answers = (struct answers){.peers = &b->peers,
                                  .heartbeat_ms = (uint32_t)conf->heartbeat,
                                  .lease_ms = (uint32_t)conf->lease,
                                  /* differs at every start */
                                  .epoch = (uint64_t)clock_wall_ms() << 16 | ((uint64_t)clock_mono_ns() & 0xffff)};
    driver_init(&b->driver, &limits, b->answers.epoch, actions_do, b);
    b->driver.now_ms = clock_mono_ms();
    requests_init(&b->requests, &b->driver, &b->peers);
    rc = readings_init(&b->readings, &b->answers, conf->allow_network_fs, err);
    broker_jobs_init(&b->jobs, &b->driver, &b->requests, &b->answers, &b->peers);
    b->jobs.limits = (struct job_limits){.n_jobs = (size_t)conf->max_jobs,
                                         .n_open = (size_t)conf->max_open_jobs,
                                         .n_messages = (uint32_t)conf->client_messages,
                                         .bytes = (uint64_t)conf->client_bytes,
                                         .bytes_of_all = (uint64_t)conf->all_clients_bytes,
                                         .min_free_bytes = (uint64_t)conf->min_free};
    b->fleet = (struct fleet){.jobs = &b->jobs, .started_ms = b->driver.now_ms};
    b->models = (struct models){.requests = &b->requests, .answers = &b->answers, .peers = &b->peers};
    b->answers.takes_models = conf->state_dir[0];
    limit_peers(&socket);
    if (rc == 0)
        rc = b->driver.core ? wire_init(2, err) : err_set(err, -ENOMEM, "no memory");
    if (rc == 0)
        rc = open_socket(b, socket, err);
    if (rc == 0 && conf->state_dir[0])
        rc = open_table(b, err);
    if (rc == 0)
        rc = models_load(&b->models, conf->state_dir, err);
    committer.table = b->table;
    committer.models = b->models.folder;
    if (rc == 0)
        rc = committer_start(&committer, &b->requests.committer, err);
    if (rc == 0 && b->table)
        rc = broker_jobs_resume(&b->jobs, b->table, err);
    if (rc < 0) {
        broker_free(b);
        return rc;
    }
    log_info("event=ready endpoint=\"%s\" epoch=%llu memory=%lld peers=%zu", broker_socket_endpoint(b->answers.socket),
             (unsigned long long)b->answers.epoch, (long long)conf->memory, socket.max_peers);
    *ret = b;
    return 0;
}

void broker_free(struct broker *b)
{
    if (!b)
        return;
    readings_release(&b->readings);
    committer_free(b->requests.committer);
    job_table_close(b->table);
    payloads_release(&b->payloads);
    broker_socket_close(&b->answers.socket);
    wire_exit();
    broker_jobs_release(&b->jobs);
    models_release(&b->models);
    requests_release(&b->requests);
    lost_release(&b->lost);
    peers_release(&b->peers);
    driver_release(&b->driver);
    free(b);
}

/* -- the loop -- */

static void round_of_messages(struct broker *b)
{
    struct broker_socket_event event;
    int rc;

    for (int n = 0; n < MESSAGES_A_ROUND && b->driver.failed == 0; n++) {
        rc = broker_socket_next(b->answers.socket, &event);
        if (rc < 0)
            driver_fail(&b->driver, rc, "the socket failed: %s", strerror(-rc));
        if (rc != 1)
            return;
        messages_handle(b, &event);
        driver_feed_rest(&b->driver);
    }
}

/* Milliseconds until something is due. */
static int64_t time_left(struct broker *b, int64_t other_at_ms)
{
    int64_t at = core_next_deadline(b->driver.core);

    if (other_at_ms < at)
        at = other_at_ms;
    if (at == INT64_MAX)
        return 10000;
    return at > b->driver.now_ms ? at - b->driver.now_ms : 0;
}

/* Tell the workers to go, and give them time to say good-bye. */
static void dismiss(struct broker *b)
{
    const int64_t until = clock_mono_ms() + DRAIN_MS;
    struct core_stats stats;
    size_t at = 0;
    struct msg m;

    msg_init(&m, MSG_DRAIN);
    for (const struct peer *p; (p = peers_next(&b->peers, &at));)
        if (p->role == MSG_ROLE_WORKER)
            answer_send(&b->answers, p->number, &m);
    for (;;) {
        b->driver.now_ms = clock_mono_ms();
        core_stats_get(b->driver.core, &stats);
        if (stats.n_workers == 0 || b->driver.now_ms >= until || b->driver.failed < 0)
            return;
        if (broker_socket_wait(b->answers.socket, NULL, 0, until - b->driver.now_ms) < 0)
            return;
        round_of_messages(b);
    }
}

/* Tell the core of lost workers whose processes have ended. Returns when to look again. */
static int64_t look_for_lost(struct broker *b)
{
    for (uint64_t peer; (peer = lost_take_ended(&b->lost)) != 0;)
        (void)driver_feed(&b->driver,
                          &(struct core_event){.type = CORE_EVENT_GONE, .gone = {.peer = peer, .ended = true}});
    return b->lost.first ? b->driver.now_ms + LOST_LOOK_MS : INT64_MAX;
}

/* systemd's, where the unit asks for one. */
static void feed_watchdog(struct broker *b)
{
    if (b->watchdog_at_ms > b->driver.now_ms)
        return;
    b->watchdog_at_ms = b->driver.now_ms + WATCHDOG_MS;
    (void)sd_notify(0, "WATCHDOG=1");
}

/* SIGHUP. */
static void reload(struct broker *b)
{
    struct err err = {""};
    size_t n_keys, n_cut;

    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(clock_mono_ns() / 1000));
    if (broker_socket_reload_keys(b->answers.socket, &n_keys, &n_cut, &err) < 0)
        log_err("event=reload_failed msg=\"%s; the keys that were read before stay in force\"", err.text);
    else
        log_info("event=reloaded keys=%zu cut_off=%zu", n_keys, n_cut);
    (void)sd_notify(0, "READY=1");
}

static int64_t earliest(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

int broker_run(struct broker *b, struct err *err)
{
    int64_t retry_at_ms = INT64_MAX, watch_at_ms = INT64_MAX, lost_at_ms = INT64_MAX, read_at_ms = INT64_MAX;
    int64_t fleet_at_ms;

    while (b->driver.failed == 0 && !b->drained) {
        feed_watchdog(b);
        struct pollfd fds[] = {{.fd = committer_fd(b->requests.committer), .events = POLLIN},
                               {.fd = b->readings.poll_fd, .events = POLLIN},
                               {.fd = stop_reload_fd(), .events = POLLIN},
                               {.fd = stop_requested() ? -1 : stop_fd(), .events = POLLIN}};
        const int64_t other_at_ms = earliest(earliest(retry_at_ms, watch_at_ms), earliest(lost_at_ms, read_at_ms));
        int rc = broker_socket_wait(b->answers.socket, fds, sizeof(fds) / sizeof(fds[0]), time_left(b, other_at_ms));

        if (rc < 0)
            driver_fail(&b->driver, rc, "waiting failed: %s", strerror(-rc));
        b->driver.now_ms = clock_mono_ms();
        if (stop_take_reload())
            reload(b);
        if (stop_requested())
            messages_begin_shutdown(b);
        round_of_messages(b);
        completions_take(&b->jobs, &b->models);
        driver_feed_rest(&b->driver);
        units_load_waiting(&b->jobs.units);
        retry_at_ms = completions_retry(&b->jobs, (uint64_t)b->conf->min_free);
        watch_at_ms = watch_jobs(&b->jobs);
        fleet_at_ms = fleet_watch(&b->fleet);
        if (fleet_at_ms < watch_at_ms)
            watch_at_ms = fleet_at_ms;
        lost_at_ms = look_for_lost(b);
        read_at_ms = readings_take(&b->readings, b->driver.now_ms);
        if (core_next_deadline(b->driver.core) <= b->driver.now_ms)
            driver_feed(&b->driver, &(struct core_event){.type = CORE_EVENT_TICK});
    }
    if (b->driver.failed == 0)
        dismiss(b);
    if (b->driver.failed < 0)
        return err_set(err, b->driver.failed, "%s", b->driver.why.text);
    log_info("event=drained");
    return 0;
}
