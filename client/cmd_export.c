/* cmd_export.c - `blipline export`: the results of a store in item order. */
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
#include "client/named_store.h"
#include "client/export/select.h"
#include "console/shell.h"
#include "client/export/sink.h"
#include "store/reader.h"

struct export_options {
    const char *format, *out, *best_of, *texts, *embedding, *fields;
    double min_itm, min_itc; /* NOT_GIVEN */
    int64_t max_per_image;
    bool dedup_text, flat;
};

#define NOT_GIVEN (-2.0) /* no score is that low */

static const struct cli_option options[] = {
    {"format", 'f', CLI_CHOICE, offsetof(struct export_options, format), "FORMAT", "jsonl (default), csv or txt", 0, 0,
     "jsonl csv txt"},
    {"output", 'o', CLI_TEXT, offsetof(struct export_options, out), "PATH",
     "write to this file (default, or -: standard output). A regular file appears only when it is complete; pipes "
     "and devices are written directly",
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

struct tally {
    uint64_t n_rows, n_failed, n_missing, n_damaged;
    uint64_t n_captions, n_kept, n_empty; /* with a filter: captions seen, captions written, pictures without any */
};

/* How to write rows. */
struct style {
    enum export_format format;
    struct select_options select;
    bool filter, flat;
    struct export_fields fields;
};

/* The row or rows of one item. A filter leaves out failed items and those without a caption. */
static int write_item(const struct style *style, const struct export_row *row, struct buf *out, struct tally *t)
{
    uint32_t picked[ROW_MAX_CAPTIONS];
    struct export_row r = *row;
    int rc = 0;

    if (!style->filter && !style->flat)
        return export_row(style->format, &r, out);
    if (row->record->failed)
        return style->filter ? 0 : export_row(style->format, &r, out);
    r.n_picked = select_captions(&style->select, row->record, picked);
    r.picked = picked;
    t->n_captions += row->record->n_captions;
    t->n_kept += r.n_picked;
    t->n_empty += r.n_picked == 0;
    if (r.n_picked == 0)
        return 0;
    if (!style->flat)
        return export_row(style->format, &r, out);
    for (uint32_t i = 0, n = r.n_picked; rc == 0 && i < n; i++) {
        r.picked = &picked[i];
        r.n_picked = 1;
        rc = export_row(style->format, &r, out);
    }
    return rc;
}

static int write_rows(struct reader *r, const struct style *style, struct sink *s, struct tally *t, struct err *err)
{
    const struct msg_recipe *recipe = &reader_meta(r)->recipe;
    int rc = export_head(style->format, &style->fields, &s->rows);

    while (rc == 0) {
        struct reader_row row;

        rc = reader_next(r, &row, err);
        if (rc == -EBADMSG) {
            cli_error("export: %s", err->text);
            t->n_damaged++;
            rc = 0;
            continue;
        }
        if (rc <= 0)
            break;
        rc = 0;
        if (!row.has_record) {
            t->n_missing++;
            continue;
        }
        t->n_rows++;
        t->n_failed += row.record.failed;
        rc = write_item(style,
                        &(struct export_row){.key = row.listed.key,
                                             .key_bytes = row.listed.key_bytes,
                                             .record = &row.record,
                                             .recipe = recipe,
                                             .listed = &row.listed,
                                             .fields = &style->fields},
                        &s->rows, t);
        if (rc == 0)
            rc = sink_flush(s, 1 << 16, err);
    }
    return rc;
}

static void say_damaged(uint64_t n, const char *store)
{
    char command[SHELL_SIZE];

    if (n)
        cli_error("export: %" PRIu64 " damaged item%s left out (%s)", n, cli_s(n),
                  shell_command("verify", store, command, sizeof(command)));
}

static void say_tally(const struct tally *t, const struct style *style, const char *store)
{
    char command[SHELL_SIZE];

    if (style->filter)
        cli_error("export: %" PRIu64 " of %" PRIu64 " captions kept; %" PRIu64 " of %" PRIu64
                  " pictures have none left and were left out",
                  t->n_kept, t->n_captions, t->n_empty, t->n_rows - t->n_failed);
    if (t->n_failed)
        cli_error("export: %" PRIu64 " of %" PRIu64 " items failed%s (%s counts the reasons)", t->n_failed, t->n_rows,
                  style->filter ? " and were left out" : "", shell_command("stats", store, command, sizeof(command)));
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
static int choose_fields(struct reader *r, const struct export_options *o, struct style *style, struct err *err)
{
    int rc;

    if (o->fields && style->format == EXPORT_TXT)
        return err_set(err, -EDOM, "--fields: txt has only key and caption; use --format jsonl or csv");
    rc = export_fields_parse(o->fields, r, &style->fields, err);
    return rc == -EINVAL ? -EDOM : rc;
}

static int run_embedding(const struct export_options *o, const char *store)
{
    struct export_embedding_counts n = {0};
    struct export_fields fields;
    enum msg_embedding kind;
    struct reader *r = NULL;
    struct err err = {""};
    const struct select_options select = select_of(o);
    int code, rc = export_embedding_parse(o->embedding, &kind);
    bool wrong;

    if (o->format || o->best_of || o->flat || select_is_filter(&select)) {
        cli_error("export: --embedding writes arrays of all items: --format, --flat and filters of captions have no "
                  "effect there");
        return CLI_EXIT_USAGE;
    }
    if (!o->out || strcmp(o->out, "-") == 0) {
        cli_error("export: --embedding needs -o PATH, the file for the array");
        return CLI_EXIT_USAGE;
    }
    code = named_store_open("export", store, &r);
    if (code != CLI_EXIT_OK)
        return code;
    if (rc == 0)
        rc = export_fields_parse(o->fields, r, &fields, &err);
    wrong = rc == -EINVAL;
    if (rc == 0)
        rc = export_embedding(r, kind, &fields, o->out, &n, &err);
    reader_close(r);
    if (rc < 0) {
        cli_error("export: %s", err.text[0] ? err.text : strerror(-rc));
        return wrong ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    }
    cli_error("export: %" PRIu64 " rows of %" PRIu64 " items in %s", n.n_rows, n.n_items, o->out);
    if (n.n_without)
        cli_error("export: %" PRIu64 " item%s failed or not done yet, left out", n.n_without, cli_are(n.n_without));
    say_damaged(n.n_damaged, store);
    return n.n_damaged ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct export_options o = {.texts = "all", .min_itm = NOT_GIVEN, .min_itc = NOT_GIVEN};
    int n_args = cli_parse(self, argc, argv, &o);
    struct style style = {0};
    struct tally tally = {0};
    struct reader *r = NULL;
    struct sink s = {.fd = -1};
    struct err err = {""};
    int rc;

    if (n_args < 0)
        return cli_exit_code(n_args);
    if (o.embedding)
        return run_embedding(&o, argv[argc - 1]);
    rc = named_store_open("export", argv[argc - 1], &r);
    if (rc != CLI_EXIT_OK)
        return rc;
    rc = export_format_parse(o.format ? o.format : "jsonl", &style.format);
    style.select = select_of(&o);
    style.filter = select_is_filter(&style.select);
    style.flat = o.flat;
    if (rc == 0)
        rc = check_scores(r, &style.select, argv[argc - 1], &err);
    if (rc == 0)
        rc = choose_fields(r, &o, &style, &err);
    if (rc == 0)
        rc = sink_open(&s, o.out, false, &err);
    if (rc == 0)
        rc = write_rows(r, &style, &s, &tally, &err);
    if (rc == 0)
        rc = sink_finish(&s, &err);
    if (rc == 0 && tally.n_missing && !tally.n_damaged) /* not done yet */
        rc = reader_check_pages(r, &err);
    sink_release(&s);
    reader_close(r);
    if (rc < 0) {
        cli_error("export: %s", err.text[0] ? err.text : strerror(-rc));
        return rc == -EDOM ? CLI_EXIT_USAGE : CLI_EXIT_ERROR;
    }
    say_tally(&tally, &style, argv[argc - 1]);
    return tally.n_damaged ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

const struct cli_command cmd_export = {
    .name = "export",
    .line = "write the captions of a store as JSON Lines, CSV or text",
    .usage = "STORE [--format jsonl|csv|txt] [--best-of SCORE] [-o PATH]",
    .about = HELP_EXPORT,
    .examples = HELP_EXPORT_EXAMPLES,
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
