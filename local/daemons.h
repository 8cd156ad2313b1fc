/* daemons.h - the broker and the workers of one run, as child processes that are restarted when they die.
 *
 * Who may call: the main thread. Call daemons_reap on SIGCHLD, and daemons_tick at the times it returns.
 * Units:  CLOCK_MONOTONIC milliseconds. Memory: the struct owns processes and log files; daemons_release ends them.
 * Errors: negative errno and `err` if the run must end: a daemon does not start, or dies again and again. */
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
    DAEMONS_MAX_FAILED_STARTS = 3, /* in a row; loading a model may take longer than the window */
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
    int log_fd;       /* the child appends, this process reads */
    int64_t log_read; /* bytes copied to the terminal so far */
    unsigned n_starts;
    int64_t deaths_ms[DAEMONS_MAX_DEATHS]; /* ring of the last ones */
    unsigned n_deaths;
    unsigned n_failed_starts; /* in a row; it ended before it was ready */
    int64_t restart_ms;       /* if not running: when to restart it */
    bool dismissed;           /* asked to end; not restarted */
    bool killed;              /* killed because it hung */
};

struct daemons {
    struct daemons_child children[DAEMONS_MAX]; /* the broker first */
    int n_children;
    const struct rundir *rundir;
    struct daemons_conf conf;
    struct terminal *terminal;
    uint64_t n_isolations[STAGE_LLM + 1]; /* latest count of this broker */
    uint64_t n_to_forgive[STAGE_LLM + 1]; /* forgiven deaths that have not been reaped yet */
    bool stopping;                        /* deaths are expected */
    bool gave_up;                         /* the user was shown a log: keep it */
};

/* Find the programs and write the configuration files; nothing runs yet. */
int daemons_init(struct daemons *d, const struct rundir *r, const struct daemons_conf *conf, struct terminal *terminal,
                 struct err *err) CHECK_RESULT;
/* Start the broker, or the workers, unless they have been started already, and keep them running. */
int daemons_start_broker(struct daemons *d, struct err *err) CHECK_RESULT;
int daemons_start_workers(struct daemons *d, struct err *err) CHECK_RESULT;
/* Handle children that have ended. */
int daemons_reap(struct daemons *d, int64_t now_ms, struct err *err) CHECK_RESULT;
/* Restart daemons that are due and, if verbose, copy their logs. *ret_next_ms: when to call again; INT64_MAX: never. */
int daemons_tick(struct daemons *d, int64_t now_ms, int64_t *ret_next_ms, struct err *err) CHECK_RESULT;
/* Ask the image encoders to end; they return units that they have not begun. */
void daemons_dismiss_encoders(struct daemons *d);
/* n_isolations: StageProgress.isolations, the workers that died on a unit which the broker ran exclusively to find the
 * picture that kills them. Such deaths do not count as a reason to give up. */
void daemons_forgive(struct daemons *d, enum stage stage, uint64_t n_isolations);
/* Kill those of these hung workers that are children, so that they are restarted. */
void daemons_kill_hung(struct daemons *d, const struct msg_hung_worker *hung, uint32_t n);
/* From now on children are expected to end. */
void daemons_expect_end(struct daemons *d);
unsigned daemons_running(const struct daemons *d);
/* Signal all running workers, and the broker if `broker_too`. */
void daemons_signal(const struct daemons *d, bool broker_too, int signal_number);
/* Kill all children, wait for them, close the logs. May be called again. */
void daemons_release(struct daemons *d);
/* How often the broker has been started. */
unsigned daemons_broker_starts(const struct daemons *d);

#endif
