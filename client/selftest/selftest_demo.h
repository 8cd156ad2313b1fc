/* selftest_demo.h - where the demo models, the example pictures and the reference's answers are.
 *
 * In the source tree when the command or the current folder is in it, else in PREFIX/share/blipline, with PREFIX/bin
 * where the command is.
 * Who may call: one thread. Units: none. Memory: plain values.
 * Errors: -ENOENT naming the file that is missing and the cure. */
#ifndef BLIPLINE_CLIENT_SELFTEST_SELFTEST_DEMO_H
#define BLIPLINE_CLIENT_SELFTEST_SELFTEST_DEMO_H

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>

struct selftest_demo {
    char caption_model[PATH_MAX], score_model[PATH_MAX];   /* checkpoints */
    char caption_golden[PATH_MAX], score_golden[PATH_MAX]; /* expected.json and expected.safetensors of each */
    char sampler[PATH_MAX], answers[PATH_MAX];             /* files */
    char images[PATH_MAX];                                 /* folder */
};

int selftest_demo_find(struct selftest_demo *ret, struct err *err) CHECK_RESULT;

#endif
