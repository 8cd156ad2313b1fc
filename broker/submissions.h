/* submissions.h - which jobs the job table has: by number, and by the token that the client made.
 *
 * Who may call: the loop's thread. Memory: a zeroed list is empty; some 100 bytes a job. Errors: -ENOMEM.
 * A job that is not there is ignored. */
#ifndef BLIPLINE_BROKER_SUBMISSIONS_H
#define BLIPLINE_BROKER_SUBMISSIONS_H

#include "base/err.h"
#include "proto/stored.h"
#include "wire/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct submission {
    uint64_t job;
    char owner[KEY_NAME_SIZE];
    bool has_token;
    uint8_t token[MSG_TOKEN_BYTES];
    bool removing; /* the committer is about to remove the job */
};

struct submissions {
    struct submission *all;
    size_t n, capacity;
};

int submissions_add(struct submissions *s, const struct stored_job_entry *entry) CHECK_RESULT;
size_t submissions_count(const struct submissions *s, const char *owner);
/* NULL: there is none. Valid until one is added or removed. */
const struct submission *submissions_by_job(const struct submissions *s, uint64_t job);
const struct submission *submissions_by_token(const struct submissions *s, const char *owner,
                                              const uint8_t token[MSG_TOKEN_BYTES]);
void submissions_set_removing(struct submissions *s, uint64_t job, bool removing);
void submissions_remove(struct submissions *s, uint64_t job);
void submissions_release(struct submissions *s);

#endif
