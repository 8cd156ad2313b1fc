/* daemons.h - the broker and the workers of one run, as child processes that are restarted when they die.
 *
 * Who may call: the main thread. The caller learns of deaths by SIGCHLD and calls daemons_reap, and daemons_tick at
 * the times that it returns.
 * Units:  CLOCK_MONOTONIC milliseconds. Memory: the struct owns processes and log files; daemons_release ends them.
 * Errors: negative errno and `err`, when it is no use to go on: a daemon does not start, or dies again and again. */
#ifndef BLIPLINE_LOCAL_DAEMONS_H
#define BLIPLINE_LOCAL_DAEMONS_H

#include "base/err.h"
#include "local/place.h"
#include "local/rundir.h"
#include "console/terminal.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    DAEMONS_MAX = 1 + PLACE_MAX,
    DAEMONS_MAX_DEATHS = 5,
    DAEMONS_DEATH_WINDOW_MS = 30000,
    DAEMONS_MAX_FAILED_STARTS =
        3, /* in a row, however long each takes: loading a model may take longer than the window */
};

struct daemons_conf {
    const struct placement *placement; /* the workers; must live as long as the daemons */
    const struct msg_recipe *recipe;
    int64_t max_pixels, max_file_bytes; /* of a picture; 0: the encoder's own limits */
    bool verbose;
};

struct daemons_child {
    const char *name;          /* "encoder" */
    const struct place *place; /* NULL: the broker */
    char program[PATH_MAX];
    char config[RUNDIR_MAX + 16], log[RUNDIR_MAX + 16];
    pid_t pid;        /* 0: not running */
    int log_fd;       /* appended to by the child, read by us */
    int64_t log_read; /* bytes copied to the terminal so far */
    unsigned n_starts;
    int64_t deaths_ms[DAEMONS_MAX_DEATHS]; /* ring of the last ones */
    unsigned n_deaths;
    unsigned n_failed_starts; /* in a row: it ended before it was ready */
    int64_t restart_ms;       /* when, if not running */
    bool dismissed;           /* asked to end: its death is no accident, nobody takes its place */
    bool killed;              /* it hung: we have killed it */
};

struct daemons {
    struct daemons_child children[DAEMONS_MAX]; /* the broker first */
    int n_children;
    const struct rundir *rundir;
    struct daemons_conf conf;
    struct terminal *terminal;
    uint64_t n_isolations[STAGE_LLM + 1]; /* as last told, of this broker */
    uint64_t n_to_forgive[STAGE_LLM + 1]; /* deaths that have not been seen yet */
    bool stopping;                        /* deaths are expected now */
    bool gave_up;                         /* a log has been shown that the user may want to read */
};

/* Find the programs and write the configuration files; nothing runs yet. */
int daemons_init(struct daemons *d, const struct rundir *r, const struct daemons_conf *conf, struct terminal *terminal,
                 struct err *err) CHECK_RESULT;
/* Start the broker, or the workers, unless they have been started already; from then on they are kept running. */
int daemons_start_broker(struct daemons *d, struct err *err) CHECK_RESULT;
int daemons_start_workers(struct daemons *d, struct err *err) CHECK_RESULT;
/* Take note of those that died. */
int daemons_reap(struct daemons *d, int64_t now_ms, struct err *err) CHECK_RESULT;
/* Restart what is due, copy the logs where they are wanted. *ret_next_ms: when to call again, INT64_MAX for never. */
int daemons_tick(struct daemons *d, int64_t now_ms, int64_t *ret_next_ms, struct err *err) CHECK_RESULT;
/* Ask the image encoders to end: they hand back what they have not begun. */
void daemons_dismiss_encoders(struct daemons *d);
/* The broker has lost so many workers of the stage with a unit in suspicion alone (JobProgress, in all): it looks for
 * the picture that kills them, and such deaths are no reason to give up. */
void daemons_forgive(struct daemons *d, enum stage stage, uint64_t n_isolations);
/* The broker says that these workers get nowhere: kill those that are ours, so that others take their places. */
void daemons_kill_hung(struct daemons *d, const struct msg_hung_worker *hung, uint32_t n);
/* Deaths are no accidents from now on. */
void daemons_expect_end(struct daemons *d);
unsigned daemons_running(const struct daemons *d);
/* To all that run; the broker too, or the workers alone. */
void daemons_signal(const struct daemons *d, bool broker_too, int signal_number);
/* Kill what still runs, wait for it, close the logs. Repeatable. */
void daemons_release(struct daemons *d);
/* How often the broker has been started. */
unsigned daemons_broker_starts(const struct daemons *d);

#endif
