#include "wire/client_session.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "wire/client_private.h"
#include "wire/dealer.h"
#include "wire/endpoint.h"
#include "wire/message.h"

enum { MAX_UNANSWERED = 4, DEFAULT_TIMEOUT_MS = 30000, RETRY_MS = 20 };

struct client_session {
    struct dealer dealer;
    bool lost;
    uint64_t seq, epoch;
    int64_t timeout_ms;
    /* unanswered rows: answers come in order, so a count and the latest answer are enough */
    unsigned n_unanswered;
    uint64_t unanswered_from; /* no later than the oldest of them */
    uint64_t n_items;         /* confirmed */
    struct msg_compared compared;
    bool has_recipe; /* the latest refusal said one */
    struct msg_recipe recipe;
};

/* -- refusals as error numbers */

static int refusal(struct client_session *s, const struct msg_refuse *r, struct err *err)
{
    static const int codes[] = {
        [MSG_REASON_VERSION] = -EPROTONOSUPPORT,
        [MSG_REASON_MODEL] = -ENODEV,
        [MSG_REASON_BAD_MESSAGE] = -EINVAL,
        [MSG_REASON_NOT_ALLOWED] = -EPERM,
        [MSG_REASON_STORE] = -EIO,
        [MSG_REASON_RECIPE] = -EEXIST,
        [MSG_REASON_LIMIT] = -EDQUOT,
        [MSG_REASON_UNKNOWN_JOB] = -ENOENT,
        [MSG_REASON_DRAINING] = -ESHUTDOWN,
        [MSG_REASON_BUSY] = -EBUSY,
    };
    size_t i = (size_t)r->reason;
    int code = i < sizeof(codes) / sizeof(codes[0]) && codes[i] ? codes[i] : -EREMOTEIO;

    s->has_recipe = r->has_recipe;
    if (r->has_recipe)
        s->recipe = r->recipe;
    return err_set(err, code, "%s", r->text[0] ? r->text : msg_reason_name(r->reason));
}

/* -- one message out, one in */

static int lost(struct client_session *s, struct err *err)
{
    s->lost = true;
    return err_set(err, -ECONNRESET, "the connection to the broker is lost");
}

/* Wait until the socket can be read (or written), the connection breaks, or the time is over. */
static int wait_ready(struct client_session *s, short events, int64_t until_ms, struct err *err)
{
    zmq_pollitem_t items[] = {{.socket = s->dealer.socket, .events = events},
                              {.socket = s->dealer.monitor, .events = ZMQ_POLLIN}};
    int64_t left = until_ms - clock_mono_ms();
    int rc = zmq_poll(items, 2, left < 0 ? 0 : left);

    if (rc < 0)
        return errno == EINTR ? err_set(err, -EINTR, "interrupted") : err_set(err, -errno, "%s", zmq_strerror(errno));
    if (items[0].revents & events)
        return 0;
    if (items[1].revents && dealer_is_lost(&s->dealer))
        return lost(s, err);
    return left <= 0 ? err_set(err, -ETIMEDOUT, "the broker does not answer") : 0;
}

/* *m is taken, also on failure. */
static int send_request(struct client_session *s, struct wire_message *m, int64_t until_ms, struct err *err)
{
    int rc;

    wire_message_envelope(m)->seq = ++s->seq;
    while ((rc = wire_message_send(s->dealer.socket, NULL, m, err)) == -EAGAIN) {
        rc = wait_ready(s, ZMQ_POLLOUT, until_ms, err);
        if (rc < 0)
            break;
    }
    wire_message_free(m);
    return rc == -EHOSTUNREACH ? lost(s, err) : rc;
}

/* The next message of any type. */
static int receive_any(struct client_session *s, int64_t until_ms, struct wire_message **ret, struct err *err)
{
    int rc;

    while ((rc = wire_message_receive(s->dealer.socket, NULL, NULL, ret, err)) == -EAGAIN) {
        rc = wait_ready(s, ZMQ_POLLIN, until_ms, err);
        if (rc < 0)
            return rc;
    }
    return rc < 0 ? err_prefix(err, -EBADMSG, "the broker's answer") : 0;
}

/* Rows are answered in order and before all later requests. Returns 1 if `m` is such an answer. */
static int is_rows_answer(struct client_session *s, const struct msg *m)
{
    if ((m->type != MSG_JOB_ROWS_OK && m->type != MSG_JOB_PUSHED) || s->n_unanswered == 0)
        return 0;
    s->n_unanswered--;
    if (m->type == MSG_JOB_PUSHED)
        return 1;
    s->n_items = m->job_rows_ok.n_items;
    if (m->job_rows_ok.is_compared)
        s->compared = m->job_rows_ok.compared;
    return 1;
}

/* Wait for the answer of request `seq`, which must be of `type`. */
static int receive_answer(struct client_session *s, uint64_t seq, enum msg_type type, int64_t until_ms,
                          struct wire_message **ret, struct err *err)
{
    for (;;) {
        struct wire_message *message;
        const struct msg *m;
        int rc = receive_any(s, until_ms, &message, err);

        if (rc < 0)
            return rc;
        m = wire_message_envelope(message);
        if (m->type == MSG_REFUSE && (m->seq == 0 || m->seq >= (s->n_unanswered ? s->unanswered_from : seq))) {
            rc = refusal(s, &m->refuse, err);
        } else if (is_rows_answer(s, m) || m->seq != seq) {
            wire_message_free(message); /* answer to rows or to a request that timed out, or a heartbeat */
            continue;
        } else if (m->type != type) {
            rc = err_set(err, -EBADMSG, "the broker answers %s, not %s", msg_type_name(m->type), msg_type_name(type));
        } else {
            *ret = message;
            return 0;
        }
        wire_message_free(message);
        return rc;
    }
}

int client_session_exchange(struct client_session *s, struct wire_message *m, enum msg_type answer,
                            struct wire_message **ret, struct err *err)
{
    int64_t until_ms = clock_mono_ms() + s->timeout_ms;
    int rc;

    if (s->lost) {
        wire_message_free(m);
        return lost(s, err);
    }
    rc = send_request(s, m, until_ms, err);
    return rc < 0 ? rc : receive_answer(s, s->seq, answer, until_ms, ret, err);
}

int client_session_next_answer(struct client_session *s, enum msg_type answer, struct wire_message **ret,
                               struct err *err)
{
    return s->lost ? lost(s, err) : receive_answer(s, s->seq, answer, clock_mono_ms() + s->timeout_ms, ret, err);
}

int client_session_take_rows(struct wire_message *answer, struct buf *ret, uint32_t *ret_n, struct err *err)
{
    struct row_cursor found;
    int rc = 0;

    wire_message_rows(answer, &found);
    *ret_n = found.n_rows;
    for (size_t i = 0; rc == 0 && i < found.n_frames; i++)
        rc = buf_append(ret, found.frames[i].data, found.frames[i].size_bytes);
    row_cursor_release(&found);
    wire_message_free(answer);
    return rc < 0 ? err_set(err, rc, "no memory for an answer") : 0;
}

static int ask(struct client_session *s, const struct msg *request, enum msg_type answer, struct msg *ret,
               struct err *err)
{
    struct wire_message *m, *answered = NULL;
    int rc = wire_message_new(request->type, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    *wire_message_envelope(m) = *request;
    rc = client_session_exchange(s, m, answer, &answered, err);
    if (rc < 0)
        return rc;
    *ret = *wire_message_envelope(answered);
    ret->memory = NULL; /* the answers used here own no memory */
    wire_message_free(answered);
    return 0;
}

/* -- open and close */

static int greet(struct client_session *s, int64_t until_ms, struct err *err)
{
    struct msg m, answer;
    char host[MSG_NAME_SIZE] = "";
    int rc;

    msg_init(&m, MSG_HELLO);
    msg_init(&answer, MSG_WELCOME);
    m.hello.role = MSG_ROLE_CLIENT;
    m.hello.min_version = m.hello.max_version = MSG_VERSION;
    m.hello.pid = (uint32_t)getpid();
    randombytes_buf(&m.hello.boot_nonce, sizeof(m.hello.boot_nonce));
    if (gethostname(host, sizeof(host) - 1) == 0)
        (void)msg_text_set(m.hello.host, sizeof(m.hello.host), host);
    s->timeout_ms = until_ms - clock_mono_ms();
    rc = ask(s, &m, MSG_WELCOME, &answer, err);
    if (rc == 0 && answer.welcome.version != MSG_VERSION)
        rc = err_set(err, -EPROTONOSUPPORT, "the broker speaks version %u, this program %d", answer.welcome.version,
                     MSG_VERSION);
    if (rc == 0)
        s->epoch = answer.welcome.epoch;
    return rc;
}

int client_session_open(const char *endpoint, const struct wire_keys *keys, int64_t timeout_ms,
                        struct client_session **ret, struct err *err)
{
    static const struct wire_keys none;
    int64_t until_ms = clock_mono_ms() + timeout_ms;
    struct client_session *s;
    const char *key_error = NULL;
    int rc = wire_endpoint_check_connect(endpoint, keys ? keys : &none, err);

    if (rc < 0)
        return rc;
    if (sodium_init() < 0)
        return err_set(err, -EIO, "the system gives no random numbers");
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "no memory for a session");
    for (;;) {
        s->lost = false;
        rc = dealer_open(&s->dealer, endpoint, keys ? keys : &none, err);
        if (rc == 0)
            rc = greet(s, until_ms, err);
        key_error = dealer_key_error(&s->dealer);
        if (rc != -ECONNRESET || s->dealer.refused || clock_mono_ms() >= until_ms)
            break;
        dealer_close(&s->dealer);
        /* nobody listens: the broker may be starting, and no event will tell */
        (void)zmq_poll(NULL, 0, RETRY_MS);
    }
    if (rc < 0 && s->dealer.refused)
        rc = err_set(err, -EACCES, "%s: %s", endpoint, key_error);
    else if ((rc == -ECONNRESET || rc == -ETIMEDOUT) && key_error)
        rc = err_set(err, -ETIMEDOUT, "%s: %s", endpoint, key_error);
    else if (rc == -ECONNRESET || rc == -ETIMEDOUT)
        rc = err_set(err, -ETIMEDOUT, "no broker answers at %s", endpoint);
    s->timeout_ms = DEFAULT_TIMEOUT_MS;
    if (rc < 0)
        client_session_close(&s);
    else
        *ret = s;
    return rc;
}

void client_session_close(struct client_session **sp)
{
    struct client_session *s = *sp;
    struct wire_message *m;

    if (!s)
        return;
    *sp = NULL;
    if (dealer_is_open(&s->dealer) && s->epoch && !s->lost && wire_message_new(MSG_BYE, &m) == 0) {
        if (wire_message_send(s->dealer.socket, NULL, m, NULL) < 0) {
            /* the broker notices the closed connection */
        }
        wire_message_free(m);
    }
    dealer_close(&s->dealer);
    free(s);
}

void client_session_set_timeout(struct client_session *s, int64_t timeout_ms)
{
    s->timeout_ms = timeout_ms;
}

/* -- requests */

int client_session_job_open(struct client_session *s, const struct msg_job_open *open, struct msg_job_opened *ret,
                            const struct msg_recipe **ret_recipe, struct err *err)
{
    struct msg m, answer;
    int rc;

    msg_init(&m, MSG_JOB_OPEN);
    m.job_open = *open;
    s->has_recipe = false;
    rc = ask(s, &m, MSG_JOB_OPENED, &answer, err);
    *ret_recipe = rc < 0 && s->has_recipe ? &s->recipe : NULL;
    if (rc == 0)
        *ret = answer.job_opened;
    return rc;
}

/* `keys` NULL: the sources. */
static int find(struct client_session *s, uint64_t job, struct buf *keys, uint32_t n_keys, struct buf *ret,
                uint32_t *ret_n, struct err *err)
{
    struct wire_message *m, *answer = NULL;
    int rc = wire_message_new(MSG_JOB_FIND, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_find = (struct msg_job_find){.job = job, .sources = !keys};
    rc = keys ? wire_message_add_rows(m, keys, n_keys) : 0;
    if (rc < 0) {
        wire_message_free(m);
        return err_set(err, rc, "the keys do not fit a message");
    }
    rc = client_session_exchange(s, m, MSG_JOB_FOUND, &answer, err);
    return rc < 0 ? rc : client_session_take_rows(answer, ret, ret_n, err);
}

int client_session_find_sources(struct client_session *s, uint64_t job, struct buf *ret, uint32_t *ret_n,
                                struct err *err)
{
    return find(s, job, NULL, 0, ret, ret_n, err);
}

int client_session_find_items(struct client_session *s, uint64_t job, struct buf *keys, uint32_t n_keys,
                              struct buf *ret, uint32_t *ret_n, struct err *err)
{
    return find(s, job, keys, n_keys, ret, ret_n, err);
}

/* Wait until at most `n` row messages are unanswered. */
static int settle_rows(struct client_session *s, unsigned n, int64_t until_ms, struct err *err)
{
    while (s->n_unanswered > n) {
        struct wire_message *message;
        const struct msg *m;
        int rc = receive_any(s, until_ms, &message, err);

        if (rc < 0)
            return rc;
        m = wire_message_envelope(message);
        if (m->type == MSG_REFUSE) {
            rc = refusal(s, &m->refuse, err);
            s->n_unanswered--;
        } else {
            (void)is_rows_answer(s, m); /* other messages answer earlier requests */
        }
        wire_message_free(message);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int client_session_settle(struct client_session *s, bool all, struct err *err)
{
    return s->lost ? lost(s, err) : settle_rows(s, all ? 0 : MAX_UNANSWERED - 1, clock_mono_ms() + s->timeout_ms, err);
}

int client_session_send_rows(struct client_session *s, struct wire_message *m, struct buf *rows, uint32_t n_rows,
                             struct err *err)
{
    int64_t until_ms = clock_mono_ms() + s->timeout_ms;
    int rc = client_session_settle(s, false, err);

    if (rc == 0) {
        rc = wire_message_add_rows(m, rows, n_rows);
        if (rc < 0)
            (void)err_set(err, rc, "%zu bytes of rows do not fit a message", rows->size_bytes);
    }
    if (rc < 0) {
        wire_message_free(m);
        return rc;
    }
    rc = send_request(s, m, until_ms, err);
    if (rc < 0)
        return rc;
    if (s->n_unanswered++ == 0)
        s->unanswered_from = s->seq;
    return 0;
}

static int send_rows(struct client_session *s, const struct msg_job_rows *what, struct buf *rows, uint32_t n_rows,
                     struct err *err)
{
    struct wire_message *m;
    int rc = wire_message_new(MSG_JOB_ROWS, &m);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(m)->job_rows = *what;
    return client_session_send_rows(s, m, rows, n_rows, err);
}

int client_session_rows(struct client_session *s, uint64_t job, struct buf *rows, uint32_t n_rows,
                        uint64_t *ret_n_items, struct err *err)
{
    int rc = send_rows(s, &(struct msg_job_rows){.job = job}, rows, n_rows, err);

    if (rc == 0 && ret_n_items)
        *ret_n_items = s->n_items;
    return rc;
}

int client_session_compare(struct client_session *s, uint64_t job, const struct msg_comparison *begin, struct buf *rows,
                           uint32_t n_rows, struct err *err)
{
    struct msg_job_rows what = {.job = job, .compare = true, .begin = begin};

    if (begin)
        what.comparison = *begin;
    return send_rows(s, &what, rows, n_rows, err);
}

const struct msg_compared *client_session_compared(const struct client_session *s)
{
    return &s->compared;
}

int client_session_sources(struct client_session *s, uint64_t job, struct buf *rows, uint32_t n_rows, struct err *err)
{
    int rc = send_rows(s, &(struct msg_job_rows){.job = job, .sources = true}, rows, n_rows, err);

    return rc < 0 ? rc : settle_rows(s, 0, clock_mono_ms() + s->timeout_ms, err);
}

static int ask_of_job(struct client_session *s, enum msg_type request, uint64_t job, enum msg_type answer,
                      struct msg *ret, struct err *err)
{
    struct msg m;

    msg_init(&m, request);
    m.job_ref.job = job;
    return ask(s, &m, answer, ret, err);
}

int client_session_seal(struct client_session *s, uint64_t job, uint64_t disk_bytes, struct msg_job_accepted *ret,
                        struct err *err)
{
    struct msg m, answer;
    int rc = settle_rows(s, 0, clock_mono_ms() + s->timeout_ms, err);

    msg_init(&m, MSG_JOB_SEAL);
    m.job_seal = (struct msg_job_seal){job, disk_bytes};
    if (rc == 0)
        rc = ask(s, &m, MSG_JOB_ACCEPTED, &answer, err);
    if (rc == 0)
        *ret = answer.job_accepted;
    return rc;
}

int client_session_query(struct client_session *s, uint64_t job, struct msg_job_progress *ret, struct err *err)
{
    struct msg answer;
    int rc = ask_of_job(s, MSG_JOB_QUERY, job, MSG_JOB_PROGRESS, &answer, err);

    if (rc == 0)
        *ret = answer.job_progress;
    return rc;
}

int client_session_stop_job(struct client_session *s, uint64_t job, struct msg_job_progress *ret, struct err *err)
{
    struct msg answer;
    int rc = ask_of_job(s, MSG_JOB_STOP, job, MSG_JOB_PROGRESS, &answer, err);

    if (rc == 0)
        *ret = answer.job_progress;
    return rc;
}

int client_session_shutdown(struct client_session *s, struct err *err)
{
    struct msg m, answer;

    msg_init(&m, MSG_SHUTDOWN);
    return ask(s, &m, MSG_BYE, &answer, err);
}
