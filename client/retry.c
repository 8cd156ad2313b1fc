#include "client/retry.h"

#include <errno.h>
#include <string.h>

static int add_code(struct msg_comparison *o, const char *code, size_t n, struct err *err)
{
    if (n == 0 || n >= sizeof(o->codes[0]) || strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_-") < n)
        return err_set(err, -EINVAL, "--retry %.*s: is not a reason of failure; `blipline stats STORE` lists them",
                       (int)(n < 60 ? n : 60), code);
    if (o->n_codes == MSG_MAX_RETRY_CODES)
        return err_set(err, -EINVAL, "--retry: more than %d reasons; --retry alone means all of them",
                       MSG_MAX_RETRY_CODES);
    memcpy(o->codes[o->n_codes], code, n);
    o->codes[o->n_codes++][n] = '\0';
    return 0;
}

int retry_add(struct msg_comparison *o, const char *value, struct err *err)
{
    if (strcmp(value, RETRY_ALL) == 0) {
        o->all_failed = true;
        return 0;
    }
    for (;; value++) {
        const size_t n = strcspn(value, ",");
        int rc = add_code(o, value, n, err);

        value += n;
        if (rc < 0 || *value == '\0')
            return rc;
    }
}
