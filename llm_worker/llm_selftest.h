/* llm_selftest.h - `-t GOLDEN_DIR`: compares the language model with the golden data of a checkpoint.
 *
 * Who may call: main, instead of serving.
 * Units: none.
 * Memory: keeps none. Prints a JSON array of rows {"stage", "shape", "relative_error", "limit", "pass"} (or "skipped":
 *         reason), first {"machine"}, on `out`.
 * Errors: 0: every row passed; 1: a row failed; negative errno: the directory is unreadable or the checkpoint is
 * unsupported, nothing was printed. */
#ifndef BLIPLINE_LLM_WORKER_LLM_SELFTEST_H
#define BLIPLINE_LLM_WORKER_LLM_SELFTEST_H

#include "base/err.h"

#include <stdio.h>

struct selftest_conf;

int llm_selftest(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err) CHECK_RESULT;

#endif
