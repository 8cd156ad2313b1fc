#include "proto/model_pb.h"
#include "proto/msg_pb.h"

#include <errno.h>
#include <string.h>

static bool dtype_known(enum dtype d)
{
    return dtype_size_bytes(d) != 0;
}

static bool stage_known(enum stage s)
{
    return s >= STAGE_ENCODE && s <= STAGE_LLM;
}

int msg_check_code(const char *code, struct err *err)
{
    size_t n = strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    if (n == 0 || code[n] != '\0')
        return err_set(err, -EBADMSG, "code is not a word of [a-z0-9_-]");
    return 0;
}

static int check_frames(const struct msg_tensor *t, uint64_t bytes, struct err *err)
{
    uint64_t least = (bytes + MSG_MAX_TENSOR_FRAME_BYTES - 1) / MSG_MAX_TENSOR_FRAME_BYTES;

    if (t->inline_bytes)
        return err_set(err, -EBADMSG, "tensor: bytes both inline and in frames");
    if (t->n_frames > MSG_MAX_TENSOR_FRAMES)
        return err_set(err, -EMSGSIZE, "tensor: %u frames, the limit is %d", t->n_frames, MSG_MAX_TENSOR_FRAMES);
    if (t->n_frames < least || t->n_frames > t->shape[0])
        return err_set(err, -EBADMSG, "tensor: %u frames for %llu bytes of %u items", t->n_frames,
                       (unsigned long long)bytes, t->shape[0]);
    return 0;
}

static int check_tensor(const struct msg_tensor *t, struct err *err)
{
    uint64_t bytes, item_bytes;

    if (!dtype_known(t->dtype))
        return err_set(err, -EBADMSG, "tensor: unknown dtype %d", (int)t->dtype);
    if (t->n_dims == 0 || t->n_dims > MSG_MAX_DIMS)
        return err_set(err, -EMSGSIZE, "tensor: %u dimensions, not 1 to %d", t->n_dims, MSG_MAX_DIMS);
    for (uint32_t i = 1; i < t->n_dims; i++)
        if (t->shape[i] == 0)
            return err_set(err, -EBADMSG, "tensor: dimension %u is 0", i);
    if (msg_tensor_bytes(t, &bytes, &item_bytes) < 0)
        return err_set(err, -EMSGSIZE, "tensor: the shape's product passes %llu bytes",
                       (unsigned long long)MSG_MAX_TENSOR_BYTES);
    if (item_bytes > MSG_MAX_TENSOR_FRAME_BYTES)
        return err_set(err, -EMSGSIZE, "tensor: %llu bytes an item, the limit is 8 MiB",
                       (unsigned long long)item_bytes);
    if (t->transport == MSG_TRANSPORT_FRAME)
        return check_frames(t, bytes, err);
    if (t->transport != MSG_TRANSPORT_INLINE)
        return err_set(err, -EOPNOTSUPP, "tensor: transport %s is not implemented",
                       (int)t->transport == 3   ? "SHM"
                       : (int)t->transport == 4 ? "PEER"
                                                : "UNSPECIFIED");
    if (t->n_frames || t->inline_bytes > MSG_MAX_INLINE_BYTES || t->inline_bytes != bytes)
        return err_set(err, -EBADMSG, "tensor: %u bytes inline, but the shape has %llu", t->inline_bytes,
                       (unsigned long long)bytes);
    return 0;
}

/* Checks which messages may have rows and tensors, and how many. */
static int check_frames_of_type(const struct msg *m, struct err *err)
{
    bool rows = m->type == MSG_WORK || m->type == MSG_RESULT || m->type == MSG_JOB_ROWS || m->type == MSG_JOB_AGAIN ||
                m->type == MSG_JOB_FIND || m->type == MSG_JOB_FOUND || m->type == MSG_JOB_LISTED ||
                m->type == MSG_FLEET || m->type == MSG_STORE_ROWS || m->type == MSG_JOB_PUSH ||
                m->type == MSG_JOB_PUSHED || m->type == MSG_MODEL_OFFER || m->type == MSG_MODEL_LISTED;
    bool tensors =
        m->type == MSG_WORK || m->type == MSG_RESULT || m->type == MSG_JOB_PUSH || m->type == MSG_MODEL_FILES;
    uint32_t n_frames = 0;
    int rc;

    if (m->n_row_frames > MSG_MAX_ROW_FRAMES || m->n_rows > MSG_MAX_ROWS)
        return err_set(err, -EMSGSIZE, "%u rows in %u frames, the limits are %d and %d", m->n_rows, m->n_row_frames,
                       MSG_MAX_ROWS, MSG_MAX_ROW_FRAMES);
    if (m->n_rows < m->n_row_frames || (m->n_rows && !m->n_row_frames))
        return err_set(err, -EBADMSG, "%u rows in %u frames", m->n_rows, m->n_row_frames);
    if (m->n_tensors > MSG_MAX_TENSORS)
        return err_set(err, -EMSGSIZE, "%u tensors, the limit is %d", m->n_tensors, MSG_MAX_TENSORS);
    if ((m->n_rows && !rows) || (m->n_tensors && !tensors))
        return err_set(err, -EBADMSG, "%s carries no %s", msg_type_name(m->type), tensors || rows ? "tensors" : "rows");
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        rc = check_tensor(&m->tensors[i], err);
        if (rc < 0)
            return rc;
        n_frames += m->tensors[i].n_frames;
    }
    if (n_frames > MSG_MAX_TENSOR_FRAMES)
        return err_set(err, -EMSGSIZE, "%u tensor frames, the limit is %d", n_frames, MSG_MAX_TENSOR_FRAMES);
    return 0;
}

static int check_lease(const struct msg_lease *l, struct err *err)
{
    if (l->epoch == 0 || l->id == 0)
        return err_set(err, -EBADMSG, "lease without epoch or id");
    if (l->node >= MSG_MAX_NODES)
        return err_set(err, -EBADMSG, "lease: node %u, there are at most %d", l->node, MSG_MAX_NODES);
    if (l->count == 0 || l->count > MSG_MAX_UNIT_ITEMS || l->first > MSG_MAX_UNIT_ITEMS - l->count)
        return err_set(err, -EBADMSG, "lease: items %u + %u of a unit of at most %d", l->first, l->count,
                       MSG_MAX_UNIT_ITEMS);
    return 0;
}

int msg_check_nodes(const struct msg_node *nodes, uint32_t n_nodes, struct err *err)
{
    if (n_nodes == 0 || n_nodes > MSG_MAX_NODES)
        return err_set(err, -EBADMSG, "%u nodes, not 1 to %d", n_nodes, MSG_MAX_NODES);
    for (uint32_t i = 0; i < n_nodes; i++) {
        if (!stage_known(nodes[i].stage))
            return err_set(err, -EBADMSG, "node %u: unknown stage %d", i, (int)nodes[i].stage);
        if (nodes[i].needs >> i)
            return err_set(err, -EBADMSG, "node %u needs itself or a later node (0x%x)", i, nodes[i].needs);
        if (nodes[i].tasks & ~(uint32_t)MSG_TASK_ALL)
            return err_set(err, -EBADMSG, "node %u: unknown tasks 0x%x", i, nodes[i].tasks);
        if (nodes[i].out_bytes > MSG_MAX_TENSOR_FRAME_BYTES)
            return err_set(err, -EBADMSG, "node %u: %llu bytes an item, the limit is 8 MiB", i,
                           (unsigned long long)nodes[i].out_bytes);
    }
    return 0;
}

static int check_hello(const struct msg_hello *h, struct err *err)
{
    if (h->role != MSG_ROLE_WORKER && h->role != MSG_ROLE_CLIENT)
        return err_set(err, -EBADMSG, "hello: unknown role %d", (int)h->role);
    if (h->min_version == 0 || h->min_version > h->max_version)
        return err_set(err, -EBADMSG, "hello: versions %u to %u", h->min_version, h->max_version);
    if (h->role == MSG_ROLE_CLIENT)
        return 0;
    if (!stage_known(h->stage))
        return err_set(err, -EBADMSG, "hello: unknown stage %d", (int)h->stage);
    if (!dtype_known(h->dtype) && h->dtype != DTYPE_F8_E4M3)
        return err_set(err, -EBADMSG, "hello: unknown dtype %d", (int)h->dtype);
    if (!h->device[0])
        return err_set(err, -EBADMSG, "hello without device");
    if (h->window_items == 0 || h->window_items > MSG_MAX_ROWS)
        return err_set(err, -EBADMSG, "hello: a window of %u items", h->window_items);
    if (h->n_lease_ids > MSG_MAX_LEASE_IDS || (h->n_lease_ids && h->epoch == 0))
        return err_set(err, -EBADMSG, "hello: %u leases of epoch %llu", h->n_lease_ids, (unsigned long long)h->epoch);
    return 0;
}

static int check_welcome(const struct msg_welcome *w, struct err *err)
{
    if (w->epoch == 0)
        return err_set(err, -EBADMSG, "welcome without epoch");
    if (w->heartbeat_ms == 0 || w->heartbeat_ms > 3600000 || w->lease_ms <= w->heartbeat_ms)
        return err_set(err, -EBADMSG, "welcome: heartbeat %u ms, lease %u ms", w->heartbeat_ms, w->lease_ms);
    return 0;
}

/* Selection `s` must pick exactly n_rows rows of tensor `t`. */
static int check_selection(const struct msg_selection *s, const struct msg_tensor *t, uint32_t n_rows, struct err *err)
{
    uint32_t n = 0;

    if (s->n_bytes != (t->shape[0] + 7) / 8)
        return err_set(err, -EBADMSG, "work: a selection of %u bytes for a tensor of %u rows", s->n_bytes, t->shape[0]);
    for (uint32_t i = 0; i < s->n_bytes; i++)
        n += (uint32_t)__builtin_popcount(s->rows[i]);
    if (t->shape[0] % 8 && s->n_bytes && s->rows[s->n_bytes - 1] >> t->shape[0] % 8)
        return err_set(err, -EBADMSG, "work: a selection of rows beyond the %u of the tensor", t->shape[0]);
    if (n != n_rows)
        return err_set(err, -EBADMSG, "work: a selection of %u rows for %u items", n, n_rows);
    return 0;
}

static int check_work_tensors(const struct msg *m, struct err *err)
{
    const struct msg_work *w = &m->work;
    uint32_t next = 0;

    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct msg_tensor *t = &m->tensors[i];
        int rc = 0;

        if (msg_tensor_is_pictures(t))
            continue;
        if (next < w->n_selections && w->selections[next].tensor == i)
            rc = check_selection(&w->selections[next++], t, m->n_rows, err);
        else if (t->shape[0] != m->n_rows)
            rc = err_set(err, -EBADMSG, "work: tensor %u has %u rows, not %u", i, t->shape[0], m->n_rows);
        if (rc < 0)
            return rc;
    }
    if (next != w->n_selections)
        return err_set(err, -EBADMSG, "work: selections out of order, or of a missing tensor");
    return 0;
}

static int check_work(const struct msg *m, struct err *err)
{
    int rc = check_lease(&m->work.lease, err);

    if (rc < 0)
        return rc;
    if (m->n_rows == 0 || m->n_rows > m->work.lease.count)
        return err_set(err, -EBADMSG, "work: %u rows for %u leased items", m->n_rows, m->work.lease.count);
    if (m->work.tasks & ~(uint32_t)MSG_TASK_ALL)
        return err_set(err, -EBADMSG, "work: unknown tasks 0x%x", m->work.tasks);
    rc = check_work_tensors(m, err);
    return rc < 0 ? rc : msg_recipe_check(&m->work.recipe, err);
}

static int check_result(const struct msg *m, struct err *err)
{
    int rc = check_lease(&m->result.lease, err);

    if (rc < 0)
        return rc;
    if (m->n_rows == 0 || m->n_rows > m->result.lease.count)
        return err_set(err, -EBADMSG, "result: %u rows for %u leased items", m->n_rows, m->result.lease.count);
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].shape[0] > m->n_rows || m->tensors[i].shape[0] != m->tensors[0].shape[0])
            return err_set(err, -EBADMSG, "result: tensor %u has %u rows of %u", i, m->tensors[i].shape[0], m->n_rows);
    return 0;
}

static int check_failure(const struct msg_failure *f, struct err *err)
{
    int rc = check_lease(&f->lease, err);

    return rc < 0 ? rc : msg_check_code(f->code, err);
}

static int check_heartbeat(const struct msg_heartbeat *h, struct err *err)
{
    if (h->epoch == 0)
        return err_set(err, -EBADMSG, "heartbeat without epoch");
    if (h->n_lease_ids > MSG_MAX_LEASE_IDS)
        return err_set(err, -EMSGSIZE, "heartbeat of %u leases, the limit is %d", h->n_lease_ids, MSG_MAX_LEASE_IDS);
    return 0;
}

static int check_job_open(const struct msg_job_open *o, struct err *err)
{
    int rc;

    if ((o->path[0] != '\0') + (o->job != 0) + o->submission.given != 1)
        return err_set(err, -EBADMSG, "job_open: exactly one of path, job and submission must be given");
    if (o->unit_items > MSG_MAX_UNIT_ITEMS)
        return err_set(err, -EBADMSG, "job_open: units of %u items, the limit is %d", o->unit_items,
                       MSG_MAX_UNIT_ITEMS);
    if (o->max_failed_per_mille > 1000)
        return err_set(err, -EBADMSG, "job_open: %u of 1000 may fail", o->max_failed_per_mille);
    if (o->job)
        return o->n_nodes ? err_set(err, -EBADMSG, "job_open: a job that exists has its nodes already") : 0;
    rc = msg_recipe_check(&o->recipe, err);
    return rc < 0 ? rc : msg_check_nodes(o->nodes, o->n_nodes, err);
}

int msg_check_codes(uint32_t n, const char codes[][MSG_CODE_SIZE], const char *message, struct err *err)
{
    int rc = 0;

    if (n > MSG_MAX_RETRY_CODES)
        return err_set(err, -EMSGSIZE, "%s: %u codes, the limit is %d", message, n, MSG_MAX_RETRY_CODES);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = msg_check_code(codes[i], err);
    return rc;
}

static int check_job_rows(const struct msg_job_rows *r, struct err *err)
{
    if ((r->compare && r->sources) || (r->begin && !r->compare))
        return err_set(err, -EBADMSG, "job_rows: only items can be compared");
    return r->begin ? msg_check_codes(r->comparison.n_codes, r->comparison.codes, "job_rows", err) : 0;
}

static int check_compared(const struct msg_compared *c, struct err *err)
{
    if (c->n_codes > MSG_MAX_RETRY_CODES || c->other_fields_key_bytes > MSG_OTHER_KEY_BYTES)
        return err_set(err, -EMSGSIZE, "job_rows_ok: too many codes or a key that is too long");
    return 0;
}

static int check_progress(const struct msg_job_progress *p, struct err *err)
{
    if (p->state < MSG_JOB_IMPORTING || p->state > MSG_JOB_CANCELLED)
        return err_set(err, -EBADMSG, "job_progress: unknown state %d", (int)p->state);
    if (p->n_done > p->n_items || p->n_failed > p->n_done || p->n_units_done > p->n_units || p->n_again > p->n_done)
        return err_set(err, -EBADMSG, "job_progress: the counts contradict each other");
    if (p->n_stages > MSG_MAX_STAGES)
        return err_set(err, -EMSGSIZE, "job_progress: %u stages, the limit is %d", p->n_stages, MSG_MAX_STAGES);
    if (p->n_hung > MSG_MAX_HUNG)
        return err_set(err, -EMSGSIZE, "job_progress: %u hung workers, the limit is %d", p->n_hung, MSG_MAX_HUNG);
    for (uint32_t i = 0; i < p->n_stages; i++)
        if (!stage_known(p->stages[i].stage))
            return err_set(err, -EBADMSG, "job_progress: unknown stage %d", (int)p->stages[i].stage);
    return 0;
}

static int check_job_find(const struct msg *m, struct err *err)
{
    const uint32_t n_max = m->job_find.sources ? 0 : MSG_MAX_FIND_KEYS;

    if (m->n_rows > n_max || (m->n_rows == 0 && n_max))
        return err_set(err, -EBADMSG, "job_find: %u rows, not %d to %u", m->n_rows, n_max != 0, n_max);
    return 0;
}

static int check_job_control(const struct msg_job_control *c, struct err *err)
{
    if (c->job == 0)
        return err_set(err, -EBADMSG, "job_control without a job");
    if (c->action < MSG_JOB_PAUSE || c->action > MSG_JOB_RETRY)
        return err_set(err, -EBADMSG, "job_control: unknown action %d", (int)c->action);
    if (c->priority && c->action != MSG_JOB_PRIORITY)
        return err_set(err, -EBADMSG, "job_control: a priority with another action");
    if (c->n_codes && c->action != MSG_JOB_RETRY)
        return err_set(err, -EBADMSG, "job_control: codes with another action");
    return msg_check_codes(c->n_codes, c->codes, "job_control", err);
}

static int check_job_push(const struct msg *m, struct err *err)
{
    if (m->n_rows > MSG_MAX_UNIT_ITEMS)
        return err_set(err, -EMSGSIZE, "job_push: %u pictures, the limit is %d", m->n_rows, MSG_MAX_UNIT_ITEMS);
    if (m->n_tensors > (m->n_rows > 0 ? 1U : 0U) || (m->n_tensors && !msg_tensor_is_pictures(&m->tensors[0])) ||
        (m->n_tensors && m->tensors[0].n_frames > 1))
        return err_set(err, -EBADMSG, "job_push: the bytes of the pictures must be one tensor U8 of at most 8 MiB");
    return 0;
}

static int check_body(const struct msg *m, struct err *err)
{
    switch (m->type) {
    case MSG_HELLO:
        return check_hello(&m->hello, err);
    case MSG_WELCOME:
        return check_welcome(&m->welcome, err);
    case MSG_REFUSE:
        return (unsigned)m->refuse.reason > MSG_REASON_BUSY ? err_set(err, -EBADMSG, "refuse: unknown reason") : 0;
    case MSG_WORK:
        return check_work(m, err);
    case MSG_RESULT:
        return check_result(m, err);
    case MSG_FAILURE:
        return check_failure(&m->failure, err);
    case MSG_RETURN:
        return check_lease(&m->return_lease.lease, err);
    case MSG_HEARTBEAT:
        return check_heartbeat(&m->heartbeat, err);
    case MSG_JOB_OPEN:
        return check_job_open(&m->job_open, err);
    case MSG_JOB_OPENED:
        return m->job_opened.n_done > m->job_opened.n_items || m->job_opened.n_again > m->job_opened.n_done
                   ? err_set(err, -EBADMSG, "job_opened: the counts contradict each other")
                   : 0;
    case MSG_JOB_PROGRESS:
        return check_progress(&m->job_progress, err);
    case MSG_JOB_ROWS:
        return check_job_rows(&m->job_rows, err);
    case MSG_JOB_FIND:
        return check_job_find(m, err);
    case MSG_JOB_LISTED:
        return m->n_rows > MSG_MAX_LISTED_JOBS
                   ? err_set(err, -EMSGSIZE, "job_listed: %u rows, the limit is %d", m->n_rows, MSG_MAX_LISTED_JOBS)
                   : 0;
    case MSG_JOB_CONTROL:
        return check_job_control(&m->job_control, err);
    case MSG_MODEL_OFFER:
    case MSG_MODEL_WANT:
    case MSG_MODEL_FILES:
    case MSG_MODEL_LISTED:
    case MSG_MODEL_GET:
        return model_message_check(m, err);
    case MSG_FLEET_QUERY:
    case MSG_FLEET:
        return msg_fleet_check(m, err);
    case MSG_STORE_READ:
        return msg_store_read_check(&m->store_read, err);
    case MSG_JOB_PUSH:
        return check_job_push(m, err);
    case MSG_JOB_ROWS_OK:
        return check_compared(&m->job_rows_ok.compared, err);
    case MSG_CREDIT:
    case MSG_DRAIN:
    case MSG_BYE:
    case MSG_JOB_AGAIN:
    case MSG_JOB_SEAL:
    case MSG_JOB_ACCEPTED:
    case MSG_JOB_QUERY:
    case MSG_JOB_STOP:
    case MSG_JOB_CLOSE:
    case MSG_JOB_FOUND:
    case MSG_JOB_LIST:
    case MSG_STORE_ROWS:
    case MSG_JOB_PUSHED:
    case MSG_MODEL_LIST:
    case MSG_SHUTDOWN:
        return 0;
    }
    return err_set(err, -EBADMSG, "unknown message type %d", (int)m->type);
}

int msg_check(const struct msg *m, struct err *err)
{
    int rc;

    /* HELLO and REFUSE are understood in all versions, so that peers can report a wrong version */
    if (m->version != MSG_VERSION && m->type != MSG_HELLO && m->type != MSG_REFUSE)
        return err_set(err, -EPROTONOSUPPORT, "protocol version %u, this program speaks version %d", m->version,
                       MSG_VERSION);
    rc = check_frames_of_type(m, err);
    return rc < 0 ? rc : check_body(m, err);
}
