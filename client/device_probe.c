#include "client/device_probe.h"

#include "base/buf.h"
#include "base/file.h"
#include "client/selftest_place.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of the workers of a card the one that asks most of it: fp8 is not for every card. */
static const struct place *hardest(const struct placement *p, const char *device)
{
    const struct place *found = NULL;

    for (int i = 0; i < p->n; i++)
        if (strcmp(p->list[i].device, device) == 0 && (!found || p->list[i].worker->dtype == MSG_DTYPE_F8_E4M3))
            found = &p->list[i];
    return found;
}

static int write_conf(const struct selftest_place *place, const struct place *at, const char *library, char *ret_path,
                      size_t size, struct err *err)
{
    char plain[PATH_MAX];
    struct buf text;
    int rc = rundir_plain_path(&place->rundir, library, "cuda-library", plain, sizeof(plain), err);

    if (rc < 0)
        return rc;
    buf_init(&text, 1 << 12);
    rc = buf_appendf(&text, "device = %s\ndtype = %s\nmemory_share = %.3f\n%s%s\n", at->device,
                     msg_dtype_word(at->worker->dtype), at->memory_share, *library ? "cuda_library = " : "", plain);
    if (rc == 0)
        rc = file_write_atomic(rundir_file(&place->rundir, "probe.conf", ret_path, size), text.data, text.size_bytes,
                               err);
    buf_release(&text);
    return rc;
}

static int ask(struct selftest_place *place, const struct place *at, const char *library, struct err *err)
{
    char conf[RUNDIR_MAX + 32], said[512];
    const char *name = place_program(at->worker->stage);
    const char *const args[] = {"-n", "-f", conf, NULL};
    struct selftest_program program = {.name = name, .args = args, .stop_signal = SIGKILL};
    int rc = write_conf(place, at, library, conf, sizeof(conf), err);

    if (rc == 0) {
        rc = selftest_place_run(place, &program, err);
        if (rc == 0 && !(WIFEXITED(program.status) && WEXITSTATUS(program.status) == 0))
            rc = err_set(err, -ENODEV, "%s", selftest_program_words(place, &program, said, sizeof(said)));
        selftest_program_release(&program);
    }
    return rc;
}

int device_probe(const struct placement *p, int *ret_signal, struct err *err)
{
    struct selftest_place place = SELFTEST_PLACE_NONE;
    int rc = 0;

    *ret_signal = 0;
    if (p->devices->kind != DEVICE_CUDA)
        return 0;
    rc = selftest_place_open(&place, err);
    for (int i = 0; rc == 0 && i < p->devices->n; i++)
        rc = ask(&place, hardest(p, p->devices->names[i]), p->devices->library, err);
    *ret_signal = place.signal_number;
    selftest_place_close(&place);
    return rc;
}
