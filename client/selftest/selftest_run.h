/* selftest_run.h - run the workers' self-tests on golden data and collect what they report.
 *
 * Who may call: one thread. Units: none. Memory: the rows are the caller's (json_decref).
 * Errors: negative errno and `err`: a folder cannot be used or a worker could not say anything; -EINTR when the user
 * stopped it. */
#ifndef BLIPLINE_CLIENT_SELFTEST_SELFTEST_RUN_H
#define BLIPLINE_CLIENT_SELFTEST_SELFTEST_RUN_H

#include "base/err.h"
#include "tensor/cpu_isa.h"

struct json_t;

struct selftest_run {
    const char *model_dir;    /* the checkpoint */
    const char *golden_dir;   /* expected.json and expected.safetensors; NULL: model_dir */
    const char *images_dir;   /* the pictures that expected.json names; NULL: looked for beside the golden data */
    const char *sampler_path; /* the reference's probabilities of sampling; NULL: sampler.json in golden_dir, if any */
    const char *device;       /* "cpu", "cuda:0", "GPU-..." */
    const char *cuda_library; /* absolute; "": where the workers look for it */
    const char *dtype;        /* "fp32", "bf16", "fp16", "fp8" */
    enum cpu_isa cpu_isa;     /* of device cpu */
    int n_threads;            /* 0: the workers' own default */
    int signal_number;        /* set when -EINTR is returned */
};

/* Appends to `rows`, encoder's rows first: {"model", "worker", "stage", "shape", "relative_error", "limit", "pass",
 * "seconds"}, some with "equal", "detail" or "skipped"; a worker's first row is {"machine"}. */
int selftest_run(struct selftest_run *t, struct json_t *rows, struct err *err) CHECK_RESULT;

#endif
