#include "client/retry.h"

#include <errno.h>
#include <string.h>

static int add_code(const char *option, const char *code, size_t n_bytes, uint32_t *n, char codes[][MSG_CODE_SIZE],
                    struct err *err)
{
    if (n_bytes == 0 || n_bytes >= MSG_CODE_SIZE || strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_-") < n_bytes)
        return err_set(err, -EINVAL, "%s %.*s: is not a reason of failure; `blipline stats` lists them", option,
                       (int)(n_bytes < 60 ? n_bytes : 60), code);
    if (*n == MSG_MAX_RETRY_CODES)
        return err_set(err, -EINVAL, "%s: more than %d reasons; without any, all that failed is done again", option,
                       MSG_MAX_RETRY_CODES);
    memcpy(codes[*n], code, n_bytes);
    codes[(*n)++][n_bytes] = '\0';
    return 0;
}

int retry_codes_add(const char *option, const char *value, uint32_t *n, char codes[][MSG_CODE_SIZE], struct err *err)
{
    for (;; value++) {
        const size_t n_bytes = strcspn(value, ",");
        int rc = add_code(option, value, n_bytes, n, codes, err);

        value += n_bytes;
        if (rc < 0 || *value == '\0')
            return rc;
    }
}

int retry_add(struct msg_comparison *o, const char *value, struct err *err)
{
    if (strcmp(value, RETRY_ALL) != 0)
        return retry_codes_add("--retry", value, &o->n_codes, o->codes, err);
    o->all_failed = true;
    return 0;
}
