#include "local/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

extern char **environ;

int spawn_find(const char *name, char *ret, size_t ret_size, struct err *err)
{
    char folder[PATH_MAX];
    int rc = file_program_folder(folder, err);

    if (rc < 0)
        return rc;
    if ((size_t)snprintf(ret, ret_size, "%s/%s", folder, name) >= ret_size)
        return err_set(err, -ENAMETOOLONG, "%s/%s: the path is too long", folder, name);
    if (access(ret, X_OK) < 0)
        return err_set(err, -errno, "%s: %s (the five programs belong in one folder; `make` builds them)", ret,
                       strerror(errno));
    return 0;
}

/* The environment with `extra` in front (getenv finds the first), in one block that the caller frees. */
static char **merged_environment(const char *const *extra)
{
    size_t n = 0, k = 0;
    char **all;

    while (environ && environ[n])
        n++;
    while (extra && extra[k])
        k++;
    all = calloc(n + k + 1, sizeof(*all));
    if (!all)
        return NULL;
    for (size_t i = 0; i < k; i++)
        all[i] = (char *)extra[i];
    for (size_t i = 0, to = k; i < n; i++) {
        size_t name = strcspn(environ[i], "=") + 1;
        size_t j = 0;

        while (j < k && strncmp(extra[j], environ[i], name) != 0)
            j++;
        if (j == k)
            all[to++] = environ[i];
    }
    return all;
}

/* Runs in the child between fork and exec. Async-signal-safe calls only, because the parent may have threads. */
static void become(const struct spawn *s, char **env, int null_fd, int fail_fd, pid_t parent)
{
    sigset_t none;
    int code;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC); /* also inherited descriptors */
    if (dup2(null_fd, 0) >= 0 && dup2(s->out_fd >= 0 ? s->out_fd : s->log_fd, 1) >= 0 && dup2(s->log_fd, 2) >= 0)
        (void)execve(s->program, (char *const *)s->args, env);
    code = errno;
    (void)!write(fail_fd, &code, sizeof(code));
    _exit(127);
}

int spawn_start(const struct spawn *s, pid_t *ret_pid, struct err *err)
{
    int failed[2] = {-1, -1};
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    char **env = merged_environment(s->env);
    pid_t parent = getpid(), pid = -1;
    int code = 0, rc;

    if (null_fd < 0 || !env || pipe2(failed, O_CLOEXEC) < 0) {
        rc = err_set(err, -errno, "cannot start %s: %s", s->program, strerror(errno));
        goto out;
    }
    pid = fork();
    if (pid < 0) {
        rc = err_set(err, -errno, "cannot start %s: %s", s->program, strerror(errno));
        goto out;
    }
    if (pid == 0)
        become(s, env, null_fd, failed[1], parent);
    (void)close(failed[1]);
    failed[1] = -1;
    rc = 0;
    if (read(failed[0], &code, sizeof(code)) == (ssize_t)sizeof(code)) {
        (void)waitpid(pid, NULL, 0);
        rc = err_set(err, -code, "cannot start %s: %s", s->program, strerror(code));
    }
out:
    free(env);
    if (null_fd >= 0)
        (void)close(null_fd);
    for (int i = 0; i < 2; i++) {
        if (failed[i] >= 0)
            (void)close(failed[i]);
    }
    if (rc == 0)
        *ret_pid = pid;
    return rc;
}

long spawn_parent(long pid)
{
    char path[64], line[128];
    long parent = -1;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%ld/status", pid);
    f = fopen(path, "re");
    if (!f)
        return -1;
    while (parent < 0 && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "PPid:", 5) == 0)
            parent = strtol(line + 5, NULL, 10);
    }
    (void)fclose(f);
    return parent;
}

bool spawn_is_same_program(long pid)
{
    struct stat ours, theirs;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%ld/exe", pid);
    return stat("/proc/self/exe", &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

char *spawn_status_text(int status, char *ret, size_t ret_size)
{
    if (WIFSIGNALED(status))
        (void)snprintf(ret, ret_size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(ret, ret_size, "ended with code %d", WEXITSTATUS(status));
    return ret;
}
