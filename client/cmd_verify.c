/* cmd_verify.c - `blipline verify`: checks every page and row of a store. */
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "console/answer.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/named_store.h"
#include "console/terminal.h"
#include "store/reader.h"

enum { MAX_SHOWN = 100 }; /* problems printed; all are counted */

struct verify_options {
    const char *broker;
    bool json;
};

static const struct cli_option options[] = {
    BROKER_CLIENT_OPTION(struct verify_options),
    {"json", 0, CLI_FLAG, offsetof(struct verify_options, json), NULL, "print one JSON object (blipline help json)", 0,
     0, NULL},
    {0},
};

struct verify {
    struct terminal terminal;
    json_t *problems;
    bool json;
    uint64_t n_shown, n_problems;
    uint64_t n_embeddings[MSG_EMBEDDING_CLS + 1]; /* by kind */
};

static bool on_problem(void *arg, int64_t unit, int64_t item, const char *text)
{
    struct verify *v = arg;
    json_t *row;

    if (++v->n_shown > MAX_SHOWN)
        return true;
    if (!v->json) {
        terminal_status(&v->terminal, "");
        puts(text);
        return true;
    }
    row = json_pack("{s:s}", "text", text);
    if (row && unit >= 0)
        (void)json_object_set_new(row, "unit", json_integer(unit));
    if (row && item >= 0)
        (void)json_object_set_new(row, "item", json_integer(item));
    (void)json_array_append_new(v->problems, row);
    return true;
}

static bool on_progress(void *arg, uint64_t items_seen, uint64_t n_items)
{
    struct verify *v = arg;
    char text[80];

    (void)snprintf(text, sizeof(text), "verify: %" PRIu64 " of %" PRIu64 " items", items_seen, n_items);
    terminal_status(&v->terminal, text);
    return true;
}

/* ", 27 query, 27 itc embeddings"; nothing if the recipe has none. */
static void show_embeddings(const struct verify *v, const struct msg_recipe *recipe)
{
    for (uint32_t i = 0; i < recipe->n_embeddings; i++)
        printf(", %" PRIu64 " %s", v->n_embeddings[recipe->embeddings[i].kind],
               msg_embedding_name(recipe->embeddings[i].kind));
    if (recipe->n_embeddings)
        printf(" embeddings");
}

static json_t *embeddings_object(const struct verify *v, const struct msg_recipe *recipe)
{
    json_t *all = json_object();

    for (uint32_t i = 0; i < recipe->n_embeddings; i++)
        (void)json_object_set_new(all, msg_embedding_name(recipe->embeddings[i].kind),
                                  json_integer((json_int_t)v->n_embeddings[recipe->embeddings[i].kind]));
    return all;
}

static int count_embeddings(struct verify *v, struct reader *r, struct err *err)
{
    const struct msg_recipe *recipe = &reader_meta(r)->recipe;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < recipe->n_embeddings; i++)
        rc = reader_count_embeddings(r, recipe->embeddings[i].kind, &v->n_embeddings[recipe->embeddings[i].kind], err);
    return rc;
}

static void show(const struct verify *v, const struct msg_recipe *recipe, const struct stored_job_counters *c,
                 const char *store)
{
    json_t *all;

    if (!v->json) {
        if (v->n_problems > MAX_SHOWN)
            printf("... and %" PRIu64 " more\n", v->n_problems - MAX_SHOWN);
        if (v->n_problems) {
            printf("%s: %" PRIu64 " problems\n", store, v->n_problems);
            return;
        }
        printf("%s: sound; %" PRIu64 " items in %" PRIu32 " units, %" PRIu64 " done", store, c->n_items, c->n_units,
               c->n_done);
        if (c->n_again)
            printf(", %" PRIu64 " to be done again", c->n_again);
        show_embeddings(v, recipe);
        putchar('\n');
        return;
    }
    all = json_pack("{s:b, s:I, s:I, s:I, s:o, s:I, s:O}", "sound", v->n_problems == 0, "items", (json_int_t)c->n_items,
                    "done", (json_int_t)c->n_done, "to_do_again", (json_int_t)c->n_again, "embeddings",
                    embeddings_object(v, recipe), "n_problems", (json_int_t)v->n_problems, "problems", v->problems);
    answer_print("verify", all, JSON_INDENT(1));
}

static int verify(struct named_store *store, struct verify *v)
{
    struct reader_verify callbacks = {on_problem, on_progress, v};
    struct stored_job_counters counters = {0};
    struct err err = {""};
    int rc = reader_counters(store->reader, &counters, &err);

    if (rc == 0)
        rc = reader_verify(store->reader, &callbacks, &v->n_problems, &err);
    if (rc == 0)
        rc = count_embeddings(v, store->reader, &err);
    terminal_status(&v->terminal, "");
    if (rc < 0)
        return named_store_fail(store, rc, &err);
    show(v, &reader_meta(store->reader)->recipe, &counters, named_store_label(store));
    return v->n_problems == 0 ? CLI_EXIT_OK : CLI_EXIT_ERROR;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct verify_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o), code;
    struct verify v = {.json = o.json};
    struct named_store store;

    if (n_args < 0)
        return cli_exit_code(n_args);
    terminal_init(&v.terminal, STDERR_FILENO);
    code = named_store_open("verify", o.broker, argv[argc - 1], &store);
    v.problems = json_array();
    if (code == CLI_EXIT_OK)
        code = verify(&store, &v);
    named_store_close(&store);
    json_decref(v.problems);
    return code;
}

const struct cli_command cmd_verify = {
    .name = "verify",
    .line = "check every page, checksum and cross-reference of a store or job",
    .usage = "STORE|JOB [--json]",
    .about = HELP_VERIFY,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
