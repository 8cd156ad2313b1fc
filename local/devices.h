/* devices.h - the processors and GPUs of this machine, and which of them a job uses.
 *
 * GPUs are found without CUDA, which only the workers load: the driver lists them in /proc/driver/nvidia/gpus, and the
 * CUDA operators are a library (tensor/device.h says where). If CUDA_VISIBLE_DEVICES hides GPUs from the workers, only
 * the number of visible ones is known.
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: devices_find has none and omits what it cannot read. devices_choose: -EDOM for a malformed list, -ENODEV and
 * -ENOTSUP for one that this machine does not support; err names the cure. */
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
    char uuid[DEVICE_NAME_SIZE]; /* "GPU-..."; "": not initialised by the driver yet */
    char model[64];              /* "NVIDIA H100 80GB HBM3" */
    char bus[24];                /* "0000:0f:00.0" */
};

struct devices {
    int n_gpus; /* of the machine, in bus order */
    struct device_gpu gpus[DEVICES_MAX];
    int n_visible;                     /* by CUDA_VISIBLE_DEVICES; -1: not set, all are visible */
    char driver[32];                   /* version; "": not loaded */
    bool is_elsewhere;                 /* the driver runs on the host and lists nothing here (WSL) */
    char library[PATH_MAX];            /* the CUDA operators; "": not found */
    char library_places[2 * PATH_MAX]; /* where it was looked for, for messages */
    bool has_mps;                      /* NVIDIA's Multi-Process Service is running */
    char cpu[96];                      /* "AMD EPYC 9R14" */
    char isa[64];                      /* the relevant extensions: "avx2 avx512 avx512_bf16 amx_bf16" */
    int n_threads;                     /* CPUs that this process may use */
    double memory_bytes;               /* available to all processes here together, with swap */
};

/* Where to look; devices_find uses the paths of this machine. */
struct devices_places {
    const char *driver;       /* /proc/driver/nvidia */
    const char *cpuinfo;      /* /proc/cpuinfo */
    const char *host;         /* /dev/dxg */
    const char *program_dir;  /* of the programs */
    const char *library;      /* --cuda-library; NULL: the usual places */
    const char *visible;      /* CUDA_VISIBLE_DEVICES; NULL: not set */
    const char *mps_pipe_dir; /* CUDA_MPS_PIPE_DIRECTORY, or its default */
};

/* `cuda_library`: as given on the command line; NULL: none. */
void devices_find(const char *cuda_library, struct devices *ret);
void devices_find_at(const struct devices_places *p, struct devices *ret);

struct device_choice {
    enum device_kind kind;
    int n;                                     /* 1, or the number of GPUs */
    char names[DEVICES_MAX][DEVICE_NAME_SIZE]; /* for the workers' configuration */
    char library[PATH_MAX];                    /* of CUDA operators; "": the workers' usual places */
    enum cpu_isa cpu_isa;                      /* --cpu-isa; AUTO: not given */
    char note[512];                            /* a line for the user; "": none */
};

/* `list`: "auto" (all GPUs, else the CPU), "cpu", "null", or GPUs ("cuda:N", "GPU-..."), with commas between them.
 * `cuda_library` as in devices_find: if it is given, GPUs are assumed to exist. */
int devices_choose(const struct devices *have, const char *list, const char *cuda_library, struct device_choice *ret,
                   struct err *err) CHECK_RESULT;
/* The value of --cpu-isa; -ENOTSUP: this processor lacks it. */
int devices_choose_isa(const char *name, enum cpu_isa *ret, struct err *err) CHECK_RESULT;

#endif
