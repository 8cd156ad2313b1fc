/* cmd_models.c - `blipline models`: what the workers of a broker serve. */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client/broker_client.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "console/answer.h"
#include "console/printable.h"
#include "model/fingerprint.h"
#include "wire/client_models.h"

struct models_options {
    const char *broker;
    bool json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct models_options),
    {"json", 0, CLI_FLAG, offsetof(struct models_options, json), NULL,
     "print one JSON object instead of the table (blipline help json)", 0, 0, NULL},
    {0},
};

static bool lacks(const struct model *m, enum stage stage)
{
    if (stage == STAGE_LLM && !m->writes_captions)
        return false;
    for (uint32_t i = 0; i < m->n_stages; i++)
        if (m->stages[i].stage == stage && m->stages[i].n_workers)
            return false;
    return true;
}

/* -- the table -- */

static void print_stage(const struct model_stage *s)
{
    char hex[FINGERPRINT_HEX_SIZE], host[MSG_NAME_SIZE];

    printf("  %-8s %-5s %7u  %.12s  %s%s%s\n", stage_name(s->stage), dtype_word(s->dtype), s->n_workers,
           fingerprint_to_hex(&s->fingerprint, hex), printable_text(s->host, strlen(s->host), host, sizeof(host)),
           s->settings & MODEL_EXIF_ORIENTATION ? ", exif_orientation" : "",
           s->settings & MODEL_GREY16_HIGH_BYTE ? ", grey16_high_byte" : "");
}

static void print_missing(const struct model *m)
{
    bool any = false;

    for (int stage = STAGE_ENCODE; stage <= STAGE_LLM; stage++) {
        if (!lacks(m, (enum stage)stage))
            continue;
        printf("%s %s", any ? "," : "  no worker is connected for:", stage_name((enum stage)stage));
        any = true;
    }
    if (any)
        putchar('\n');
}

static void print_words(const struct model *models, uint32_t n)
{
    if (n)
        puts("  stage    type  workers  fingerprint   last host");
    for (uint32_t i = 0; i < n; i++) {
        const struct model *m = &models[i];
        char name[MSG_NAME_SIZE];

        printf("%s  (%s)\n", printable_text(m->name, strlen(m->name), name, sizeof(name)),
               m->writes_captions ? "captions" : "scores and embeddings");
        for (uint32_t k = 0; k < m->n_stages; k++)
            print_stage(&m->stages[k]);
        print_missing(m);
    }
    if (n == 0)
        puts("no worker has offered a model yet");
}

/* -- JSON -- */

static json_t *stage_json(const struct model_stage *s)
{
    char hex[FINGERPRINT_HEX_SIZE];

    return json_pack("{s:s, s:s, s:b, s:b, s:I, s:s, s:o}", "stage", stage_name(s->stage), "dtype",
                     dtype_word(s->dtype), "exif_orientation", (int)(s->settings & MODEL_EXIF_ORIENTATION),
                     "grey16_high_byte", (int)(s->settings & MODEL_GREY16_HIGH_BYTE), "workers",
                     (json_int_t)s->n_workers, "fingerprint", fingerprint_to_hex(&s->fingerprint, hex), "host",
                     answer_text(s->host));
}

static json_t *model_json(const struct model *m)
{
    json_t *stages = json_array(), *missing = json_array();
    char hex[FINGERPRINT_HEX_SIZE];

    for (uint32_t i = 0; i < m->n_stages; i++)
        (void)json_array_append_new(stages, stage_json(&m->stages[i]));
    for (int stage = STAGE_ENCODE; stage <= STAGE_LLM; stage++)
        if (lacks(m, (enum stage)stage))
            (void)json_array_append_new(missing, json_string(stage_name((enum stage)stage)));
    return json_pack("{s:o, s:s, s:b, s:I, s:o, s:o}", "name", answer_text(m->name), "id",
                     fingerprint_to_hex(&m->id, hex), "writes_captions", (int)m->writes_captions, "file_bytes",
                     (json_int_t)model_file_bytes(m), "stages", stages, "missing", missing);
}

static void print_json(const struct model *models, uint32_t n)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++)
        (void)json_array_append_new(list, model_json(&models[i]));
    answer_print("models", json_pack("{s:o}", "models", list), 0);
}

/* -- the command -- */

static int by_stage(const void *a, const void *b)
{
    const struct model_stage *p = a, *q = b;

    return p->stage != q->stage   ? (int)p->stage - (int)q->stage
           : p->dtype != q->dtype ? (int)p->dtype - (int)q->dtype
                                  : (int)p->settings - (int)q->settings;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct model *)a)->name, ((const struct model *)b)->name);
}

struct answer {
    struct model *models;
    uint32_t n;
};

static int ask(struct client_session *s, void *arg, struct err *err)
{
    struct answer *a = arg;

    return client_session_models(s, &a->models, &a->n, err);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct models_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o), rc;
    struct answer a = {0};
    struct broker_client c;
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    rc = broker_client_init(&c, self->name, o.broker, &err);
    if (rc == 0)
        rc = broker_client_ask(&c, ask, &a, &err);
    if (rc == 0) {
        qsort(a.models, a.n, sizeof(*a.models), by_name);
        for (uint32_t i = 0; i < a.n; i++)
            qsort(a.models[i].stages, a.models[i].n_stages, sizeof(a.models[i].stages[0]), by_stage);
        (o.json ? print_json : print_words)(a.models, a.n);
    }
    free(a.models);
    rc = rc < 0 ? broker_client_fail(&c, rc, &err) : CLI_EXIT_OK;
    broker_client_release(&c);
    return rc;
}

const struct cli_command cmd_models = {
    .name = "models",
    .line = "list the models that the workers of a broker serve",
    .usage = "[--broker ENDPOINT] [--json]",
    .about = HELP_MODELS,
    .examples = HELP_MODELS_EXAMPLES,
    .options = options,
    .run = run,
};
