#include "client/source_notes.h"

#include "console/cli.h"
#include "console/printable.h"
#include "job/passed_over.h"
#include "console/shell.h"

#include <inttypes.h>

/* Reports moved sources and files that walks have passed over. */
static void tell_about_places(const struct feed *f, const char *store, struct terminal *s)
{
    const struct feed_counts *c = feed_counts(f);
    const struct origins *all = feed_origins(f);
    struct passed_over passed;
    char text[512];

    for (int i = 0; i < all->n_args; i++)
        if (all->args[i].moved)
            terminal_note(s, "%s is the source \"%s\" of %s, which was %s", all->args[i].arg,
                          all->rows[all->args[i].number - 1].name, store, all->args[i].was);
    passed_over_of_walk(&c->skipped, &passed);
    if (passed.n)
        terminal_note(s, "passed over: %s (blipline help sources)", passed_over_words(&passed, text, sizeof(text)));
    if (c->skipped.first_problem.text[0])
        terminal_note(s, "some folders or links could not be read: %s", c->skipped.first_problem.text);
}

void source_notes(const struct import *i, const struct msg_compared *compared, const char *store)
{
    const struct job_options *o = i->o;
    const struct feed *f = i->feed;
    const struct feed_counts *c = feed_counts(f);
    struct terminal *s = i->terminal;
    const char *first_bad;
    char key[512];
    uint64_t n_bad_joined;

    if (compared->n_changed)
        terminal_note(s,
                      "%" PRIu64 " picture%s changed after being listed; the records stay (--refresh does them again)",
                      compared->n_changed, cli_s(compared->n_changed));
    if (compared->n_other_fields)
        terminal_note(s,
                      "the columns of %" PRIu64
                      " row%s changed after being listed (first: %s); the records stay (--refresh does them again)",
                      compared->n_other_fields, cli_s(compared->n_other_fields),
                      printable_text(compared->other_fields_key, compared->other_fields_key_bytes, key, sizeof(key)));
    if (c->n_unjoined)
        terminal_note(s, "%" PRIu64 " picture%s without a row in --join %s", c->n_unjoined, cli_s(c->n_unjoined),
                      o->join);
    if ((n_bad_joined = feed_n_bad_joined(f, &first_bad)) > 0)
        terminal_note(s, "%" PRIu64 " row%s of --join %s cannot be used (first: %s)", n_bad_joined, cli_s(n_bad_joined),
                      o->join, first_bad);
    if (c->n_bad)
        terminal_note(s, "%" PRIu64 " row%s of the lists cannot be used; these items fail (first: %s)", c->n_bad,
                      cli_s(c->n_bad), c->first_bad.text);
    if (c->n_without)
        terminal_note(s, "%" PRIu64 " value%s missing in the lists that the recipe needs; these items fail",
                      c->n_without, cli_are(c->n_without));
    if (c->n_left_out)
        terminal_note(s, "%" PRIu64 " value%s of the columns of --fields not text and %s left out", c->n_left_out,
                      c->n_left_out == 1 ? " is" : "s are", c->n_left_out == 1 ? "is" : "are");
    if (c->not_kept[0])
        terminal_note(s, "--fields only applies to new stores: %s does not keep %s", store, c->not_kept);
    for (uint32_t k = 0; k < o->plan->n_fields; k++)
        if (!o->plan->fields[k].needed && !(c->columns_seen >> k & 1))
            terminal_note(s, "no source has a column \"%s\", so there are no texts of that name", i->columns[k]);
    tell_about_places(f, store, s);
}

void source_notes_again(const struct msg_compared *c, const struct caption_options *o, struct terminal *s)
{
    char command[SHELL_SIZE];

    if (c->n_damaged)
        terminal_note(s, "%" PRIu64 " record%s of %s cannot be read; these items are done again", c->n_damaged,
                      cli_s(c->n_damaged), o->store);
    if (c->n_retried)
        terminal_note(s, "%" PRIu64 " item%s that failed %s tried again", c->n_retried, cli_s(c->n_retried),
                      c->n_retried == 1 ? "is" : "are");
    if (c->n_refreshed)
        terminal_note(s, "%" PRIu64 " item%s that changed %s done again", c->n_refreshed, cli_s(c->n_refreshed),
                      c->n_refreshed == 1 ? "is" : "are");
    for (uint32_t i = 0; i < o->again.n_codes; i++)
        if (c->n_failed_with[i] == 0)
            terminal_note(s, "--retry=%s: no item failed for that reason (`%s` lists them)", o->again.codes[i],
                          shell_command("stats", o->store, command, sizeof(command)));
}
