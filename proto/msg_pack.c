#include "proto/model_pb.h"
#include "proto/msg_pb.h"
#include "proto/recipe_pb.h"

#include <errno.h>
#include <string.h>

/* The parts of a message besides its envelope. On the stack of msg_pack; points into the plain struct. */
struct parts {
    Blipline__Envelope envelope;
    Blipline__Tensor tensors[MSG_MAX_TENSORS], *tensor_list[MSG_MAX_TENSORS];
    Blipline__Lease lease;
    struct msg_recipe_pb recipe;
    Blipline__Selection selections[MSG_MAX_TENSORS], *selection_list[MSG_MAX_TENSORS];
    Blipline__Timing timing;
    Blipline__Counters counters;
    Blipline__Node nodes[MSG_MAX_NODES], *node_list[MSG_MAX_NODES];
    struct msg_progress_pb progress;
    union model_message_pb model;
    union {
        Blipline__Hello hello;
        Blipline__Welcome welcome;
        Blipline__Refuse refuse;
        Blipline__Credit credit;
        Blipline__Work work;
        Blipline__Result result;
        Blipline__Failure failure;
        Blipline__Return return_lease;
        Blipline__Heartbeat heartbeat;
        Blipline__Drain drain;
        Blipline__Bye bye;
        struct {
            Blipline__JobOpen job_open;
            Blipline__Submission submission;
        };
        Blipline__JobOpened job_opened;
        Blipline__JobRows job_rows;
        Blipline__JobRowsOk job_rows_ok;
        Blipline__JobSeal job_seal;
        Blipline__JobAccepted job_accepted;
        Blipline__JobQuery job_query;
        Blipline__JobAgain job_again;
        Blipline__JobStop job_stop;
        Blipline__JobClose job_close;
        Blipline__JobFind job_find;
        Blipline__JobFound job_found;
        Blipline__JobList job_list;
        Blipline__JobListed job_listed;
        Blipline__JobControl job_control;
        Blipline__FleetQuery fleet_query;
        Blipline__Fleet fleet;
        Blipline__StoreRead store_read;
        Blipline__StoreRows store_rows;
        Blipline__JobPush job_push;
        Blipline__JobPushed job_pushed;
        Blipline__Shutdown shutdown;
    } body;
    Blipline__Comparison comparison;
    Blipline__Compared compared;
    ProtobufCBinaryData codes[MSG_MAX_RETRY_CODES];
};

/* The structs of protobuf-c lack const, but packing only reads. */
static ProtobufCBinaryData bytes_to_pb(const void *data, size_t n)
{
    return (ProtobufCBinaryData){.len = n, .data = (uint8_t *)data};
}

ProtobufCBinaryData msg_text_to_pb(const char *text)
{
    return bytes_to_pb(text, strlen(text));
}

ProtobufCBinaryData msg_fingerprint_to_pb(const struct fingerprint *f)
{
    return bytes_to_pb(f->bytes, fingerprint_is_none(f) ? 0 : sizeof(f->bytes));
}

void msg_node_to_pb(const struct msg_node *from, Blipline__Node *to)
{
    blipline__node__init(to);
    to->stage = (Blipline__Stage)from->stage;
    to->needs = from->needs;
    to->fingerprint = msg_fingerprint_to_pb(&from->fingerprint);
    to->out_bytes = from->out_bytes;
    to->model = msg_text_to_pb(from->model);
    to->tasks = from->tasks;
}

static Blipline__Lease *lease_to_pb(const struct msg_lease *from, struct parts *p)
{
    blipline__lease__init(&p->lease);
    p->lease.epoch = from->epoch;
    p->lease.id = from->id;
    p->lease.job = from->job;
    p->lease.unit = from->unit;
    p->lease.node = from->node;
    p->lease.attempt = from->attempt;
    p->lease.first = from->first;
    p->lease.count = from->count;
    return &p->lease;
}

static void tensors_to_pb(const struct msg *m, struct parts *p)
{
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct msg_tensor *from = &m->tensors[i];
        Blipline__Tensor *to = &p->tensors[i];

        blipline__tensor__init(to);
        to->dtype = (Blipline__DType)from->dtype;
        to->n_shape = from->n_dims;
        to->shape = (uint32_t *)from->shape;
        to->transport = (Blipline__Transport)from->transport;
        to->xxh3 = from->xxh3;
        to->n_frames = from->n_frames;
        to->inline_data = bytes_to_pb(from->inline_data, from->inline_bytes);
        p->tensor_list[i] = to;
    }
    p->envelope.n_tensors = m->n_tensors;
    p->envelope.tensors = p->tensor_list;
}

static void hello_to_pb(const struct msg_hello *from, struct parts *p)
{
    Blipline__Hello *to = p->envelope.hello = &p->body.hello;

    blipline__hello__init(to);
    to->role = (Blipline__Hello__Role)from->role;
    to->min_version = from->min_version;
    to->max_version = from->max_version;
    to->host = msg_text_to_pb(from->host);
    to->boot_nonce = from->boot_nonce;
    to->pid = from->pid;
    to->stage = (Blipline__Stage)from->stage;
    to->device = msg_text_to_pb(from->device);
    to->dtype = (Blipline__DType)from->dtype;
    to->fingerprint = msg_fingerprint_to_pb(&from->fingerprint);
    to->model = msg_text_to_pb(from->model);
    to->window_items = from->window_items;
    to->window_bytes = from->window_bytes;
    to->epoch = from->epoch;
    to->n_lease_ids = from->n_lease_ids;
    to->lease_ids = (uint64_t *)from->lease_ids;
}

static void result_to_pb(const struct msg_result *from, struct parts *p)
{
    blipline__timing__init(&p->timing);
    p->timing.compute_ns = from->timing.compute_ns;
    p->timing.decode_ns = from->timing.decode_ns;
    p->timing.resize_ns = from->timing.resize_ns;
    p->timing.wait_ns = from->timing.wait_ns;
    p->envelope.result = &p->body.result;
    blipline__result__init(&p->body.result);
    p->body.result.lease = lease_to_pb(&from->lease, p);
    p->body.result.timing = &p->timing;
}

static void heartbeat_to_pb(const struct msg_heartbeat *from, struct parts *p)
{
    Blipline__Heartbeat *to = p->envelope.heartbeat = &p->body.heartbeat;
    Blipline__Counters *c = &p->counters;

    blipline__counters__init(c);
    c->items = from->n_items;
    blipline__heartbeat__init(to);
    to->epoch = from->epoch;
    to->n_lease_ids = from->n_lease_ids;
    to->lease_ids = (uint64_t *)from->lease_ids;
    to->progress = from->progress;
    to->counters = c;
}

static void job_open_to_pb(const struct msg_job_open *from, struct parts *p)
{
    Blipline__JobOpen *to = p->envelope.job_open = &p->body.job_open;

    blipline__job_open__init(to);
    msg_recipe_to_pb(&from->recipe, &p->recipe);
    for (uint32_t i = 0; i < from->n_nodes; i++) {
        msg_node_to_pb(&from->nodes[i], &p->nodes[i]);
        p->node_list[i] = &p->nodes[i];
    }
    to->path = msg_text_to_pb(from->path);
    to->recipe = &p->recipe.recipe;
    to->n_nodes = from->n_nodes;
    to->nodes = p->node_list;
    to->source = msg_text_to_pb(from->source);
    to->unit_items = from->unit_items;
    to->create = from->create;
    to->priority = from->priority;
    to->max_failures = from->max_failures;
    to->max_failed_per_mille = from->max_failed_per_mille;
    to->check = from->check;
    to->job = from->job;
    if (from->submission.given) {
        to->submission = &p->body.submission;
        blipline__submission__init(to->submission);
        to->submission->token = bytes_to_pb(from->submission.token, sizeof(from->submission.token));
        to->submission->name = msg_text_to_pb(from->submission.name);
        to->submission->push = from->submission.push;
    }
    if (from->job) {
        to->recipe = NULL;
        to->n_nodes = 0;
    }
}

static void work_to_pb(const struct msg_work *from, struct parts *p)
{
    Blipline__Work *to = p->envelope.work = &p->body.work;

    blipline__work__init(to);
    to->lease = lease_to_pb(&from->lease, p);
    msg_recipe_to_pb(&from->recipe, &p->recipe);
    to->recipe = &p->recipe.recipe;
    to->tasks = from->tasks;
    for (uint32_t i = 0; i < from->n_selections; i++) {
        blipline__selection__init(&p->selections[i]);
        p->selections[i].tensor = from->selections[i].tensor;
        p->selections[i].rows = bytes_to_pb(from->selections[i].rows, from->selections[i].n_bytes);
        p->selection_list[i] = &p->selections[i];
    }
    to->n_selections = from->n_selections;
    to->selections = p->selection_list;
}

/* Bodies with a lease and little else. */
static void lease_body_to_pb(const struct msg *m, struct parts *p)
{
    if (m->type == MSG_WORK) {
        work_to_pb(&m->work, p);
    } else if (m->type == MSG_FAILURE) {
        p->envelope.failure = &p->body.failure;
        blipline__failure__init(&p->body.failure);
        p->body.failure.lease = lease_to_pb(&m->failure.lease, p);
        p->body.failure.code = msg_text_to_pb(m->failure.code);
        p->body.failure.text = msg_text_to_pb(m->failure.text);
    } else {
        p->envelope.return_lease = &p->body.return_lease;
        blipline__return__init(&p->body.return_lease);
        p->body.return_lease.lease = lease_to_pb(&m->return_lease.lease, p);
        p->body.return_lease.unseen = msg_text_to_pb(m->return_lease.unseen);
    }
}

/* Bodies that consist of numbers only. Setting one pointer of the envelope's union sets them all. */
static void plain_body_to_pb(const struct msg *m, struct parts *p)
{
    p->envelope.hello = &p->body.hello;
    switch (m->type) {
    case MSG_WELCOME:
        p->body.welcome = (Blipline__Welcome)BLIPLINE__WELCOME__INIT;
        p->body.welcome.epoch = m->welcome.epoch;
        p->body.welcome.version = m->welcome.version;
        p->body.welcome.heartbeat_ms = m->welcome.heartbeat_ms;
        p->body.welcome.lease_ms = m->welcome.lease_ms;
        p->body.welcome.takes_models = m->welcome.takes_models;
        return;
    case MSG_REFUSE:
        p->body.refuse = (Blipline__Refuse)BLIPLINE__REFUSE__INIT;
        p->body.refuse.reason = (Blipline__Refuse__Reason)m->refuse.reason;
        p->body.refuse.text = msg_text_to_pb(m->refuse.text);
        if (m->refuse.has_recipe) {
            msg_recipe_to_pb(&m->refuse.recipe, &p->recipe);
            p->body.refuse.recipe = &p->recipe.recipe;
        }
        return;
    case MSG_CREDIT:
        p->body.credit = (Blipline__Credit)BLIPLINE__CREDIT__INIT;
        p->body.credit.window_items = m->credit.window_items;
        p->body.credit.window_bytes = m->credit.window_bytes;
        return;
    case MSG_DRAIN:
        p->body.drain = (Blipline__Drain)BLIPLINE__DRAIN__INIT;
        return;
    case MSG_BYE:
        p->body.bye = (Blipline__Bye)BLIPLINE__BYE__INIT;
        return;
    default:
        p->body.shutdown = (Blipline__Shutdown)BLIPLINE__SHUTDOWN__INIT;
        return;
    }
}

void msg_codes_to_pb(uint32_t n, const char codes[][MSG_CODE_SIZE], ProtobufCBinaryData *ret)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = msg_text_to_pb(codes[i]);
}

static Blipline__Comparison *comparison_to_pb(const struct msg_comparison *from, struct parts *p)
{
    blipline__comparison__init(&p->comparison);
    p->comparison.refresh = from->refresh;
    p->comparison.all_failed = from->all_failed;
    msg_codes_to_pb(from->n_codes, from->codes, p->codes);
    p->comparison.n_codes = from->n_codes;
    p->comparison.codes = p->codes;
    return &p->comparison;
}

static Blipline__Compared *compared_to_pb(const struct msg_compared *from, struct parts *p)
{
    blipline__compared__init(&p->compared);
    p->compared.n_new = from->n_new;
    p->compared.n_damaged = from->n_damaged;
    p->compared.n_retried = from->n_retried;
    p->compared.n_refreshed = from->n_refreshed;
    p->compared.n_changed = from->n_changed;
    p->compared.n_other_fields = from->n_other_fields;
    p->compared.other_fields_key = bytes_to_pb(from->other_fields_key, from->other_fields_key_bytes);
    p->compared.n_n_failed_with = from->n_codes;
    p->compared.n_failed_with = (uint64_t *)from->n_failed_with;
    return &p->compared;
}

static void job_body_to_pb(const struct msg *m, struct parts *p)
{
    p->envelope.hello = &p->body.hello;
    switch (m->type) {
    case MSG_JOB_OPENED:
        p->body.job_opened = (Blipline__JobOpened)BLIPLINE__JOB_OPENED__INIT;
        p->body.job_opened.job = m->job_opened.job;
        p->body.job_opened.n_items = m->job_opened.n_items;
        p->body.job_opened.n_units = m->job_opened.n_units;
        p->body.job_opened.n_done = m->job_opened.n_done;
        p->body.job_opened.n_again = m->job_opened.n_again;
        p->body.job_opened.n_redone = m->job_opened.n_redone;
        return;
    case MSG_JOB_ROWS:
        p->body.job_rows = (Blipline__JobRows)BLIPLINE__JOB_ROWS__INIT;
        p->body.job_rows.job = m->job_rows.job;
        p->body.job_rows.sources = m->job_rows.sources;
        p->body.job_rows.compare = m->job_rows.compare;
        if (m->job_rows.begin)
            p->body.job_rows.begin = comparison_to_pb(&m->job_rows.comparison, p);
        return;
    case MSG_JOB_AGAIN:
        p->body.job_again = (Blipline__JobAgain)BLIPLINE__JOB_AGAIN__INIT;
        p->body.job_again.job = m->job_ref.job;
        return;
    case MSG_JOB_CLOSE:
        p->body.job_close = (Blipline__JobClose)BLIPLINE__JOB_CLOSE__INIT;
        p->body.job_close.job = m->job_ref.job;
        return;
    case MSG_JOB_FIND:
        p->body.job_find = (Blipline__JobFind)BLIPLINE__JOB_FIND__INIT;
        p->body.job_find.job = m->job_find.job;
        p->body.job_find.sources = m->job_find.sources;
        return;
    case MSG_JOB_FOUND:
        p->body.job_found = (Blipline__JobFound)BLIPLINE__JOB_FOUND__INIT;
        p->body.job_found.job = m->job_ref.job;
        return;
    case MSG_JOB_LIST:
        p->body.job_list = (Blipline__JobList)BLIPLINE__JOB_LIST__INIT;
        p->body.job_list.from_job = m->job_list.from_job;
        return;
    case MSG_JOB_LISTED:
        p->body.job_listed = (Blipline__JobListed)BLIPLINE__JOB_LISTED__INIT;
        p->body.job_listed.next_job = m->job_listed.next_job;
        return;
    case MSG_JOB_CONTROL:
        p->body.job_control = (Blipline__JobControl)BLIPLINE__JOB_CONTROL__INIT;
        p->body.job_control.job = m->job_control.job;
        p->body.job_control.action = (Blipline__JobControl__Action)m->job_control.action;
        p->body.job_control.priority = m->job_control.priority;
        msg_codes_to_pb(m->job_control.n_codes, m->job_control.codes, p->codes);
        p->body.job_control.n_codes = m->job_control.n_codes;
        p->body.job_control.codes = p->codes;
        return;
    case MSG_JOB_PUSH:
        p->body.job_push = (Blipline__JobPush)BLIPLINE__JOB_PUSH__INIT;
        p->body.job_push.job = m->job_push.job;
        p->body.job_push.offset = m->job_push.offset;
        return;
    case MSG_JOB_PUSHED:
        p->body.job_pushed = (Blipline__JobPushed)BLIPLINE__JOB_PUSHED__INIT;
        p->body.job_pushed.job = m->job_pushed.job;
        p->body.job_pushed.n_items = m->job_pushed.n_items;
        return;
    case MSG_JOB_ROWS_OK:
        p->body.job_rows_ok = (Blipline__JobRowsOk)BLIPLINE__JOB_ROWS_OK__INIT;
        p->body.job_rows_ok.job = m->job_rows_ok.job;
        p->body.job_rows_ok.n_items = m->job_rows_ok.n_items;
        if (m->job_rows_ok.is_compared)
            p->body.job_rows_ok.compared = compared_to_pb(&m->job_rows_ok.compared, p);
        return;
    case MSG_JOB_SEAL:
        p->body.job_seal = (Blipline__JobSeal)BLIPLINE__JOB_SEAL__INIT;
        p->body.job_seal.job = m->job_seal.job;
        p->body.job_seal.disk_bytes = m->job_seal.disk_bytes;
        return;
    case MSG_JOB_ACCEPTED:
        p->body.job_accepted = (Blipline__JobAccepted)BLIPLINE__JOB_ACCEPTED__INIT;
        p->body.job_accepted.job = m->job_accepted.job;
        p->body.job_accepted.n_items = m->job_accepted.n_items;
        p->body.job_accepted.n_units = m->job_accepted.n_units;
        p->body.job_accepted.disk_room = m->job_accepted.disk_room;
        return;
    case MSG_JOB_QUERY:
        p->body.job_query = (Blipline__JobQuery)BLIPLINE__JOB_QUERY__INIT;
        p->body.job_query.job = m->job_ref.job;
        return;
    default:
        p->body.job_stop = (Blipline__JobStop)BLIPLINE__JOB_STOP__INIT;
        p->body.job_stop.job = m->job_ref.job;
        return;
    }
}

static void body_to_pb(const struct msg *m, struct parts *p)
{
    switch (m->type) {
    case MSG_HELLO:
        hello_to_pb(&m->hello, p);
        return;
    case MSG_RESULT:
        result_to_pb(&m->result, p);
        return;
    case MSG_HEARTBEAT:
        heartbeat_to_pb(&m->heartbeat, p);
        return;
    case MSG_JOB_OPEN:
        job_open_to_pb(&m->job_open, p);
        return;
    case MSG_JOB_PROGRESS:
        msg_progress_to_pb(&m->job_progress, &p->progress);
        p->envelope.job_progress = &p->progress.progress;
        return;
    case MSG_FLEET_QUERY:
        msg_fleet_query_to_pb(&m->fleet_query, p->envelope.fleet_query = &p->body.fleet_query);
        return;
    case MSG_FLEET:
        msg_fleet_to_pb(&m->fleet, p->envelope.fleet = &p->body.fleet);
        return;
    case MSG_WORK:
    case MSG_FAILURE:
    case MSG_RETURN:
        lease_body_to_pb(m, p);
        return;
    case MSG_STORE_READ:
        msg_store_read_to_pb(&m->store_read, &p->body.store_read);
        p->envelope.store_read = &p->body.store_read;
        return;
    case MSG_STORE_ROWS:
        msg_store_rows_to_pb(&m->store_rows, &p->body.store_rows);
        p->envelope.store_rows = &p->body.store_rows;
        return;
    case MSG_MODEL_OFFER:
    case MSG_MODEL_WANT:
    case MSG_MODEL_FILES:
    case MSG_MODEL_LIST:
    case MSG_MODEL_LISTED:
    case MSG_MODEL_GET:
        model_message_to_pb(m, &p->model, &p->envelope);
        return;
    default:
        if ((m->type >= MSG_JOB_OPENED && m->type <= MSG_JOB_STOP) || m->type >= MSG_JOB_AGAIN)
            job_body_to_pb(m, p);
        else
            plain_body_to_pb(m, p);
    }
}

int msg_pack(const struct msg *m, struct buf *buf, struct err *err)
{
    struct parts p;
    size_t n;
    int rc = msg_check(m, err);

    if (rc < 0)
        return -EINVAL;
    blipline__envelope__init(&p.envelope);
    p.envelope.version = m->version;
    p.envelope.seq = m->seq;
    p.envelope.n_row_frames = m->n_row_frames;
    p.envelope.n_rows = m->n_rows;
    tensors_to_pb(m, &p);
    p.envelope.body_case = (Blipline__Envelope__BodyCase)m->type;
    body_to_pb(m, &p);
    n = blipline__envelope__get_packed_size(&p.envelope);
    if (n > MSG_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "%s of %zu bytes, the limit is %d", msg_type_name(m->type), n, MSG_MAX_BYTES);
    rc = buf_reserve(buf, n);
    if (rc < 0)
        return err_set(err, rc, "%s: no memory for %zu bytes", msg_type_name(m->type), n);
    buf->size_bytes += blipline__envelope__pack(&p.envelope, buf->data + buf->size_bytes);
    return 0;
}
