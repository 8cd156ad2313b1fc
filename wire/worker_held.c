/* Leased units on the socket thread's side: the list of those held and the queue of answers that were not sent yet. */
#include "wire/worker_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

void held_free(struct held *h)
{
    if (!h)
        return;
    wire_message_free(h->message);
    arena_release(&h->arena);
    free(h);
}

void returned_free(struct returned *r)
{
    if (!r)
        return;
    wire_message_free(r->message);
    free(r);
}

void held_add(struct worker_session *s, struct held *h)
{
    h->next = s->held;
    s->held = h;
    atomic_fetch_add(&s->n_held, 1);
}

void held_drop(struct worker_session *s, struct held *h)
{
    struct held **at = &s->held;

    while (*at != h)
        at = &(*at)->next;
    *at = h->next;
    atomic_fetch_sub(&s->n_held, 1);
    held_free(h);
}

void held_queue_unsent(struct worker_session *s, struct returned *r)
{
    r->next = NULL;
    if (s->unsent)
        s->unsent_last->next = r;
    else
        s->unsent = r;
    s->unsent_last = r;
}

struct returned *held_pop_unsent(struct worker_session *s)
{
    struct returned *r = s->unsent;

    s->unsent = r->next;
    return r;
}

void held_answer(struct worker_session *s, struct held *h, enum msg_type type, const struct msg_lease *lease,
                 const char *text)
{
    struct returned *r = calloc(1, sizeof(*r));

    if (!r || wire_message_new(type, &r->message) < 0) {
        free(r);
        if (h)
            held_drop(s, h);
        return;
    }
    r->held = h;
    if (type == MSG_FAILURE) {
        struct msg_failure *f = &wire_message_envelope(r->message)->failure;

        f->lease = *lease;
        (void)msg_text_set(f->code, sizeof(f->code), "bad_work");
        (void)msg_text_set(f->text, sizeof(f->text), text);
    } else {
        wire_message_envelope(r->message)->return_lease.lease = *lease;
    }
    held_queue_unsent(s, r);
}

void held_replace_by_failure(void *socket, const struct returned *r, const char *why)
{
    struct wire_message *m;

    if (wire_message_new(MSG_FAILURE, &m) < 0)
        return;
    wire_message_envelope(m)->failure.lease = r->held->work.lease;
    (void)msg_text_set(wire_message_envelope(m)->failure.code, MSG_CODE_SIZE, "bad_result");
    (void)msg_text_set(wire_message_envelope(m)->failure.text, MSG_TEXT_SIZE, why);
    if (wire_message_send(socket, NULL, m, NULL) < 0) {
        /* the lease expires instead */
    }
    wire_message_free(m);
}

void held_drop_all(struct worker_session *s)
{
    struct held *h;

    while ((h = mailbox_take(s->inbox)))
        held_drop(s, h);
    while (s->unsent) {
        struct returned *r = held_pop_unsent(s);

        if (r->held)
            held_drop(s, r->held);
        returned_free(r);
    }
    for (h = s->held; h; h = h->next)
        atomic_store(&h->stale, true); /* the compute side has these */
}

int held_decode_items(struct held *h, struct err *err)
{
    struct row_cursor cursor;
    struct row_item *items, item;
    uint32_t n = 0;
    int rc;

    items = arena_alloc(&h->arena, h->work.n_items * sizeof(*items));
    if (!items)
        return err_set(err, -ENOMEM, "no memory for %u items", h->work.n_items);
    wire_message_rows(h->message, &cursor);
    while ((rc = row_cursor_next_item(&cursor, &item, err)) == 1 && n < h->work.n_items) {
        if (row_item_copy(&h->arena, &item, &items[n++]) < 0) {
            rc = err_set(err, -ENOMEM, "no memory for %u items", h->work.n_items);
            break;
        }
    }
    row_cursor_release(&cursor);
    h->work.items = items;
    return rc < 0 ? rc : 0;
}

bool held_has(const struct worker_session *s, uint64_t lease_id)
{
    for (const struct held *h = s->held; h; h = h->next)
        if (h->work.lease.id == lease_id && !atomic_load(&h->stale))
            return true;
    return false;
}

struct held *held_new(struct wire_message *message)
{
    const struct msg *m = wire_message_envelope(message);
    struct held *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    arena_init(&h->arena, (size_t)256 << 20);
    h->message = message;
    h->work.lease = m->work.lease;
    h->work.recipe = m->work.recipe;
    h->work.tasks = m->work.tasks;
    h->work.n_selections = m->work.n_selections;
    h->work.selections = m->work.selections;
    h->work.n_items = m->n_rows;
    h->work.n_tensors = m->n_tensors;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        h->work.tensors[i] = wire_message_tensor(message, i);
    h->work.received_ns = clock_mono_ns();
    atomic_init(&h->stale, false);
    return h;
}
