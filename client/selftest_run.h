/* selftest_run.h - run the workers' self-tests on a golden directory and collect what they report.
 *
 * Who may call: one thread. Units: none. Memory: the rows are the caller's (json_decref).
 * Errors: negative errno and `err`: a folder cannot be used or a worker could not say anything; -EINTR when the user
 * stopped it. */
#ifndef BLIPLINE_CLIENT_SELFTEST_RUN_H
#define BLIPLINE_CLIENT_SELFTEST_RUN_H

#include "base/err.h"

struct json_t;

struct selftest_run {
    const char *model_dir;  /* the checkpoint */
    const char *golden_dir; /* expected.json and expected.safetensors; NULL: model_dir */
    const char *images_dir; /* the pictures that expected.json names; NULL: looked for beside the golden data */
    int signal_number;      /* set when -EINTR is returned */
};

/* One array, encoder's rows first: {"worker", "stage", "shape", "relative_error", "limit", "pass"}, or with "skipped",
 * or with "detail". */
int selftest_run(struct selftest_run *t, struct json_t **ret_rows, struct err *err) CHECK_RESULT;

#endif
