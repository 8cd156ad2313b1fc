#include "client/import.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

int import_open_feed(struct import *i, const struct origins_known *known, struct err *err)
{
    struct feed_options o = job_feed_options(i->o, i->columns);
    int rc;

    o.store_path = i->store;
    o.known = known;
    for (int k = 0; i->feed && k < o.n_sources; k++) {
        const char *arg = feed_origins(i->feed)->args[k].arg;

        if (source_is_read_once(arg))
            return err_set(err, -EIO,
                           "the broker was restarted and %s cannot be read a second time; run the command again",
                           arg + 1);
    }
    feed_close(i->feed);
    i->feed = NULL;
    rc = feed_open(&o, &i->feed, err);
    if (rc < 0)
        i->error_exit = cli_exit_of(rc);
    else if ((!known || known->n_rows == 0) && feed_peeked(i->feed) == 0 && (!i->store || access(i->store, F_OK) < 0))
        rc = err_set(err, -ENODATA, "no pictures in %s%s (.jpg, .jpeg, .png, .webp; blipline help sources)",
                     o.sources[0], o.n_sources > 1 ? " and the other sources" : "");
    return rc;
}

static int stream(struct import *i, struct err *err)
{
    bool more = true;
    char text[80];

    while (more) {
        int rc = job_stream(i->job, i->feed, &more, err);

        if (rc == 0)
            rc = i->tick(i->arg, err);
        if (rc < 0)
            return rc;
        (void)snprintf(text, sizeof(text), "listing pictures: %" PRIu64, feed_counts(i->feed)->n_walked);
        terminal_status(i->terminal, text);
    }
    return 0;
}

static void begin(struct import *i)
{
    i->begun = true;
    i->begin(i->arg);
    if (i->job->opened.n_items)
        job_compare(i->job, i->how);
}

/* The broker died or did not answer during the import: keep what it has made durable, find the rest by another walk. */
static int begin_again(struct import *i, struct err *err)
{
    int rc = 0;

    if (i->job->opened.n_items) {
        rc = job_seal(i->job, 0, err);
        i->job->sealed = false;
    }
    job_compare(i->job, i->job->opened.n_items ? i->how : NULL);
    return rc;
}

int import_send(struct import *i, struct err *err)
{
    const bool again = i->begun;
    int rc = 0;

    if (!i->job->sealed && (again || !i->feed || feed_origins(i->feed)->n_stored != i->job->known.n_rows))
        rc = import_open_feed(i, &i->job->known, err);
    if (rc == 0 && !i->job->sealed)
        rc = job_sources(i->job, i->feed, err);
    if (rc == 0 && !again)
        begin(i);
    else if (rc == 0 && !i->job->sealed)
        rc = begin_again(i, err);
    if (rc == 0 && !i->job->sealed)
        rc = stream(i, err);
    if (rc == 0 && !i->job->sealed)
        rc = job_sources(i->job, i->feed, err);
    if (rc == 0)
        rc = job_seal(i->job, i->store || i->job->sealed ? 0 : import_disk_bytes(i), err);
    return rc;
}

uint64_t import_disk_bytes(const struct import *i)
{
    const struct feed_counts *c = feed_counts(i->feed);

    return c->n_row_bytes + c->n_walked * i->o->plan->result_bytes;
}

void import_release(struct import *i)
{
    feed_close(i->feed);
    i->feed = NULL;
}
