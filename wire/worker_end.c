#include "wire/worker_end.h"

#include <errno.h>

int worker_session_end(struct worker_session *s, int64_t timeout_ms, struct err *err)
{
    struct worker_session_status status;
    int rc = worker_session_wait(s, timeout_ms);

    worker_session_status(s, &status);
    if (status.state == WORKER_SESSION_REFUSED)
        return err_set(err, -ECONNREFUSED, "refused by the broker: %s: %s", msg_reason_name(status.reason),
                       status.text);
    if (rc < 0)
        return err_set(err, rc, "timed out while draining: the broker did not answer for %lld ms",
                       (long long)timeout_ms);
    return 0;
}
