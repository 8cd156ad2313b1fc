#include "broker/submissions.h"

#include "base/grow.h"

#include <stdlib.h>
#include <string.h>

int submissions_add(struct submissions *s, const struct stored_job_entry *entry)
{
    struct submission *one;
    int rc = grow_array(&s->all, &s->capacity, s->n, sizeof(*s->all), 64);

    if (rc < 0)
        return rc;
    one = &s->all[s->n++];
    *one = (struct submission){.job = entry->job, .has_token = entry->has_token};
    memcpy(one->token, entry->token, sizeof(one->token));
    (void)msg_text_set(one->owner, sizeof(one->owner), entry->owner);
    return 0;
}

static struct submission *find(const struct submissions *s, uint64_t job)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->all[i].job == job)
            return &s->all[i];
    return NULL;
}

size_t submissions_count(const struct submissions *s, const char *owner)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        n += strcmp(s->all[i].owner, owner) == 0;
    return n;
}

const struct submission *submissions_by_job(const struct submissions *s, uint64_t job)
{
    return find(s, job);
}

void submissions_set_removing(struct submissions *s, uint64_t job, bool removing)
{
    struct submission *one = find(s, job);

    if (one)
        one->removing = removing;
}

void submissions_remove(struct submissions *s, uint64_t job)
{
    struct submission *one = find(s, job);

    if (one)
        *one = s->all[--s->n];
}

const struct submission *submissions_by_token(const struct submissions *s, const char *owner,
                                              const uint8_t token[MSG_TOKEN_BYTES])
{
    for (size_t i = 0; i < s->n; i++) {
        const struct submission *one = &s->all[i];

        if (one->has_token && memcmp(one->token, token, sizeof(one->token)) == 0 && strcmp(one->owner, owner) == 0)
            return one;
    }
    return NULL;
}

void submissions_release(struct submissions *s)
{
    free(s->all);
    *s = (struct submissions){0};
}
