/* daemons.h - the broker and the three workers of one run, as child processes that are restarted when they die.
 *
 * Who may call: the main thread. The caller learns of deaths by SIGCHLD and calls daemons_reap, and daemons_tick at
 * the times that it returns.
 * Units:  CLOCK_MONOTONIC milliseconds. Memory: the struct owns processes and log files; daemons_release ends them.
 * Errors: negative errno and `err`, when it is no use to go on: a daemon does not start, or dies again and again. */
#ifndef BLIPLINE_CLIENT_DAEMONS_H
#define BLIPLINE_CLIENT_DAEMONS_H

#include "base/err.h"
#include "client/rundir.h"
#include "client/screen.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum daemons_role {
    DAEMONS_BROKER,
    DAEMONS_ENCODER,
    DAEMONS_QFORMER,
    DAEMONS_LLM,
    DAEMONS_N_ROLES,
};

enum { DAEMONS_MAX_DEATHS = 5, DAEMONS_DEATH_WINDOW_MS = 30000 };

/* What their configuration files say. */
struct daemons_conf {
    const char *model_dir; /* absolute; NULL with device null */
    const char *device;    /* "cpu", "null" */
    int n_threads;         /* in all */
    int n_tokens, width;   /* device null: shapes of what the encoder and the Q-Former hand on */
    int n_queries, lm_width;
    int n_positions; /* of a sequence in the language model */
    bool verbose;
};

struct daemons_child {
    const char *name; /* "encoder" */
    char program[PATH_MAX];
    char config[RUNDIR_MAX + 16], log[RUNDIR_MAX + 16];
    int n_threads;
    pid_t pid;        /* 0: not running */
    int log_fd;       /* appended to by the child, read by us */
    int64_t log_read; /* bytes copied to the screen so far */
    unsigned n_starts;
    int64_t deaths_ms[DAEMONS_MAX_DEATHS]; /* ring of the last ones */
    unsigned n_deaths;
    int64_t restart_ms; /* when, if not running */
    bool dismissed;     /* asked to end: its death is no accident, nobody takes its place */
};

struct daemons {
    struct daemons_child children[DAEMONS_N_ROLES];
    const struct rundir *rundir;
    struct screen *screen;
    bool verbose;
    bool stopping; /* deaths are expected now */
    bool gave_up;  /* a log has been shown that the user may want to read */
};

/* Find the programs and write the configuration files; nothing runs yet. */
int daemons_init(struct daemons *d, const struct rundir *r, const struct daemons_conf *conf, struct screen *screen,
                 struct err *err) CHECK_RESULT;
/* Start one that has not been started yet; from then on it is kept running. */
int daemons_start(struct daemons *d, enum daemons_role role, struct err *err) CHECK_RESULT;
/* Take note of those that died. */
int daemons_reap(struct daemons *d, int64_t now_ms, struct err *err) CHECK_RESULT;
/* Restart what is due, copy the logs where they are wanted. *ret_next_ms: when to call again, INT64_MAX for never. */
int daemons_tick(struct daemons *d, int64_t now_ms, int64_t *ret_next_ms, struct err *err) CHECK_RESULT;
/* Ask one of them to end: it hands back what it has not begun. */
void daemons_dismiss(struct daemons *d, enum daemons_role role);
/* Deaths are no accidents from now on. */
void daemons_expect_end(struct daemons *d);
unsigned daemons_running(const struct daemons *d);
/* To all that run from `first` on (in the order of daemons_role). */
void daemons_signal(const struct daemons *d, enum daemons_role first, int signal_number);
/* Kill what still runs, wait for it, close the logs. Repeatable. */
void daemons_release(struct daemons *d);
/* How often the broker has been started. */
unsigned daemons_broker_starts(const struct daemons *d);

#endif
