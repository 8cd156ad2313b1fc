#include "local/program.h"

#include "base/interrupt.h"
#include "local/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGS = 48 };

int program_dir_open(struct program_dir *p, struct err *err)
{
    int rc;

    *p = (struct program_dir)PROGRAM_DIR_NONE;
    rc = interrupt_open(&p->signal_fd, err);
    return rc < 0 ? rc : rundir_create(&p->rundir, err);
}

void program_dir_close(struct program_dir *p)
{
    rundir_remove(&p->rundir);
    if (p->signal_fd >= 0)
        (void)close(p->signal_fd);
    p->signal_fd = -1;
}

static int wait_child(struct program_dir *p, pid_t pid, struct program *program)
{
    struct pollfd poll_fd = {.fd = p->signal_fd, .events = POLLIN};
    struct interrupt in;

    for (;;) {
        if (waitpid(pid, &program->status, WNOHANG) == pid)
            return 0;
        (void)poll(&poll_fd, 1, -1);
        interrupt_read(p->signal_fd, &in);
        if (!in.signal_number)
            continue;
        p->signal_number = in.signal_number;
        (void)kill(pid, program->stop_signal);
        (void)waitpid(pid, &program->status, 0);
        return -EINTR;
    }
}

static int open_file(const struct program_dir *p, const char *name, const char *suffix, struct err *err)
{
    char file[64], path[RUNDIR_MAX + 72];
    int fd;

    (void)snprintf(file, sizeof(file), ".%s.%s", name, suffix);
    fd = open(rundir_file(&p->rundir, file, path, sizeof(path)), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

int program_run(struct program_dir *p, struct program *program, struct err *err)
{
    char path[PATH_MAX];
    const char *args[MAX_ARGS + 2] = {path};
    struct spawn s = {.program = path, .args = args};
    pid_t pid;
    int rc;

    program->out_fd = program->log_fd = -1;
    for (int i = 0; i < MAX_ARGS && program->args[i]; i++)
        args[i + 1] = program->args[i];
    rc = spawn_find(program->name, path, sizeof(path), err);
    if (rc == 0)
        rc = program->out_fd = open_file(p, program->name, "out", err);
    if (rc >= 0)
        rc = program->log_fd = open_file(p, program->name, "log", err);
    if (rc < 0)
        return rc;
    s.out_fd = program->out_fd;
    s.log_fd = program->log_fd;
    rc = spawn_start(&s, &pid, err);
    return rc < 0 ? rc : wait_child(p, pid, program);
}

void program_release(struct program *program)
{
    if (program->out_fd >= 0)
        (void)close(program->out_fd);
    if (program->log_fd >= 0)
        (void)close(program->log_fd);
    program->out_fd = program->log_fd = -1;
}

/* The last line. */
static const char *last_line(int fd, char *text, size_t size)
{
    off_t end = lseek(fd, 0, SEEK_END), from = end > (off_t)size - 1 ? end - (off_t)size + 1 : 0;
    ssize_t n = pread(fd, text, size - 1, from);
    char *line;

    text[n > 0 ? n : 0] = '\0';
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

/* Removes the path of the folder from `ret`. */
static char *without_folder(const struct program_dir *p, char *ret)
{
    const size_t n_folder = strlen(p->rundir.path);
    char *folder;

    while ((folder = strstr(ret, p->rundir.path)) != NULL && folder[n_folder] == '/')
        memmove(folder, folder + n_folder + 1, strlen(folder + n_folder + 1) + 1);
    return ret;
}

/* Replaces configuration keys in a worker's error by the user's options: "device = cuda:7" becomes "--device cuda:7".
 * */
static void speak_of_options(char *text)
{
    static const struct {
        const char *key, *option; /* of equal length */
    } words[] = {{"cuda_library = ", "--cuda-library "}, {"device = ", "--device "}, {"dtype = ", "--dtype "}};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        for (char *p = text; (p = strstr(p, words[i].key)) != NULL; p++)
            if (p == text || p[-1] == ' ')
                memcpy(p, words[i].option, strlen(words[i].option));
}

char *program_words(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size)
{
    const size_t n = strlen(program->name);
    char text[512], how[64];
    const char *line = last_line(program->log_fd, text, sizeof(text));

    if (strncmp(line, program->name, n) == 0 && strncmp(line + n, ": ", 2) == 0)
        line += n + 2;
    if (*line)
        (void)snprintf(ret, ret_size, "%s", line);
    else
        (void)snprintf(ret, ret_size, "%s %s", program->name, spawn_status_text(program->status, how, sizeof(how)));
    speak_of_options(ret);
    return without_folder(p, ret);
}

char *program_end(const struct program_dir *p, const struct program *program, char *ret, size_t ret_size)
{
    char text[512], how[64];
    const char *line = last_line(program->log_fd, text, sizeof(text));

    (void)snprintf(ret, ret_size, "%s%s%s", spawn_status_text(program->status, how, sizeof(how)), *line ? ": " : "",
                   line);
    speak_of_options(ret);
    return without_folder(p, ret);
}
