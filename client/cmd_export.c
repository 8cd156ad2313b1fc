/* cmd_export.c - `blipline export`: the results of a store in item order. */
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/commands.h"
#include "client/export_row.h"
#include "store/reader.h"

struct export_options {
    const char *format, *out;
};

static const struct cli_option options[] = {
    {"format", 'f', CLI_CHOICE, offsetof(struct export_options, format), "FORMAT", "jsonl (default), csv or txt", 0, 0,
     "jsonl csv txt"},
    {"output", 'o', CLI_TEXT, offsetof(struct export_options, out), "PATH",
     "write this file (in one piece: it is complete or not there) instead of standard output", 0, 0, NULL},
    {0},
};

/* Where the rows go: standard output, or a temporary file that becomes `path` at the end. */
struct sink {
    const char *path; /* NULL: standard output */
    char *temporary;
    int fd;
    struct buf rows;
};

static int sink_open(struct sink *s, const char *path, struct err *err)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    *s = (struct sink){.path = path, .fd = STDOUT_FILENO};
    buf_init(&s->rows, 0);
    if (!path)
        return 0;
    s->fd = -1;
    if (asprintf(&s->temporary, "%s.XXXXXX", path) < 0) {
        s->temporary = NULL;
        return -ENOMEM;
    }
    s->fd = mkostemp(s->temporary, O_CLOEXEC);
    if (s->fd < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    (void)fchmod(s->fd, 0666 & ~mask); /* as open(2) would have it */
    return 0;
}

static int sink_flush(struct sink *s, size_t at_least, struct err *err)
{
    size_t done = 0;

    if (s->rows.size_bytes < at_least)
        return 0;
    while (done < s->rows.size_bytes) {
        ssize_t n = write(s->fd, s->rows.data + done, s->rows.size_bytes - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "%s: %s", s->path ? s->path : "standard output", strerror(errno));
        done += (size_t)n;
    }
    buf_clear(&s->rows);
    return 0;
}

static int sink_finish(struct sink *s, struct err *err)
{
    int rc = sink_flush(s, 0, err);

    if (rc < 0 || !s->path)
        return rc;
    if (fsync(s->fd) < 0 || rename(s->temporary, s->path) < 0)
        return err_set(err, -errno, "%s: %s", s->path, strerror(errno));
    free(s->temporary);
    s->temporary = NULL;
    return 0;
}

static void sink_release(struct sink *s)
{
    if (s->path && s->fd >= 0)
        (void)close(s->fd);
    if (s->temporary)
        (void)unlink(s->temporary);
    free(s->temporary);
    buf_release(&s->rows);
}

struct tally {
    uint64_t n_rows, n_failed, n_missing, n_damaged;
};

static int write_rows(struct reader *r, enum export_format format, struct sink *s, struct tally *t, struct err *err)
{
    int rc = export_head(format, &s->rows);

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
        rc = export_row(format, &(struct export_row){row.listed.key, row.listed.key_bytes, &row.record}, &s->rows);
        if (rc == 0)
            rc = sink_flush(s, 1 << 16, err);
    }
    return rc;
}

static void say_tally(const struct tally *t, const char *store)
{
    if (t->n_failed)
        cli_error("export: %" PRIu64 " of %" PRIu64 " items failed (blipline stats %s counts the reasons)", t->n_failed,
                  t->n_rows, store);
    if (t->n_missing)
        cli_error("export: %" PRIu64 " items are not done yet and were left out", t->n_missing);
    if (t->n_damaged)
        cli_error("export: %" PRIu64 " damaged items were left out (blipline verify %s)", t->n_damaged, store);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct export_options o = {.format = "jsonl"};
    int n_args = cli_parse(self, argc, argv, &o);
    enum export_format format = EXPORT_JSONL;
    struct tally tally = {0};
    struct reader *r = NULL;
    struct sink s = {.fd = -1};
    struct err err;
    int rc;

    if (n_args < 0)
        return cli_exit_code(n_args);
    err.text[0] = '\0';
    rc = export_format_parse(o.format, &format);
    if (rc == 0)
        rc = reader_open(argv[argc - 1], false, &r, &err);
    if (rc == 0)
        rc = sink_open(&s, o.out, &err);
    if (rc == 0)
        rc = write_rows(r, format, &s, &tally, &err);
    if (rc == 0)
        rc = sink_finish(&s, &err);
    sink_release(&s);
    reader_close(r);
    if (rc < 0) {
        cli_error("export: %s", err.text[0] ? err.text : strerror(-rc));
        return CLI_EXIT_ERROR;
    }
    say_tally(&tally, argv[argc - 1]);
    return tally.n_damaged ? CLI_EXIT_ERROR : CLI_EXIT_OK;
}

const struct cli_command cmd_export = {
    .name = "export",
    .line = "write the captions of a store as JSON Lines, CSV or text",
    .usage = "STORE [--format jsonl|csv|txt] [-o PATH]",
    .about =
        "Writes one row an item, in the order of item numbers, to standard output or to a file. Two exports of equal\n"
        "results are equal byte by byte. The store may be in use. Items that are not done yet are left out and "
        "counted\n"
        "on standard error.\n\n"
        "  jsonl  {\"item\": 0, \"key\": \"a.jpg\", \"caption\": \"a dog\", \"logprob\": -1.25, \"tokens\": 3}\n"
        "         {\"item\": 1, \"key\": \"b.jpg\", \"error\": {\"code\": \"truncated\", \"message\": \"...\"}}\n"
        "         logprob is the sum over the generated tokens. In a key that is not UTF-8 the wrong bytes show as\n"
        "         U+FFFD, and \"key_base64\" holds the exact ones.\n"
        "  csv    RFC 4180 with a head line: item,key,key_base64,caption,logprob,tokens,error_code,error_message\n"
        "  txt    key, tab, caption; failed items have no caption. A tab, line feed, carriage return or backslash in\n"
        "         either is written \\t \\n \\r \\\\.",
    .examples = "Examples:\n"
                "  blipline export photos.lmdb | jq -r 'select(.caption) | .caption'\n"
                "  blipline export photos.lmdb --format csv -o photos.csv",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
