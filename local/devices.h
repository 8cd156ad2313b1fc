/* devices.h - the processors and GPUs of this machine, and which of them a job uses.
 *
 * GPUs are found without CUDA, which only the workers load: the driver lists them in /proc/driver/nvidia/gpus, and the
 * CUDA operators are a file (tensor/device.h says where). Where CUDA_VISIBLE_DEVICES hides some from CUDA's programs,
 * the workers among them, only the number of the others is known.
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: devices_find has none: what cannot be read is not there. devices_choose: -EDOM for a wrong list, -ENODEV and
 * -ENOTSUP for one that this machine cannot do; err says the cure. */
#ifndef BLIPLINE_LOCAL_DEVICES_H
#define BLIPLINE_LOCAL_DEVICES_H

#include "base/err.h"
#include "recipe/plan.h"
#include "tensor/cpu_isa.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

enum { DEVICES_MAX = 16, DEVICE_NAME_SIZE = 48, DEVICES_MAX_THREADS = 1024 };

struct device_gpu {
    char uuid[DEVICE_NAME_SIZE]; /* "GPU-..."; "": the driver has not woken it up yet */
    char model[64];              /* "NVIDIA H100 80GB HBM3" */
    char bus[24];                /* "0000:0f:00.0" */
};

struct devices {
    int n_gpus; /* of the machine, in the order of the bus */
    struct device_gpu gpus[DEVICES_MAX];
    int n_visible;                     /* by CUDA_VISIBLE_DEVICES; -1: it is not set, all are */
    char driver[32];                   /* version; "": not loaded */
    bool is_elsewhere;                 /* the driver is that of a host who lists nothing (WSL) */
    char library[PATH_MAX];            /* the CUDA operators; "": not there */
    char library_places[2 * PATH_MAX]; /* where they would be, in words */
    bool has_mps;                      /* NVIDIA's Multi-Process Service answers here */
    char cpu[96];                      /* "AMD EPYC 9R14" */
    char isa[64];                      /* "avx2 avx512 avx512_bf16 amx_bf16", those of interest that it has */
    int n_threads;                     /* that we may run on */
    double memory_bytes;               /* that processes here may have together, swap included */
};

/* Where to look; devices_find takes this machine's. */
struct devices_places {
    const char *driver;       /* /proc/driver/nvidia */
    const char *cpuinfo;      /* /proc/cpuinfo */
    const char *host;         /* /dev/dxg */
    const char *program_dir;  /* where the programs are */
    const char *library;      /* --cuda-library; NULL: where it is looked for */
    const char *visible;      /* CUDA_VISIBLE_DEVICES; NULL: not set */
    const char *mps_pipe_dir; /* CUDA_MPS_PIPE_DIRECTORY, or its default */
};

/* `cuda_library`: as given on the command line; NULL: none. */
void devices_find(const char *cuda_library, struct devices *ret);
void devices_find_at(const struct devices_places *p, struct devices *ret);

struct device_choice {
    enum device_kind kind;
    int n;                                     /* 1 but for several GPUs */
    char names[DEVICES_MAX][DEVICE_NAME_SIZE]; /* as the workers are told */
    char library[PATH_MAX];                    /* of CUDA operators; "": where the workers look for it */
    enum cpu_isa cpu_isa;                      /* of the CPU: what --cpu-isa says; AUTO: nothing */
    char note[512];                            /* what the user is told of it, one line; "": nothing */
};

/* `list`: "auto" (all GPUs, else the CPU), "cpu", "null", or GPUs ("cuda:N", "GPU-..."), with commas between them.
 * `cuda_library` as in devices_find: whoever gives it is believed that there are GPUs. */
int devices_choose(const struct devices *have, const char *list, const char *cuda_library, struct device_choice *ret,
                   struct err *err) CHECK_RESULT;
/* The value of --cpu-isa; -ENOTSUP: this processor lacks it. */
int devices_choose_isa(const char *name, enum cpu_isa *ret, struct err *err) CHECK_RESULT;

#endif
