#include "local/device_probe.h"

#include "base/buf.h"
#include "base/file.h"
#include "local/program.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The most demanding worker of a GPU: one in fp8 if there is one, because not every GPU supports it. */
static const struct place *hardest(const struct placement *p, const char *device)
{
    const struct place *found = NULL;

    for (int i = 0; i < p->n; i++)
        if (strcmp(p->list[i].device, device) == 0 && (!found || p->list[i].worker->dtype == DTYPE_F8_E4M3))
            found = &p->list[i];
    return found;
}

static int cpu_text(const struct program_dir *place, const struct place *at, enum cpu_isa isa, struct buf *text,
                    struct err *err)
{
    char model[PATH_MAX];
    int rc = rundir_plain_path(&place->rundir, at->worker->model_dir, at->worker->name, model, sizeof(model), err);

    if (rc == 0)
        rc = buf_appendf(text, "model = %s\nthreads = %d\ncpu_isa = %s\n", model, at->n_threads, cpu_isa_name(isa));
    if (rc == 0 && at->worker->stage == STAGE_ENCODE)
        rc = buf_appendf(text, "decode_threads = %d\n", at->n_decode_threads);
    return rc;
}

static int cuda_text(const struct program_dir *place, const struct place *at, const char *library, struct buf *text,
                     struct err *err)
{
    char plain[PATH_MAX];
    int rc = rundir_plain_path(&place->rundir, library, "cuda-library", plain, sizeof(plain), err);

    return rc < 0 ? rc
                  : buf_appendf(text, "memory_share = %.3f\n%s%s\n", at->memory_share,
                                *library ? "cuda_library = " : "", plain);
}

static int write_conf(const struct program_dir *place, const struct place *at, const struct device_choice *devices,
                      char *ret_path, size_t size, struct err *err)
{
    struct buf text;
    int rc;

    buf_init(&text, 1 << 14);
    rc = buf_appendf(&text, "device = %s\ndtype = %s\n", at->device, dtype_word(at->worker->dtype));
    if (rc == 0)
        rc = devices->kind == DEVICE_CPU ? cpu_text(place, at, devices->cpu_isa, &text, err)
                                         : cuda_text(place, at, devices->library, &text, err);
    if (rc == 0)
        rc = file_write_atomic(rundir_file(&place->rundir, "probe.conf", ret_path, size), text.data, text.size_bytes,
                               err);
    buf_release(&text);
    return rc;
}

static int ask(struct program_dir *place, const struct place *at, const struct device_choice *devices, struct err *err)
{
    char conf[RUNDIR_MAX + 32], said[512];
    const char *name = place_program(at->worker->stage);
    const char *const args[] = {"-n", "-f", conf, NULL};
    struct program program = {.name = name, .args = args, .stop_signal = SIGKILL};
    int rc = write_conf(place, at, devices, conf, sizeof(conf), err);

    if (rc == 0) {
        rc = program_run(place, &program, err);
        if (rc == 0 && !(WIFEXITED(program.status) && WEXITSTATUS(program.status) == 0))
            rc = err_set(err, -ENODEV, "%s", program_words(place, &program, said, sizeof(said)));
        program_release(&program);
    }
    return rc;
}

int device_probe(const struct placement *p, int *ret_signal, struct err *err)
{
    struct program_dir place = PROGRAM_DIR_NONE;
    int rc = 0;

    *ret_signal = 0;
    if (p->devices->kind == DEVICE_NULL)
        return 0;
    rc = program_dir_open(&place, err);
    for (int i = 0; rc == 0 && p->devices->kind == DEVICE_CUDA && i < p->devices->n; i++)
        rc = ask(&place, hardest(p, p->devices->names[i]), p->devices, err);
    for (int i = 0; rc == 0 && p->devices->kind == DEVICE_CPU && i < p->n; i++)
        rc = ask(&place, &p->list[i], p->devices, err);
    *ret_signal = place.signal_number;
    program_dir_close(&place);
    return rc;
}
