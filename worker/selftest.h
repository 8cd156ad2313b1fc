/* selftest.h - setup shared by the workers' self-tests (`-t DIR`).
 *
 * Who may call: a worker's self-test, once.
 * Units: none.
 * Memory: the caller frees with ops_free, then golden_free.
 * Errors: negative errno and `err`; nothing stays open then. */
#ifndef BLIPLINE_WORKER_SELFTEST_H
#define BLIPLINE_WORKER_SELFTEST_H

#include "model/golden.h"
#include "tensor/device.h"

/* From the daemon's configuration. */
struct selftest_conf {
    struct device_conf device;
};

/* Opens golden data and operators, and starts the report with a row about the machine. */
int selftest_open(const char *golden_dir, const struct selftest_conf *conf, struct golden **ret_golden,
                  struct ops **ret_ops, struct err *err) CHECK_RESULT;

#endif
