#include "broker/models.h"

#include "base/log.h"
#include "broker/model_folder.h"
#include "wire/model_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((uint64_t)512 << 20) /* of all files */
enum { ASK_ANOTHER_MS = 10000 };

/* -- the list -- */

static struct kept_model *find(const struct models *all, const struct fingerprint *id)
{
    for (size_t i = 0; i < all->n; i++)
        if (fingerprint_equal(&all->list[i]->model.id, id))
            return all->list[i];
    return NULL;
}

/* NULL: there is no room for it. */
static struct kept_model *add(struct models *all, const struct model *m)
{
    const uint64_t bytes = model_file_bytes(m);
    struct kept_model *k = all->n < MODEL_MAX_LISTED && all->bytes + bytes <= MAX_BYTES ? calloc(1, sizeof(*k)) : NULL;

    if (!k)
        return NULL;
    k->model = *m;
    all->list[all->n++] = k;
    all->bytes += bytes;
    return k;
}

static void add_found(void *models, const struct model *m)
{
    struct kept_model *k = add(models, m);

    if (k)
        k->kept = true;
}

static void warn_skipped(const char *why)
{
    log_warn("event=model_skipped msg=\"%s; the files will be asked for again\"", why);
}

int models_load(struct models *all, const char *state_dir, struct err *err)
{
    int rc;

    if (!state_dir[0])
        return 0;
    (void)snprintf(all->folder, sizeof(all->folder), "%s/models", state_dir);
    rc = model_folder_list(all->folder, add_found, warn_skipped, all, err);
    if (rc == 0)
        log_info("event=models folder=\"%s\" models=%zu bytes=%llu", all->folder, all->n,
                 (unsigned long long)all->bytes);
    return rc;
}

void models_release(struct models *all)
{
    for (size_t i = 0; i < all->n; i++)
        free(all->list[i]);
    all->n = 0;
}

/* -- workers -- */

static bool same_work(const struct model_stage *a, const struct model_stage *b)
{
    return a->stage == b->stage && a->dtype == b->dtype && a->settings == b->settings;
}

/* Connected workers that compute this stage. `m`: of this model; NULL: or of another one with the same weights. */
static uint32_t count_workers(const struct models *all, const struct model *m, const struct model_stage *s)
{
    const struct peer *p;
    uint32_t n = 0;
    size_t at = 0;

    while ((p = peers_next(all->peers, &at)))
        n += (!m || fingerprint_equal(&p->offer.model, &m->id)) && p->stage == s->stage && p->dtype == s->dtype &&
             p->offer.settings == s->settings && fingerprint_equal(&p->offer.fingerprint, &s->fingerprint);
    return n;
}

/* Where to note what a worker computes: over the same, or over what nobody computes any more. NULL: no room. */
static struct model_stage *place_for(const struct models *all, struct model *m, const struct model_stage *s)
{
    struct model_stage *unused = NULL;

    for (uint32_t i = 0; i < m->n_stages; i++) {
        struct model_stage *old = &m->stages[i];

        if (same_work(old, s) && fingerprint_equal(&old->fingerprint, &s->fingerprint))
            return old;
        if (count_workers(all, m, old) == 0 && (!unused || same_work(old, s)) &&
            (same_work(old, s) || m->n_stages == MODEL_MAX_STAGES))
            unused = old;
    }
    if (!unused && m->n_stages < MODEL_MAX_STAGES)
        unused = &m->stages[m->n_stages++];
    return unused;
}

/* NULL: no memory. */
static struct committer_request *with_model(struct committer_request *r, const struct model *m)
{
    struct committer_model *copy = r ? calloc(1, sizeof(*copy)) : NULL;

    if (!copy) {
        committer_request_free(r);
        return NULL;
    }
    copy->model = *m;
    r->model = copy;
    return r;
}

/* Takes the contents. */
static void write_changes(struct models *all, struct kept_model *k, struct model_contents *contents)
{
    struct committer_request *r;

    if (k->writing || (!contents && !(k->kept && k->changed)))
        return;
    r = with_model(committer_request_new(COMMITTER_MODEL, 0, 0), &k->model);
    if (r) {
        r->model->has_files = contents;
        if (contents)
            r->model->files = *contents;
        k->writing = true;
        k->changed = false;
    } else if (contents) {
        model_contents_release(contents);
    }
    requests_post(all->requests, r);
}

static void ask(struct models *all, struct kept_model *k, uint64_t peer)
{
    const int64_t now_ms = all->requests->driver->now_ms;
    struct msg m;

    if (k->kept || k->writing || (k->asked && now_ms - k->asked_ms < ASK_ANOTHER_MS))
        return;
    k->asked = peer;
    k->asked_ms = now_ms;
    msg_init(&m, MSG_MODEL_WANT);
    m.model_ref.model = k->model.id;
    answer_send(all->answers, peer, &m);
}

/* Ask another worker that has offered the model. False: there is none. */
static bool ask_another(struct models *all, struct kept_model *k, uint64_t peer)
{
    const struct peer *p;
    size_t at = 0;

    k->asked = 0;
    while (!k->asked && (p = peers_next(all->peers, &at)))
        if (p->number != peer && fingerprint_equal(&p->offer.model, &k->model.id))
            ask(all, k, p->number);
    return k->asked;
}

static int read_offer(const struct peer *p, const struct wire_message *message, struct model *ret, struct err *err)
{
    struct row_cursor rows;
    const struct model_stage *s = &ret->stages[0];
    int rc;

    wire_message_rows(message, &rows);
    rc = row_cursor_next_model(&rows, ret, err);
    row_cursor_release(&rows);
    if (rc < 0)
        return rc;
    if (rc == 0 || ret->n_stages != 1 || s->stage != p->stage || s->dtype != p->dtype ||
        strcmp(ret->name, p->model) != 0 || (!s->settings && !fingerprint_equal(&s->fingerprint, &p->fingerprint)))
        return err_set(err, -EBADMSG, "the offer of a model contradicts the worker's Hello");
    return 0;
}

int models_offer(struct models *all, struct peer *p, const struct wire_message *message, struct err *err)
{
    static struct model m; /* large for a stack */
    struct kept_model *k;
    struct model_stage *s;
    int rc = read_offer(p, message, &m, err);

    if (rc < 0 || !all->folder[0])
        return rc;
    if (!fingerprint_is_none(&p->offer.model))
        return err_set(err, -EBADMSG, "a second offer of a model");
    memcpy(m.stages[0].host, p->host, sizeof(p->host));
    k = find(all, &m.id);
    if (!k) {
        k = add(all, &m);
        if (k)
            k->model.n_stages = 0;
    }
    s = k ? place_for(all, &k->model, &m.stages[0]) : NULL;
    if (!s) {
        log_warn("event=model_not_kept model=\"%s\" msg=\"there are too many; remove folders from %s and start the "
                 "broker again\"",
                 m.name, all->folder);
        return 0;
    }
    p->offer = (struct peer_offer){m.id, m.stages[0].settings, m.stages[0].fingerprint};
    k->changed |= !same_work(s, &m.stages[0]) || !fingerprint_equal(&s->fingerprint, &m.stages[0].fingerprint);
    *s = m.stages[0];
    ask(all, k, p->number);
    write_changes(all, k, NULL);
    return 0;
}

int models_files(struct models *all, const struct peer *p, struct wire_message *message, struct err *err)
{
    struct kept_model *k = find(all, &wire_message_envelope(message)->model_ref.model);
    struct model_contents contents = {0};
    int rc;

    if (!k || k->asked != p->number)
        return 0; /* late */
    rc = model_files_take(message, &k->model, &contents, err);
    if (rc < 0) {
        (void)ask_another(all, k, p->number);
        return rc;
    }
    k->asked = 0;
    write_changes(all, k, &contents);
    return 0;
}

void models_let_go(struct models *all, uint64_t peer)
{
    for (size_t i = all->n; i-- > 0;) {
        struct kept_model *k = all->list[i];

        if (k->kept || k->writing || (k->asked && k->asked != peer) || ask_another(all, k, peer))
            continue;
        all->bytes -= model_file_bytes(&k->model);
        all->list[i] = all->list[--all->n];
        free(k);
    }
}

/* -- clients -- */

static bool refuse_if_none(struct models *all, const struct peer *p, const struct msg *m)
{
    if (!all->folder[0])
        answer_refuse(all->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "this broker keeps no models (it has no state_dir)");
    return !all->folder[0];
}

static int append_row(const struct models *all, const struct kept_model *k, struct buf *frame)
{
    static struct model m; /* large for a stack */

    m = k->model;
    for (uint32_t i = 0; i < m.n_stages; i++)
        m.stages[i].n_workers = count_workers(all, NULL, &m.stages[i]);
    return row_model_append(frame, &m);
}

/* Takes the message. */
static void answer(struct models *all, uint64_t peer, uint64_t seq, struct wire_message *m, int rc)
{
    if (rc == 0) {
        wire_message_envelope(m)->seq = seq;
        rc = broker_socket_send(all->answers->socket, peer, &m, NULL);
    }
    wire_message_free(m);
    if (rc < 0 && rc != -EHOSTUNREACH)
        answer_refuse(all->answers, peer, seq, MSG_REASON_LIMIT, "the answer cannot be sent: %s", strerror(-rc));
}

void models_answer_list(struct models *all, const struct peer *p, const struct msg *m)
{
    struct wire_message *message = NULL;
    struct buf frame;
    uint32_t n = 0;
    int rc = 0;

    if (refuse_if_none(all, p, m))
        return;
    buf_init(&frame, MSG_MAX_ROW_FRAME_BYTES);
    for (size_t i = 0; rc == 0 && i < all->n; i++) {
        if (!all->list[i]->kept)
            continue;
        rc = append_row(all, all->list[i], &frame);
        n++;
    }
    if (rc == 0)
        rc = wire_message_new(MSG_MODEL_LISTED, &message);
    if (rc == 0)
        rc = wire_message_add_rows(message, &frame, n);
    buf_release(&frame);
    answer(all, p->number, m->seq, message, rc);
}

void models_answer_get(struct models *all, const struct peer *p, const struct msg *m)
{
    const struct kept_model *k = find(all, &m->model_ref.model);
    struct committer_request *r;

    if (refuse_if_none(all, p, m))
        return;
    if (!k || !k->kept) {
        answer_refuse(all->answers, p->number, m->seq, MSG_REASON_MODEL, "the broker does not have that model");
        return;
    }
    r = with_model(
        requests_new(all->requests, COMMITTER_MODEL, 0, &(struct question){.peer = p->number, .seq = m->seq}),
        &k->model);
    if (r)
        r->model->read = true;
    requests_post(all->requests, r);
}

/* -- completions -- */

static void on_read(struct models *all, const struct committer_completion *done, const struct question *q)
{
    struct kept_model *k = find(all, &done->model->model.id);
    struct wire_message *m = NULL;
    struct err err = {""};
    int rc;

    if (done->rc < 0) {
        log_err("event=model_lost msg=\"%s\"", done->text);
        answer_refuse(all->answers, q->peer, q->seq, MSG_REASON_STORE, "%s", done->text);
        if (k) {
            k->kept = false;
            (void)ask_another(all, k, 0);
        }
        return;
    }
    rc = model_files_message(&done->model->model, &done->model->files, &m, &err);
    answer(all, q->peer, q->seq, m, rc);
}

static void on_written(struct models *all, const struct committer_completion *done)
{
    struct kept_model *k = find(all, &done->model->model.id);

    k->writing = false;
    if (done->rc < 0) {
        log_err("event=model_not_kept model=\"%s\" msg=\"%s; a worker that connects will offer it again\"",
                k->model.name, done->text);
        k->changed = true;
        return;
    }
    k->kept = true;
    log_info("event=model_kept model=\"%s\" stages=%u bytes=%llu", k->model.name, k->model.n_stages,
             (unsigned long long)model_file_bytes(&k->model));
    write_changes(all, k, NULL);
}

void models_on_completion(struct models *all, const struct committer_completion *done)
{
    struct question q;

    if (requests_answered(all->requests, done->tag, &q))
        on_read(all, done, &q);
    else if (!done->model->read)
        on_written(all, done);
}
