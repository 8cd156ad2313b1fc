/* selftest_job.h - real jobs of the demo models, picture files to store, compared with the reference's answers.
 *
 * Each job is `blipline caption` as a user would run it, so broker, workers and store are tested too. On the CPU, one
 * job is run a second time with other units and one thread, and the two stores must hold the same bytes.
 * Who may call: one thread. Units: none. Memory: rows are appended to the caller's array.
 * Errors: negative errno and `err`: a job could not be done, or its answers not be read; -EINTR when the user stopped
 * it. */
#ifndef BLIPLINE_CLIENT_SELFTEST_SELFTEST_JOB_H
#define BLIPLINE_CLIENT_SELFTEST_SELFTEST_JOB_H

#include "base/err.h"
#include "client/selftest/selftest_demo.h"
#include "tensor/cpu_isa.h"

struct json_t;

struct selftest_job {
    const struct selftest_demo *demo;
    const char *device;       /* "cpu", "cuda:0", "GPU-..." */
    const char *cuda_library; /* "": where it is looked for */
    const char *dtype;        /* other than "fp32": texts that differ are counted, but are no failure */
    enum cpu_isa cpu_isa;     /* of device cpu */
    int n_threads;            /* 0: the command's default */
    int signal_number;        /* set when -EINTR is returned */
};

/* Rows as of selftest_run.h, worker "job", with "equal" of texts; the errors of scores are absolute. */
int selftest_job(struct selftest_job *t, struct json_t *rows, struct err *err) CHECK_RESULT;

#endif
