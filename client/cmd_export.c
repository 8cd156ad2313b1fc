/* cmd_export.c - `blipline export`: the results of a store or of a broker's job. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/commands.h"
#include "client/help_texts.h"
#include "client/export/export_embedding.h"
#include "client/export/export_row.h"
#include "client/export_rows.h"
#include "client/named_store.h"
#include "client/export/select.h"
#include "console/shell.h"
#include "client/export/sink.h"
#include "store/reader.h"

struct export_options {
    const char *format, *out, *best_of, *texts, *embedding, *fields, *broker;
    double min_itm, min_itc; /* NOT_GIVEN */
    int64_t max_per_image;
    bool dedup_text, flat, follow;
};

#define NOT_GIVEN (-2.0) /* no score is that low */

static const struct cli_option options[] = {
    {"format", 'f', CLI_CHOICE, offsetof(struct export_options, format), "FORMAT", "jsonl (default), csv or txt", 0, 0,
     "jsonl csv txt"},
    {"output", 'o', CLI_TEXT, offsetof(struct export_options, out), "PATH",
     "write to this file (default, or -: standard output). A regular file appears only when it is complete; pipes "
     "and devices are written directly",
     0, 0, NULL},
    BROKER_CLIENT_OPTION(struct export_options),
    {"follow", 'F', CLI_FLAG, offsetof(struct export_options, follow), NULL,
     "write the rows of a unit as soon as it is committed, in the order of the commits, until nobody works on the job "
     "any more. A file that -o names is written as it grows",
     0, 0, NULL},
    {"fields", 0, CLI_TEXT, offsetof(struct export_options, fields), "NAMES",
     "more fields for each row, separated by commas: source, path, size, mtime, and columns of the list that the "
     "recipe uses or that `caption --fields` kept (default: source, if the store has several)",
     0, 0, NULL},
    {"embedding", 'e', CLI_CHOICE, offsetof(struct export_options, embedding), "KIND",
     "write embeddings instead of captions: query, itc, itc_text or cls. The file that -o names becomes a NumPy "
     "array; a second file, with .keys.jsonl in place of .npy, lists the items of its rows",
     0, 0, "query itc itc_text cls"},
    {"best-of", 'b', CLI_CHOICE, offsetof(struct export_options, best_of), "SCORE",
     "sort the captions of a picture by this score, best first: itm, itc or logprob. Without --max-per-image, "
     "write only the best one",
     0, 0, "itm itc logprob"},
    {"min-itm", 0, CLI_REAL, offsetof(struct export_options, min_itm), "X",
     "leave out captions whose match probability is below X (0 to 1) or missing", 0, 1, NULL},
    {"min-itc", 0, CLI_REAL, offsetof(struct export_options, min_itc), "X",
     "leave out captions whose similarity is below X (-1 to 1) or missing", -1, 1, NULL},
    {"max-per-image", 0, CLI_NUMBER, offsetof(struct export_options, max_per_image), "N",
     "at most N captions for each picture", 1, ROW_MAX_CAPTIONS, NULL},
    {"dedup-text", 0, CLI_FLAG, offsetof(struct export_options, dedup_text), NULL,
     "write equal captions of a picture once: the first in the chosen order", 0, 0, NULL},
    {"texts", 0, CLI_CHOICE, offsetof(struct export_options, texts), "WHICH",
     "all (default), generated, or given (those that came with the list)", 0, 0, "all generated given"},
    {"flat", 0, CLI_FLAG, offsetof(struct export_options, flat), NULL,
     "jsonl: one row for each caption, instead of one row for each picture with a list of captions", 0, 0, NULL},
    {0},
};

static void say_damaged(uint64_t n, const struct named_store *store)
{
    char command[SHELL_SIZE];

    if (n)
        cli_error("export: %" PRIu64 " damaged item%s left out (%s)", n, cli_s(n),
                  named_store_hint(store, "verify", command, sizeof(command)));
}

static void say_tally(const struct export_tally *t, const struct export_style *style, const struct named_store *store)
{
    char command[SHELL_SIZE];

    if (style->filter)
        cli_error("export: %" PRIu64 " of %" PRIu64 " captions kept; %" PRIu64 " of %" PRIu64
                  " pictures have none left and were left out",
                  t->n_kept, t->n_captions, t->n_empty, t->n_rows - t->n_failed);
    if (t->n_failed)
        cli_error("export: %" PRIu64 " of %" PRIu64 " items failed%s (%s counts the reasons)", t->n_failed, t->n_rows,
                  style->filter ? " and were left out" : "",
                  named_store_hint(store, "stats", command, sizeof(command)));
    if (t->n_missing)
        cli_error("export: %" PRIu64 " item%s not done yet, left out", t->n_missing, cli_are(t->n_missing));
    say_damaged(t->n_damaged, store);
}

static struct select_options select_of(const struct export_options *o)
{
    static const struct {
        const char *word;
        enum select_order order;
    } orders[] = {{"itm", SELECT_BY_ITM}, {"itc", SELECT_BY_ITC}, {"logprob", SELECT_BY_LOGPROB}};
    struct select_options s = {.want_itm = o->min_itm > NOT_GIVEN,
                               .want_itc = o->min_itc > NOT_GIVEN,
                               .min_itm = o->min_itm,
                               .min_itc = o->min_itc,
                               .max_per_image = (uint32_t)o->max_per_image,
                               .dedup_text = o->dedup_text,
                               .generated_only = strcmp(o->texts, "generated") == 0,
                               .given_only = strcmp(o->texts, "given") == 0};

    for (size_t i = 0; o->best_of && i < sizeof(orders) / sizeof(orders[0]); i++)
        if (strcmp(o->best_of, orders[i].word) == 0)
            s.order = orders[i].order;
    if (o->best_of && s.max_per_image == 0)
        s.max_per_image = 1;
    return s;
}

/* Refuse a filter on scores that the job did not compute. */
static int check_scores(const struct reader *r, const struct select_options *s, const char *store, struct err *err)
{
    const struct msg_recipe *recipe = &reader_meta(r)->recipe;
    const bool itm = s->want_itm || s->order == SELECT_BY_ITM, itc = s->want_itc || s->order == SELECT_BY_ITC;

    if ((itm && !recipe->itm) || (itc && !recipe->itc))
        return err_set(err, -EINVAL,
                       "%s: its captions have no %s scores (the recipe \"%s\" does not compute them; blipline help "
                       "recipe)",
                       store, itm && !recipe->itm ? "ITM" : "ITC", recipe->name);
    if (s->order == SELECT_BY_LOGPROB && recipe->decode.max_new_tokens == 0)
        return err_set(err, -EINVAL, "%s: its captions have no log-probabilities (the recipe \"%s\" writes none)",
                       store, recipe->name);
    return 0;
}

/* -EDOM: the command line is wrong. */
static int choose_fields(struct reader *r, const struct export_options *o, struct export_style *style, struct err *err)
{
    int rc;

    if (o->fields && style->format == EXPORT_TXT)
        return err_set(err, -EDOM, "--fields: txt has only key and caption; use --format jsonl or csv");
    rc = export_fields_parse(o->fields, r, &style->fields, err);
    return rc == -EINVAL ? -EDOM : rc;
}

static int write_embedding(const struct export_options *o, struct named_store *store)
{
    struct export_embedding_counts n = {0};
    struct export_fields fields;
    enum msg_embedding kind;
    struct err err = {""};
    int rc = export_embedding_parse(o->embedding, &kind);
    bool wrong;

    if (rc == 0)
        rc = export_fields_parse(o->fields, store->reader, &fields, &err);
    wrong = rc == -EINVAL;
    if (rc == 0)
        rc = export_embedding(store->reader, kind, &fields, o->out, &n, &err);
    if (rc < 0) {
        int code = named_store_fail(store, rc, &err);

        return wrong ? CLI_EXIT_USAGE : code;
    }
    cli_error("export: %" PRIu64 " rows of %" PRIu64 " items in %s", n.n_rows, n.n_items, o->out);
    if (n.n_without)
        cli_error("export: %" PRIu64 " item%s failed or not done yet, left out", n.n_without, cli_are(n.n_without));
    say_damaged(n.n_damaged, store);
    return n.n_damaged ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

static int check_embedding_options(const struct export_options *o)
{
    const struct select_options select = select_of(o);

    if (!o->embedding)
        return CLI_EXIT_OK;
    if (o->format || o->best_of || o->flat || o->follow || select_is_filter(&select)) {
        cli_error("export: --embedding writes arrays of all items: --format, --flat, --follow and filters of captions "
                  "have no effect there");
        return CLI_EXIT_USAGE;
    }
    if (!o->out || strcmp(o->out, "-") == 0) {
        cli_error("export: --embedding needs -o PATH, the file for the array");
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
}

static int write_captions(const struct export_options *o, struct named_store *store)
{
    struct export_style style = {.select = select_of(o), .flat = o->flat};
    struct export_tally tally = {0};
    struct sink s = {.fd = -1};
    struct err err = {""};
    int rc = export_format_parse(o->format ? o->format : "jsonl", &style.format);

    style.filter = select_is_filter(&style.select);
    if (rc == 0)
        rc = check_scores(store->reader, &style.select, named_store_label(store), &err);
    if (rc == 0)
        rc = choose_fields(store->reader, o, &style, &err);
    if (rc == 0)
        rc = o->follow ? sink_open_growing(&s, o->out, &err) : sink_open(&s, o->out, false, &err);
    if (rc == 0)
        rc = o->follow ? export_follow(store->reader, &style, &s, &tally, &err)
                       : export_walk(store->reader, &style, &s, &tally, &err);
    if (rc == 0)
        rc = sink_finish(&s, &err);
    if (rc == 0 && tally.n_missing && !tally.n_damaged) /* not done yet */
        rc = reader_check_pages(store->reader, &err);
    sink_release(&s);
    if (rc < 0) {
        int code = named_store_fail(store, rc, &err);

        return rc == -EDOM ? CLI_EXIT_USAGE : code;
    }
    say_tally(&tally, &style, store);
    return tally.n_damaged ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct export_options o = {.texts = "all", .min_itm = NOT_GIVEN, .min_itc = NOT_GIVEN};
    int n_args = cli_parse(self, argc, argv, &o), code;
    struct named_store store;

    if (n_args < 0)
        return cli_exit_code(n_args);
    code = check_embedding_options(&o);
    if (code != CLI_EXIT_OK)
        return code;
    code = named_store_open("export", o.broker, argv[argc - 1], &store);
    if (code == CLI_EXIT_OK)
        code = o.embedding ? write_embedding(&o, &store) : write_captions(&o, &store);
    named_store_close(&store);
    return code;
}

const struct cli_command cmd_export = {
    .name = "export",
    .line = "write the captions of a store or job as JSON Lines, CSV or text",
    .usage = "STORE|JOB [--format jsonl|csv|txt] [--best-of SCORE] [-o PATH]",
    .about = HELP_EXPORT,
    .examples = HELP_EXPORT_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
