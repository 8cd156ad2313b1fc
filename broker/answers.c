#include "broker/answers.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

void answer_send(struct answers *a, uint64_t peer, const struct msg *m)
{
    struct err err = {""};
    int rc = broker_socket_send_msg(a->socket, peer, m, &err);

    if (rc < 0 && rc != -EHOSTUNREACH)
        log_warn("event=not_sent type=%s peer=%llu msg=\"%s; the peer will ask again\"", msg_type_name(m->type),
                 (unsigned long long)peer, err.text);
}

void answer_welcome(struct answers *a, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_WELCOME);
    m.seq = seq;
    m.welcome = (struct msg_welcome){.epoch = a->epoch,
                                     .version = MSG_VERSION,
                                     .heartbeat_ms = a->heartbeat_ms,
                                     .lease_ms = a->lease_ms,
                                     .takes_models = a->takes_models};
    answer_send(a, peer, &m);
}

static void send_refusal(struct answers *a, uint64_t peer, const struct msg *m)
{
    a->n_refusals++;
    log_warn("event=refused peer=%llu reason=\"%s\" msg=\"%s\"", (unsigned long long)peer,
             msg_reason_name(m->refuse.reason), m->refuse.text);
    answer_send(a, peer, m);
    peers_note_refusal(a->peers, peer);
}

void answer_refuse(struct answers *a, uint64_t peer, uint64_t seq, enum msg_reason reason, const char *fmt, ...)
{
    struct msg m;
    va_list ap;

    msg_init(&m, MSG_REFUSE);
    m.seq = seq;
    m.refuse.reason = reason;
    va_start(ap, fmt);
    (void)vsnprintf(m.refuse.text, sizeof(m.refuse.text), fmt, ap);
    va_end(ap);
    send_refusal(a, peer, &m);
}

void answer_refuse_recipe(struct answers *a, uint64_t peer, uint64_t seq, enum msg_reason reason,
                          const struct msg_recipe *recipe, const char *text)
{
    struct msg m;

    msg_init(&m, MSG_REFUSE);
    m.seq = seq;
    m.refuse.reason = reason;
    m.refuse.has_recipe = true;
    m.refuse.recipe = *recipe;
    (void)msg_text_set(m.refuse.text, sizeof(m.refuse.text), text);
    send_refusal(a, peer, &m);
}
