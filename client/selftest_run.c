#include "client/selftest_run.h"

#include "client/interrupt.h"
#include "client/rundir.h"
#include "client/spawn.h"
#include "model/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const workers[] = {"encoder", "qformer", "llm"};

/* A retrieval checkpoint has no language model. What is wrong with one that cannot be read, the workers say. */
static bool has_stage(const char *model_dir, const char *worker)
{
    struct config config;
    struct err ignored;

    return strcmp(worker, "llm") != 0 || config_load(model_dir, &config, &ignored) < 0 || config.lm != CONFIG_LM_NONE;
}

/* A link in the run's folder to every entry of `dir` whose name `wanted` likes; what is there already stays. */
static int link_entries(const struct rundir *r, const char *dir, bool (*wanted)(const char *), struct err *err)
{
    char absolute[PATH_MAX], from[PATH_MAX + NAME_MAX + 2], to[RUNDIR_MAX + NAME_MAX + 2];
    struct dirent *e;
    DIR *d;
    int rc = 0;

    if (!realpath(dir, absolute))
        return err_set(err, -errno, "%s: %s", dir, strerror(errno));
    d = opendir(absolute);
    if (!d)
        return err_set(err, -errno, "%s: %s", dir, strerror(errno));
    while (rc == 0 && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.' || !wanted(e->d_name))
            continue;
        (void)snprintf(from, sizeof(from), "%s/%s", absolute, e->d_name);
        (void)rundir_file(r, e->d_name, to, sizeof(to));
        if (symlink(from, to) < 0 && errno != EEXIST)
            rc = err_set(err, -errno, "%s: %s", to, strerror(errno));
    }
    (void)closedir(d);
    return rc;
}

static bool is_expected(const char *name)
{
    return strncmp(name, "expected.", 9) == 0;
}

static bool is_checkpoint(const char *name)
{
    return !is_expected(name) && strcmp(name, "images") != 0 && strcmp(name, "lock") != 0;
}

/* The places where golden data keep their pictures (model/golden.h), as seen from `golden_dir`. */
static int link_images(const struct rundir *r, const struct selftest_run *t, const char *golden_dir, struct err *err)
{
    static const char *const places[] = {"images", "../images_odd", "../../images/odd"};
    char place[PATH_MAX], absolute[PATH_MAX], to[RUNDIR_MAX + 16];
    const char *dir = t->images_dir;
    struct stat st;

    for (size_t i = 0; !dir && i < sizeof(places) / sizeof(places[0]); i++) {
        (void)snprintf(place, sizeof(place), "%s/%s", golden_dir, places[i]);
        if (stat(place, &st) == 0 && S_ISDIR(st.st_mode))
            dir = place;
    }
    if (!dir)
        return 0; /* the encoder says which pictures it misses */
    if (stat(dir, &st) < 0 || !realpath(dir, absolute))
        return err_set(err, -errno, "%s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "%s: not a folder", dir);
    if (symlink(absolute, rundir_file(r, "images", to, sizeof(to))) < 0)
        return err_set(err, -errno, "%s: %s", to, strerror(errno));
    return 0;
}

/* Checkpoint, expected.* and pictures in one folder, whatever folders they come from. */
static int assemble(const struct rundir *r, const struct selftest_run *t, struct err *err)
{
    const char *golden_dir = t->golden_dir ? t->golden_dir : t->model_dir;
    char path[PATH_MAX];
    int rc;

    (void)snprintf(path, sizeof(path), "%s/expected.json", golden_dir);
    if (access(path, R_OK) < 0)
        return err_set(err, -errno, "%s: %s (give the folder of the reference data with --golden DIR)", path,
                       strerror(errno));
    rc = link_entries(r, golden_dir, is_expected, err);
    if (rc == 0)
        rc = link_entries(r, t->model_dir, is_checkpoint, err);
    if (rc == 0)
        rc = link_images(r, t, golden_dir, err);
    return rc;
}

static int wait_child(pid_t pid, int signal_fd, int *ret_status, struct selftest_run *t)
{
    struct pollfd p = {.fd = signal_fd, .events = POLLIN};
    struct interrupt in;

    for (;;) {
        if (waitpid(pid, ret_status, WNOHANG) == pid)
            return 0;
        (void)poll(&p, 1, -1);
        interrupt_read(signal_fd, &in);
        if (!in.signal_number)
            continue;
        t->signal_number = in.signal_number;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, ret_status, 0);
        return -EINTR;
    }
}

/* The first line of what the worker said on standard error, without the folder that only we know. */
static void first_line(int fd, const struct rundir *r, char *ret, size_t ret_size)
{
    size_t n_folder = strlen(r->path);
    char *folder;

    ssize_t n = pread(fd, ret, ret_size - 1, 0);
    char *text = ret;

    ret[n > 0 ? n : 0] = '\0';
    if (text[0] == '<' && text[1] && text[2] == '>')
        text += 3;
    memmove(ret, text, strlen(text) + 1);
    ret[strcspn(ret, "\n")] = '\0';
    while ((folder = strstr(ret, r->path)) != NULL && folder[n_folder] == '/')
        memmove(folder, folder + n_folder + 1, strlen(folder + n_folder + 1) + 1);
}

static int append_rows(json_t *rows, json_t *report, const char *worker)
{
    size_t i;
    json_t *row;

    json_array_foreach(report, i, row)
    {
        if (!json_is_object(row) || json_object_set_new(row, "worker", json_string(worker)) < 0 ||
            json_array_append(rows, row) < 0)
            return -EINVAL;
    }
    return 0;
}

static int collect(const struct rundir *r, const char *worker, const struct spawn *s, int status, json_t *rows,
                   struct err *err)
{
    char said[256], how[64];
    json_error_t bad;
    json_t *report = NULL;
    int rc = -EINVAL;

    (void)lseek(s->out_fd, 0, SEEK_SET);
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 1)
        report = json_loadfd(s->out_fd, 0, &bad);
    if (json_is_array(report) && json_array_size(report) > 0)
        rc = append_rows(rows, report, worker);
    json_decref(report);
    if (rc == 0)
        return 0;
    first_line(s->log_fd, r, said, sizeof(said));
    return err_set(err, rc, "the %s %s without a report%s%s", worker, spawn_status_text(status, how, sizeof(how)),
                   said[0] ? ": " : "", said);
}

static int run_worker(const struct rundir *r, const char *worker, int signal_fd, struct selftest_run *t, json_t *rows,
                      struct err *err)
{
    char name[64], program[PATH_MAX], path[RUNDIR_MAX + 32];
    const char *args[] = {program, "-t", r->path, NULL};
    struct spawn s = {.program = program, .args = args};
    int status = 0, rc;
    pid_t pid;

    (void)snprintf(name, sizeof(name), "blipline-%s", worker);
    rc = spawn_find(name, program, sizeof(program), err);
    if (rc < 0)
        return rc;
    (void)snprintf(name, sizeof(name), ".%s.out", worker);
    s.out_fd = open(rundir_file(r, name, path, sizeof(path)), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    (void)snprintf(name, sizeof(name), ".%s.log", worker);
    s.log_fd = open(rundir_file(r, name, path, sizeof(path)), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s.out_fd < 0 || s.log_fd < 0)
        rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
    if (rc == 0)
        rc = spawn_start(&s, &pid, err);
    if (rc == 0)
        rc = wait_child(pid, signal_fd, &status, t);
    if (rc == 0)
        rc = collect(r, worker, &s, status, rows, err);
    if (s.out_fd >= 0)
        (void)close(s.out_fd);
    if (s.log_fd >= 0)
        (void)close(s.log_fd);
    return rc;
}

int selftest_run(struct selftest_run *t, struct json_t **ret_rows, struct err *err)
{
    json_t *rows = json_array();
    struct rundir r = {.lock_fd = -1};
    int signal_fd = -1;
    int rc = rows ? interrupt_open(&signal_fd, err) : -ENOMEM;

    if (rc == 0)
        rc = rundir_create(&r, err);
    if (rc == 0)
        rc = assemble(&r, t, err);
    for (size_t i = 0; rc == 0 && i < sizeof(workers) / sizeof(workers[0]); i++)
        if (has_stage(t->model_dir, workers[i]))
            rc = run_worker(&r, workers[i], signal_fd, t, rows, err);
    rundir_remove(&r);
    if (signal_fd >= 0)
        (void)close(signal_fd);
    if (rc == 0)
        *ret_rows = rows;
    else
        json_decref(rows);
    return rc;
}
