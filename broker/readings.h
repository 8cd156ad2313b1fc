/* readings.h - clients read the stores of jobs (STORE_READ): the processes that do it, and the questions that wait.
 *
 * There are at most eight processes, started when they are needed and ended after some seconds without a question. A
 * client has one question at a time, so what a slow client costs is one answer.
 *
 * Who may call: the loop's thread. Units: milliseconds. Memory: the caller owns struct readings.
 * Errors: the client is told. */
#ifndef BLIPLINE_BROKER_READINGS_H
#define BLIPLINE_BROKER_READINGS_H

#include "base/buf.h"
#include "base/err.h"
#include "broker/answers.h"
#include "broker/reading.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { READINGS_MAX = 8 };

struct reading_wait {
    struct reading_wait *next;
    uint64_t peer, seq;
    bool in_progress; /* for the answer to a SUMMARY */
    struct reading_question question;
};

struct readings {
    struct answers *answers;
    bool allow_network_fs;
    int poll_fd; /* readable when there is something to take */
    struct reading_process {
        pid_t pid;                 /* 0: none */
        int fd;                    /* -1: it was killed, and has not ended yet */
        struct reading_wait *asks; /* NULL: it is idle */
        int64_t idle_at_ms;
        char path[PATH_MAX]; /* of the store that it has open */
        struct reading_answer answer;
        size_t n_taken; /* bytes of `answer` and its rows */
        struct buf rows;
    } processes[READINGS_MAX];
    struct reading_wait *first, **end;
};

int readings_init(struct readings *r, struct answers *answers, bool allow_network_fs, struct err *err) CHECK_RESULT;
void readings_release(struct readings *r);

/* Answer the client, now or when its turn comes. */
void readings_ask(struct readings *r, uint64_t peer, const struct msg *m, const char *path, bool in_progress);
/* Take what the processes have answered, and begin what waits. Returns when to call it again at the latest. */
int64_t readings_take(struct readings *r, int64_t now_ms);
/* The client is gone: nothing is read for it any more. */
void readings_let_go(struct readings *r, uint64_t peer);

#endif
