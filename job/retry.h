/* retry.h - which failed items are tried again.
 *
 * Those whose reason may have passed always are: the file was missing or could not be read, memory or time ran out,
 * the row of the list was of no use, or the record is damaged.
 * --retry names others, or all. Who may call: one thread. Units: none. Memory: plain values.
 * Errors: -EINVAL, err says what is wrong with the option. */
#ifndef BLIPLINE_JOB_RETRY_H
#define BLIPLINE_JOB_RETRY_H

#include "base/err.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

enum { RETRY_MAX_CODES = 32 };

struct retry {
    bool all;
    uint32_t n_codes;
    struct retry_code {
        char code[MSG_CODE_SIZE];
        uint64_t n; /* items that failed with it, so far */
    } codes[RETRY_MAX_CODES];
};

/* What an item has failed with whose record cannot be read: so it is done again. */
#define RETRY_DAMAGED "damaged"
/* What stands for --retry without a value. */
#define RETRY_ALL "all"

/* Add the value of one --retry: RETRY_ALL, or codes with commas between them. */
int retry_add(struct retry *r, const char *value, struct err *err) CHECK_RESULT;
/* Is an item that failed with this code to be tried again? Counts it. */
bool retry_takes(struct retry *r, const char *code);

#endif
