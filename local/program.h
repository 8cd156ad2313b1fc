/* program.h - run one of Blipline's programs in a private folder and wait for it, for self-tests and checks.
 *
 * Who may call: the main thread. Units: none. Memory: program_dir_close removes the folder and its contents.
 * Errors: negative errno and `err`; -EINTR, and signal_number is set, if the user stopped it. */
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
/* Also allowed on PROGRAM_DIR_NONE. */
void program_dir_close(struct program_dir *p);

/* Its standard output and error go to files in the folder, out_fd and log_fd, which program_release closes. */
struct program {
    const char *name;        /* "blipline-llm" */
    const char *const *args; /* NULL-terminated, without the program */
    int stop_signal;         /* sent to it when the user stops the command */
    int out_fd, log_fd;
    int status; /* as from waitpid */
};

int program_run(struct program_dir *p, struct program *program, struct err *err) CHECK_RESULT;
void program_release(struct program *program);
/* The last line of its log, without program name and folder; if the log is empty, how it ended. */
char *program_words(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size);
/* "ended with code 70 ...: LAST LINE OF ITS LOG", without the private folder. */
char *program_end(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size);

#endif
