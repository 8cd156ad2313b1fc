/* selftest_place.h - the private folder of a self-test (or of a question to a worker), and programs that run in it to
 * their end.
 *
 * Who may call: the main thread. Units: none. Memory: selftest_place_close removes the folder and what is in it.
 * Errors: negative errno and `err`; -EINTR with signal_number when the user stopped it. */
#ifndef BLIPLINE_CLIENT_SELFTEST_PLACE_H
#define BLIPLINE_CLIENT_SELFTEST_PLACE_H

#include "base/err.h"
#include "client/rundir.h"

struct selftest_place {
    struct rundir rundir;
    int signal_fd;
    int signal_number;
};

#define SELFTEST_PLACE_NONE                        \
    {                                              \
        .rundir = {.lock_fd = -1}, .signal_fd = -1 \
    }

int selftest_place_open(struct selftest_place *p, struct err *err) CHECK_RESULT;
/* Of SELFTEST_PLACE_NONE or an open one. */
void selftest_place_close(struct selftest_place *p);

/* One of our programs. Its standard output and error are files in the folder, out_fd and log_fd, which
 * selftest_program_release closes. */
struct selftest_program {
    const char *name;        /* "blipline-llm" */
    const char *const *args; /* NULL-ended, without the program */
    int stop_signal;         /* what it gets when the user stops us */
    int out_fd, log_fd;
    int status; /* as of waitpid */
};

int selftest_place_run(struct selftest_place *p, struct selftest_program *program, struct err *err) CHECK_RESULT;
void selftest_program_release(struct selftest_program *program);
/* The last line of its log alone, without its name and that folder; how it ended where it said nothing. */
char *selftest_program_words(const struct selftest_place *p, const struct selftest_program *program, char *ret,
                             size_t ret_size);
/* "ended with code 70 ...: the last line of its log", without the folder that only we know. */
char *selftest_program_end(const struct selftest_place *p, const struct selftest_program *program, char *ret,
                           size_t ret_size);

#endif
