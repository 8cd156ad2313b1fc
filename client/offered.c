#include "client/offered.h"

#include "base/file.h"
#include "base/nearest.h"
#include "client/broker_client.h"
#include "console/printable.h"
#include "recipe/home.h"
#include "wire/client_models.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a broker has. */
struct list {
    struct model *models;
    uint32_t n;
};

/* -- by name -- */

static bool is_connected(const struct model *m)
{
    for (uint32_t i = 0; i < m->n_stages; i++)
        if (m->stages[i].n_workers)
            return true;
    return false;
}

static int complain_none(const char *option, const char *name, const struct list *all, const char *broker,
                         struct err *err)
{
    const char *words[MODEL_MAX_LISTED + 1] = {NULL};
    char hint[128];

    for (uint32_t i = 0; i < all->n; i++)
        words[i] = all->models[i].name;
    return err_set(err, -EDOM, "%s %.100s: is no checkpoint of this machine, and %s the broker at %.200s%s%s", option,
                   name, all->n ? "none of the models of" : "no worker has offered a model to", broker,
                   nearest_hint("", name, words, hint, sizeof(hint)),
                   all->n ? " (blipline models lists them)" : " yet");
}

/* "fingerprint 0123... (llm) on host1" */
static const char *describe(const struct model *m, char *ret, size_t size)
{
    const struct model_stage *s = &m->stages[0];
    char hex[FINGERPRINT_HEX_SIZE];

    for (uint32_t i = 0; i < m->n_stages; i++)
        if (m->stages[i].n_workers)
            s = &m->stages[i];
    if (m->n_stages)
        (void)snprintf(ret, size, "fingerprint %s (%s) on %.100s", fingerprint_to_hex(&s->fingerprint, hex),
                       stage_name(s->stage), s->host);
    else
        (void)snprintf(ret, size, "one without workers");
    return ret;
}

/* Models with connected workers come first. */
static int pick(const char *option, const char *name, const struct list *all, const char *broker,
                const struct model **ret, struct err *err)
{
    const struct model *found = NULL, *other = NULL;
    char first[192], second[192];

    for (uint32_t i = 0; i < all->n; i++) {
        const struct model *m = &all->models[i];

        if (strcmp(m->name, name) != 0 || (found && is_connected(found) && !is_connected(m)))
            continue;
        other = found && is_connected(found) == is_connected(m) ? found : NULL;
        found = m;
    }
    if (!found)
        return complain_none(option, name, all, broker, err);
    if (other)
        return err_set(err, -EDOM,
                       "%s %.100s: two models have this name, and their files differ: %s, and %s. Rename the folder of "
                       "one, and start its workers again",
                       option, name, describe(other, first, sizeof(first)), describe(found, second, sizeof(second)));
    *ret = found;
    return 0;
}

/* -- the cache -- */

static int choose_folder(const struct model *m, char ret[PATH_MAX], struct err *err)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char hex[FINGERPRINT_HEX_SIZE];
    const bool is_set = cache && cache[0] == '/';
    const char *base = is_set ? cache : home;

    if (!base || base[0] != '/')
        return err_set(err, -EDOM, "$HOME names no folder; the files of models are kept in its .cache/blipline");
    if (snprintf(ret, PATH_MAX, "%s%s/blipline/models/%s/", base, is_set ? "" : "/.cache",
                 fingerprint_to_hex(&m->id, hex)) >= PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "%.60s...: too long", base);
    return file_make_folders_above(ret, is_set ? 0 : strlen(base), err);
}

static int fetch(struct client_session *s, const struct model *m, struct offered_model *ret, struct err *err)
{
    struct model_contents files = {0};
    int rc = choose_folder(m, ret->folder, err);

    if (rc == 0 && model_contents_read(ret->folder, m, &files, err) < 0) {
        rc = client_session_model_files(s, m, &files, err);
        if (rc == 0)
            rc = model_contents_write(ret->folder, m, &files, err);
    }
    model_contents_release(&files);
    ret->model = *m;
    ret->known = rc == 0;
    return rc;
}

/* -- the broker -- */

/* Is it to be looked up? -EDOM: it is neither a checkpoint nor a name. */
static int is_elsewhere(const char *option, const char *name, bool *ret, struct err *err)
{
    char path[PATH_MAX];
    int rc = name ? home_model(option, name, path, err) : 0;

    *ret = rc < 0 && !strchr(name, '/');
    return *ret ? 0 : rc;
}

/* Names of other machines end up in messages. */
static void make_printable(char text[MSG_NAME_SIZE])
{
    char copy[MSG_NAME_SIZE];

    (void)snprintf(text, MSG_NAME_SIZE, "%s", printable_text(text, strlen(text), copy, sizeof(copy)));
}

static int list_models(struct client_session *s, struct list *ret, struct err *err)
{
    int rc = client_session_models(s, &ret->models, &ret->n, err);

    for (uint32_t i = 0; i < ret->n; i++) {
        make_printable(ret->models[i].name);
        for (uint32_t k = 0; k < ret->models[i].n_stages; k++)
            make_printable(ret->models[i].stages[k].host);
    }
    return rc;
}

struct question {
    const char *option, *name;
    struct offered_model *answer;
    bool asked;
};

struct request {
    struct broker_client client;
    struct question questions[2];
};

static int ask(struct client_session *s, void *arg, struct err *err)
{
    const struct request *r = arg;
    struct list all = {0};
    int rc = list_models(s, &all, err);

    for (int i = 0; rc == 0 && i < 2; i++) {
        const struct question *q = &r->questions[i];
        const struct model *m = NULL;

        if (!q->asked)
            continue;
        rc = pick(q->option, q->name, &all, r->client.conf.broker, &m, err);
        if (rc == 0)
            rc = fetch(s, m, q->answer, err);
    }
    free(all.models);
    return rc;
}

int offered_find(const char *command, const char *broker, const char *model, const char *score_model,
                 struct offered_models *ret)
{
    struct request r = {.questions = {{"--model", model, &ret->model, false},
                                      {"--score-model", score_model, &ret->score_model, false}}};
    struct question *q = r.questions;
    struct broker_client *c = &r.client;
    struct err err = {""};
    int rc = 0;

    for (int i = 0; rc == 0 && i < 2; i++)
        rc = is_elsewhere(q[i].option, q[i].name, &q[i].asked, &err);
    if (rc < 0) {
        cli_error("%s: %s", command, err.text);
        return cli_exit_of(rc);
    }
    if (!q[0].asked && !q[1].asked)
        return CLI_EXIT_OK;
    rc = broker_client_init(c, command, broker, &err);
    if (rc == 0) {
        rc = broker_client_ask(c, ask, &r, &err);
        c->error_exit = cli_exit_of(rc);
    }
    rc = rc < 0 ? broker_client_fail(c, rc, &err) : CLI_EXIT_OK;
    broker_client_release(c);
    return rc;
}
