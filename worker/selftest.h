/* selftest.h - the common beginning of the workers' self-tests (`-t DIR`).
 *
 * Who may call: a worker's self-test, once.
 * Units: none.
 * Memory: golden_free and ops_free, ops first.
 * Errors: negative errno and `err`; nothing is open then. */
#ifndef BLIPLINE_WORKER_SELFTEST_H
#define BLIPLINE_WORKER_SELFTEST_H

#include "model/golden.h"
#include "tensor/device.h"

/* From the daemon's configuration. */
struct selftest_conf {
    struct device_conf device;
};

/* Open golden data and operators, and begin the report with a row about the machine. */
int selftest_open(const char *golden_dir, const struct selftest_conf *conf, struct golden **ret_golden,
                  struct ops **ret_ops, struct err *err) CHECK_RESULT;

#endif
