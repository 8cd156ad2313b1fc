#include "broker/hung.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"

enum { TELL_MS = 300000 };

void hung_note(struct hung *h, uint64_t number, const struct peer *p, const char *text, int64_t now_ms)
{
    struct msg_hung_worker w = {0};

    if (p) {
        w.pid = p->hello_pid;
        w.stage = p->stage;
        memcpy(w.host, p->host, sizeof(w.host));
    }
    (void)msg_text_set(w.text, sizeof(w.text), text);
    log_warn("event=worker_hangs peer=%" PRIu64 " stage=%s host=%s pid=%u msg=\"%s; whoever started it is to end it\"",
             number, stage_name(w.stage), w.host, w.pid, w.text);
    h->latest[h->n % MSG_MAX_HUNG].worker = w;
    h->latest[h->n++ % MSG_MAX_HUNG].at_ms = now_ms;
}

void hung_tell(const struct hung *h, int64_t now_ms, struct msg_job_progress *ret)
{
    for (uint32_t i = 0; i < MSG_MAX_HUNG; i++)
        if (h->latest[i].at_ms && now_ms - h->latest[i].at_ms < TELL_MS)
            ret->hung[ret->n_hung++] = h->latest[i].worker;
}
