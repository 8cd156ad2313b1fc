/* report.h - messages and JSON at the end of a run.
 *
 * Who may call: one thread. Units: nanoseconds in, seconds out. Memory: none. Errors: none. */
#ifndef BLIPLINE_CLIENT_REPORT_H
#define BLIPLINE_CLIENT_REPORT_H

#include "job/passed_over.h"
#include "console/terminal.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct json_t;

struct report {
    const char *command;                     /* the schema of report_json */
    const char *store;                       /* of this machine, or the name of the broker's job for messages */
    uint64_t job;                            /* not 0: a job of a broker; its store is on the broker's machine */
    const struct msg_job_progress *progress; /* the last answer */
    uint64_t n_before;                       /* items with a record at the start of the run */
    uint64_t n_redone_before;                /* records that had replaced another by then */
    int64_t elapsed_ms;                      /* of the run, without reading and checking the checkpoint */
    int64_t waited_ms;                       /* of that, while the disk was full */
    bool done;                               /* finished, not stopped */
    const char *paused;                      /* why; NULL: it is not */
    struct passed_over passed_over;          /* in the sources by this run */
    const struct msg_recipe *recipe;         /* NULL for a job of a broker */
};

/* A few lines for people. */
void report_words(const struct report *r, struct terminal *s);
/* One JSON object on standard output. */
void report_json(const struct report *r);
enum { REPORT_LABEL_SIZE = 32 };
/* The stage of a node; of two that are the same, the later one belongs to the scorer. Returns `ret`. */
const char *report_stage_label(const struct msg_job_progress *p, uint32_t node, char ret[REPORT_LABEL_SIZE]);
struct json_t *report_stages_json(const struct msg_job_progress *p);
/* Of the command, once the job has finished: CLI_EXIT_OK or CLI_EXIT_FAILED_ITEMS. */
int report_exit_code(const struct report *r);

#endif
