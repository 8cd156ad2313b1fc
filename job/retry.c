#include "job/retry.h"

#include <errno.h>
#include <string.h>

/* The last three are the list's: they are tried again when it has been mended (job/feed.c looks). */
static const char *const passing[] = {"missing", "unreadable",  "no_memory", "decoder_memory", "timed_out",
                                      "lost",    RETRY_DAMAGED, "url",       "no_picture",     "bad_row"};

static int add_code(struct retry *r, const char *code, size_t n, struct err *err)
{
    struct retry_code *to = &r->codes[r->n_codes];

    if (n == 0 || n >= sizeof(to->code) || strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_-") < n)
        return err_set(err, -EINVAL,
                       "--retry %.*s: is no reason of a failure; `blipline stats STORE` lists those of a store",
                       (int)(n < 60 ? n : 60), code);
    if (r->n_codes == RETRY_MAX_CODES)
        return err_set(err, -EINVAL, "--retry: more than %d reasons; --retry alone means all of them", RETRY_MAX_CODES);
    memcpy(to->code, code, n);
    to->code[n] = '\0';
    r->n_codes++;
    return 0;
}

int retry_add(struct retry *r, const char *value, struct err *err)
{
    if (strcmp(value, RETRY_ALL) == 0) {
        r->all = true;
        return 0;
    }
    for (;; value++) {
        const size_t n = strcspn(value, ",");
        int rc = add_code(r, value, n, err);

        value += n;
        if (rc < 0 || *value == '\0')
            return rc;
    }
}

bool retry_takes(struct retry *r, const char *code)
{
    bool takes = r->all;

    for (uint32_t i = 0; i < r->n_codes; i++)
        if (strcmp(r->codes[i].code, code) == 0) {
            r->codes[i].n++;
            takes = true;
        }
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        takes |= strcmp(passing[i], code) == 0;
    return takes;
}
