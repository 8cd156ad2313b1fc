#include "client/selftest/selftest_run.h"

#include "base/buf.h"
#include "base/file.h"
#include "local/program.h"
#include "model/config.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
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

static int link_one(const struct rundir *r, const char *path, const char *name, struct err *err)
{
    char absolute[PATH_MAX], to[RUNDIR_MAX + 16];

    if (!realpath(path, absolute))
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    if (symlink(absolute, rundir_file(r, name, to, sizeof(to))) < 0)
        return err_set(err, -errno, "%s: %s", to, strerror(errno));
    return 0;
}

static bool is_expected(const char *name)
{
    return strncmp(name, "expected.", 9) == 0 || strcmp(name, "sampler.json") == 0;
}

static bool is_checkpoint(const char *name)
{
    return !is_expected(name) && strcmp(name, "images") != 0 && strcmp(name, "lock") != 0;
}

/* The places where golden data keep their pictures (model/golden.h), as seen from `golden_dir`. */
static int link_images(const struct rundir *r, const struct selftest_run *t, const char *golden_dir, struct err *err)
{
    static const char *const places[] = {"images", "../images_odd", "../../images/odd"};
    char place[PATH_MAX];
    const char *dir = t->images_dir;
    struct stat st;

    for (size_t i = 0; !dir && i < sizeof(places) / sizeof(places[0]); i++) {
        (void)snprintf(place, sizeof(place), "%s/%s", golden_dir, places[i]);
        if (stat(place, &st) == 0 && S_ISDIR(st.st_mode))
            dir = place;
    }
    if (!dir)
        return 0; /* the encoder says which pictures it misses */
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "%s: not a folder", dir);
    return link_one(r, dir, "images", err);
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
    if (rc == 0 && t->sampler_path)
        rc = link_one(r, t->sampler_path, "sampler.json", err);
    if (rc == 0)
        rc = link_images(r, t, golden_dir, err);
    return rc;
}

static int append_rows(json_t *rows, json_t *report, const char *model, const char *worker)
{
    size_t i;
    json_t *row;

    json_array_foreach(report, i, row)
    {
        if (!json_is_object(row) || json_object_set_new(row, "worker", json_string(worker)) < 0 ||
            json_object_set_new(row, "model", json_string(model)) < 0 || json_array_append(rows, row) < 0)
            return -EINVAL;
    }
    return 0;
}

static int collect(const struct program_dir *p, const struct selftest_run *t, const char *worker,
                   const struct program *program, json_t *rows, struct err *err)
{
    char how[512], model[NAME_MAX + 1];
    json_error_t bad;
    json_t *report = NULL;
    int rc = -EINVAL;

    (void)lseek(program->out_fd, 0, SEEK_SET);
    if (WIFEXITED(program->status) && WEXITSTATUS(program->status) <= 1)
        report = json_loadfd(program->out_fd, 0, &bad);
    file_base_name(t->model_dir, model, sizeof(model));
    if (json_is_array(report) && json_array_size(report) > 0)
        rc = append_rows(rows, report, model, worker);
    json_decref(report);
    if (rc == 0)
        return 0;
    return err_set(err, rc, "%s: the %s %s", t->model_dir, worker, program_end(p, program, how, sizeof(how)));
}

/* As with --dtype of blipline caption: the Q-Former has no fp8. */
static const char *worker_dtype(const struct selftest_run *t, const char *worker)
{
    return strcmp(t->dtype, "fp8") == 0 && strcmp(worker, "qformer") == 0 ? "bf16" : t->dtype;
}

static int write_conf(const struct program_dir *p, const struct selftest_run *t, const char *worker, char *ret_path,
                      size_t size, struct err *err)
{
    char library[PATH_MAX];
    struct buf text;
    int rc = rundir_plain_path(&p->rundir, t->cuda_library, ".cuda-library", library, sizeof(library), err);

    if (rc < 0)
        return rc;
    buf_init(&text, 1 << 13);
    rc =
        buf_appendf(&text, "device = %s\ndtype = %s\ncuda_library = %s\n", t->device, worker_dtype(t, worker), library);
    if (rc == 0 && t->cpu_isa != CPU_ISA_AUTO)
        rc = buf_appendf(&text, "cpu_isa = %s\n", cpu_isa_name(t->cpu_isa));
    if (rc == 0 && t->n_threads > 0)
        rc = buf_appendf(&text, "threads = %d\n", t->n_threads);
    if (rc == 0)
        rc =
            file_write_atomic(rundir_file(&p->rundir, ".worker.conf", ret_path, size), text.data, text.size_bytes, err);
    buf_release(&text);
    return rc;
}

static int run_worker(struct program_dir *p, const struct selftest_run *t, const char *worker, json_t *rows,
                      struct err *err)
{
    char name[64], conf[RUNDIR_MAX + 32];
    const char *const args[] = {"-f", conf, "-t", p->rundir.path, NULL};
    struct program program = {.name = name, .args = args, .stop_signal = SIGKILL};
    int rc = write_conf(p, t, worker, conf, sizeof(conf), err);

    if (rc < 0)
        return rc;
    (void)snprintf(name, sizeof(name), "blipline-%s", worker);
    rc = program_run(p, &program, err);
    if (rc == 0)
        rc = collect(p, t, worker, &program, rows, err);
    program_release(&program);
    return rc;
}

int selftest_run(struct selftest_run *t, struct json_t *rows, struct err *err)
{
    struct program_dir p = PROGRAM_DIR_NONE;
    int rc = program_dir_open(&p, err);

    if (rc == 0)
        rc = assemble(&p.rundir, t, err);
    for (size_t i = 0; rc == 0 && i < sizeof(workers) / sizeof(workers[0]); i++)
        if (has_stage(t->model_dir, workers[i]))
            rc = run_worker(&p, t, workers[i], rows, err);
    t->signal_number = p.signal_number;
    program_dir_close(&p);
    return rc;
}
