/* stored_job.c - can a job continue in an existing store? */
#include "proto/stored.h"

#include <stdio.h>
#include <string.h>

/* Appends "  line\n" for each line of `words` that fits. */
static void add_lines(const char *words, size_t n_words, struct err *err)
{
    const size_t room = sizeof(err->text) - sizeof("  ...\n");

    for (const char *at = words, *end = words + n_words; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline ? newline : end) - at), used = strlen(err->text);

        if (used + n + sizeof("  \n") > room) {
            (void)snprintf(err->text + used, sizeof(err->text) - used, "  ...\n");
            return;
        }
        (void)snprintf(err->text + used, sizeof(err->text) - used, "  %.*s\n", (int)n, at);
        at += n + (newline != NULL);
    }
}

static enum msg_reason differs(const struct stored_job_meta *meta, const struct msg_recipe *recipe, uint32_t n_nodes,
                               const struct msg_node *nodes, struct buf *words)
{
    struct msg_recipe asked = *recipe;

    /* ignore names of models; fingerprints decide */
    (void)msg_text_set(asked.model, sizeof(asked.model), meta->recipe.model);
    (void)msg_text_set(asked.score_model, sizeof(asked.score_model), meta->recipe.score_model);
    if (msg_recipe_diff(&meta->recipe, &asked, words) != 0)
        return MSG_REASON_RECIPE;
    if (n_nodes != meta->n_nodes) {
        int rc = buf_appendf(words, "another stage graph: %u stages, the store has %u", n_nodes, meta->n_nodes);

        return rc < 0 ? MSG_REASON_LIMIT : MSG_REASON_RECIPE;
    }
    for (uint32_t i = 0; i < n_nodes; i++) {
        const struct msg_node *a = &meta->nodes[i], *c = &nodes[i];
        int rc;

        if (a->stage == c->stage && a->needs == c->needs && a->tasks == c->tasks && a->out_bytes == c->out_bytes &&
            fingerprint_equal(&a->fingerprint, &c->fingerprint))
            continue;
        rc = buf_appendf(words,
                         "the %s stage: the store was made with model %s, this is model %s with other weights or "
                         "settings",
                         stage_name(a->stage), a->model, c->model);
        return rc < 0 ? MSG_REASON_LIMIT : MSG_REASON_MODEL;
    }
    return 0;
}

enum msg_reason stored_job_differs(const struct stored_job_meta *meta, const struct msg_recipe *recipe,
                                   uint32_t n_nodes, const struct msg_node *nodes, const char *path, struct err *err)
{
    enum msg_reason reason;
    struct buf words;

    buf_init(&words, 0);
    reason = differs(meta, recipe, n_nodes, nodes, &words);
    if (reason) {
        (void)err_set(err, -1, "%.200s: this store was made with another recipe or model:\n", path);
        add_lines(words.size_bytes ? (const char *)words.data : "", words.size_bytes, err);
    }
    buf_release(&words);
    return reason;
}
