/* watch.c - units that nobody here can compute: said in the log and in the job's progress, not left to be guessed. */
#include "broker/shell.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 1000, PATIENCE_MS = 3000 };

static enum msg_dtype dtype_of(const struct msg_recipe *r, enum msg_stage stage)
{
    return stage == MSG_STAGE_ENCODE ? r->dtype_encode : stage == MSG_STAGE_QFORMER ? r->dtype_qformer : r->dtype_llm;
}

/* The first digits tell fingerprints apart. */
static const char *short_hex(const struct msg_fingerprint *f, char ret[9])
{
    (void)snprintf(ret, 9, "%02x%02x%02x%02x", f->bytes[0], f->bytes[1], f->bytes[2], f->bytes[3]);
    return f->n_bytes ? ret : "none";
}

/* Connected workers of the stage; *ret_fits: one of them may run the node; *ret_other: one that may not. */
static uint32_t count_workers(const struct broker *b, const struct msg_node *node, bool *ret_fits,
                              const struct broker_peer **ret_other)
{
    uint32_t n = 0;

    *ret_fits = false;
    for (size_t i = 0; i < b->peers.capacity; i++) {
        const struct broker_peer *p = b->peers.slots[i].key ? b->peers.slots[i].value : NULL;

        if (!p || p->role != MSG_ROLE_WORKER || p->stage != node->stage)
            continue;
        n++;
        if (node->fingerprint.n_bytes == 0 || msg_fingerprint_equal(&p->fingerprint, &node->fingerprint))
            *ret_fits = true;
        else
            *ret_other = p;
    }
    return n;
}

/* Why node i stands still, in words; false: it does not. */
static bool explain(const struct broker *b, const struct broker_job *job, uint32_t i, char *text, size_t size)
{
    const struct msg_node *node = &job->open.nodes[i];
    const struct broker_peer *other = NULL;
    char want[9], have[9];
    bool fits;
    uint32_t n = count_workers(b, node, &fits, &other);

    if (fits)
        return false;
    if (n == 0)
        (void)snprintf(text, size, "no %s worker is connected; model %s in %s is wanted (%s)",
                       msg_stage_name(node->stage), node->model,
                       msg_dtype_word(dtype_of(&job->open.recipe, node->stage)), short_hex(&node->fingerprint, want));
    else
        (void)snprintf(
            text, size,
            "none of %u connected %s workers can do it: model %s in %s is wanted (%s), one has model %s in %s (%s)", n,
            msg_stage_name(node->stage), node->model, msg_dtype_word(dtype_of(&job->open.recipe, node->stage)),
            short_hex(&node->fingerprint, want), other->model, msg_dtype_word(other->dtype),
            short_hex(&other->fingerprint, have));
    return true;
}

static void look_at(struct broker *b, struct broker_job *job)
{
    struct core_job_stats stats;
    char text[MSG_TEXT_SIZE] = "";

    if (job->store && !job->done && !job->stopped && core_job_stats_get(b->core, job->id, &stats) == 0)
        for (uint32_t i = 0; i < stats.n_nodes && !text[0]; i++)
            if (stats.nodes[i].parts_ready && !stats.nodes[i].parts_leased)
                (void)explain(b, job, i, text, sizeof(text));
    if (!text[0]) {
        job->starved_at_ms = 0;
        job->starved[0] = '\0';
    } else if (job->starved_at_ms == 0) {
        job->starved_at_ms = b->now_ms;
    } else if (b->now_ms - job->starved_at_ms >= PATIENCE_MS) {
        if (strcmp(text, job->starved) != 0)
            log_warn("event=starved job=%llu text=\"%s\" waiting for one that can", (unsigned long long)job->id, text);
        memcpy(job->starved, text, sizeof(job->starved));
    }
}

int64_t broker_watch(struct broker *b)
{
    bool open = false;

    for (const struct broker_job *job = b->jobs; job; job = job->next)
        open |= !job->done;
    if (!open)
        return INT64_MAX;
    if (b->now_ms < b->watch_at_ms)
        return b->watch_at_ms;
    b->watch_at_ms = b->now_ms + LOOK_MS;
    for (struct broker_job *job = b->jobs; job; job = job->next)
        look_at(b, job);
    return b->watch_at_ms;
}
