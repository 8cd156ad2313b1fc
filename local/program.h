/* program.h - our own programs, run to their end in a private folder: self-tests, and questions to a worker.
 *
 * Who may call: the main thread. Units: none. Memory: program_dir_close removes the folder and what is in it.
 * Errors: negative errno and `err`; -EINTR with signal_number when the user stopped it. */
#ifndef BLIPLINE_LOCAL_PROGRAM_H
#define BLIPLINE_LOCAL_PROGRAM_H

#include "base/err.h"
#include "local/rundir.h"

struct program_dir {
    struct rundir rundir;
    int signal_fd;
    int signal_number;
};

#define PROGRAM_DIR_NONE                           \
    {                                              \
        .rundir = {.lock_fd = -1}, .signal_fd = -1 \
    }

int program_dir_open(struct program_dir *p, struct err *err) CHECK_RESULT;
/* Of PROGRAM_DIR_NONE or an open one. */
void program_dir_close(struct program_dir *p);

/* One of our programs. Its standard output and error are files in the folder, out_fd and log_fd, which
 * program_release closes. */
struct program {
    const char *name;        /* "blipline-llm" */
    const char *const *args; /* NULL-ended, without the program */
    int stop_signal;         /* what it gets when the user stops us */
    int out_fd, log_fd;
    int status; /* as of waitpid */
};

int program_run(struct program_dir *p, struct program *program, struct err *err) CHECK_RESULT;
void program_release(struct program *program);
/* The last line of its log alone, without its name and that folder; how it ended where it said nothing. */
char *program_words(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size);
/* "ended with code 70 ...: the last line of its log", without the folder that only we know. */
char *program_end(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size);

#endif
