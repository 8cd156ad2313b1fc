/* cmd_get.c - `blipline get`: the results for one picture. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "console/answer.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "client/export/export_row.h"
#include "client/named_store.h"
#include "console/printable.h"
#include "store/reader.h"

struct get_options {
    const char *broker;
    int64_t item;
    bool json;
};

static const struct cli_option options[] = {
    {"item", 0, CLI_NUMBER, offsetof(struct get_options, item), "N", "the item with this number, instead of a key", 0,
     INT64_MAX, NULL},
    BROKER_CLIENT_OPTION(struct get_options),
    {"json", 0, CLI_FLAG, offsetof(struct get_options, json), NULL,
     "print one JSON object for each item (blipline help json)", 0, 0, NULL},
    {0},
};

static int print_json(const struct reader_row *row, const struct msg_recipe *recipe, const struct export_fields *fields)
{
    struct row_record none = {.item = row->item};
    struct export_row e = {.key = row->listed.key,
                           .key_bytes = row->listed.key_bytes,
                           .record = row->has_record ? &row->record : &none,
                           .recipe = recipe,
                           .listed = &row->listed,
                           .fields = fields};
    json_t *object = export_row_json(&e);

    if (!object)
        return -ENOMEM;
    if (!row->has_record)
        (void)json_object_set_new(object, "pending", json_true());
    answer_print("item", object, JSON_REAL_PRECISION(9));
    return 0;
}

static void print_time(int64_t ns)
{
    time_t t = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[64];

    if (localtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
        printf(", changed %s", text);
}

static void print_caption(const struct row_caption *c)
{
    if (c->prompt_text) {
        printf("prompt   ");
        printable_write(stdout, c->prompt_text, c->prompt_text_bytes);
        putchar('\n');
    }
    printf("%s  ", c->given ? "given  " : "caption");
    printable_write(stdout, c->text, c->text_bytes);
    putchar('\n');
    if (!c->given)
        printf("logprob  %.9g over %" PRIu32 " tokens\n", (double)c->logprob, c->tokens);
    if (c->has_itc)
        printf("itc      %.9g\n", (double)c->itc);
    if (c->has_itm)
        printf("itm      %.9g\n", (double)c->itm);
}

static int print_words(const struct reader_row *row, const struct row_source *source)
{
    const struct row_record *r = &row->record;

    printf("item     %" PRIu64 " (unit %" PRIu32 ")\nkey      ", row->item, row->unit);
    printable_write(stdout, row->listed.key, row->listed.key_bytes);
    if (source) {
        printf("\nsource   ");
        printable_write(stdout, source->name, strlen(source->name));
    }
    printf("\npath     ");
    printable_write(stdout, row->listed.path, row->listed.path_bytes);
    printf("\nsize     %" PRIu64 " bytes", row->listed.size_bytes);
    if (row->listed.mtime_ns)
        print_time(row->listed.mtime_ns);
    putchar('\n');
    if (!row->has_record) {
        puts("caption  not done yet");
    } else if (r->failed) {
        printf("error    %s: ", r->error_code);
        printable_write(stdout, r->error_message, r->error_message_bytes);
        putchar('\n');
    } else {
        for (uint32_t i = 0; i < r->n_captions; i++)
            print_caption(&r->captions[i]);
    }
    return 0;
}

static int show_item(struct reader *r, uint64_t item, bool json, struct err *err)
{
    struct export_fields fields;
    struct reader_row row;
    int rc = export_fields_parse(NULL, r, &fields, err);

    if (rc == 0)
        rc = reader_get(r, item, &row, err);
    if (rc != 0)
        return rc;
    return json ? print_json(&row, &reader_meta(r)->recipe, &fields)
                : print_words(&row, reader_source(r, row.listed.source));
}

static int show_key(struct reader *r, const char *key, bool json, struct err *err)
{
    const uint64_t *items;
    size_t n;
    int rc = reader_find(r, key, strlen(key), &items, &n, err);

    if (rc < 0)
        return rc;
    if (n == 0)
        return err_set(err, -ENOENT, "no item has the key %s (keys are paths relative to the source)", key);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (i > 0 && !json)
            putchar('\n');
        rc = show_item(r, items[i], json, err);
    }
    return rc;
}

static int show(struct named_store *store, const struct get_options *o, const char *key)
{
    struct err err = {""};
    int rc =
        key ? show_key(store->reader, key, o->json, &err) : show_item(store->reader, (uint64_t)o->item, o->json, &err);

    return rc == 0 ? CLI_EXIT_OK : named_store_fail(store, rc, &err);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct get_options o = {.item = -1};
    int n_args = cli_parse(self, argc, argv, &o), code;
    struct named_store store;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if ((n_args == 2) == (o.item >= 0)) {
        cli_error("get: give either a key or --item N\nUsage: blipline get %s", self->usage);
        return CLI_EXIT_USAGE;
    }
    code = named_store_open("get", o.broker, argv[argc - n_args], &store);
    if (code == CLI_EXIT_OK)
        code = show(&store, &o, n_args == 2 ? argv[argc - 1] : NULL);
    named_store_close(&store);
    return code;
}

const struct cli_command cmd_get = {
    .name = "get",
    .line = "show the results for one picture",
    .usage = "STORE|JOB KEY | STORE|JOB --item N",
    .about = HELP_GET,
    .examples = HELP_GET_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = 2,
    .run = run,
};
