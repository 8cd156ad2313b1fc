/* selftest.h - what the workers' self-tests (`-t DIR`) begin with.
 *
 * Who may call: a worker's self-test, once. Units: none. Memory: golden_free and ops_free, ops first.
 * Errors: negative errno and `err`; nothing is open then. */
#ifndef BLIPLINE_WORKER_SELFTEST_H
#define BLIPLINE_WORKER_SELFTEST_H

#include "model/golden.h"
#include "tensor/device.h"

/* What the daemon's configuration says. */
struct selftest_conf {
    struct device_conf device;
};

/* Golden data and operators; the report begins with a row about the machine. */
int selftest_open(const char *golden_dir, const struct selftest_conf *conf, struct golden **ret_golden,
                  struct ops **ret_ops, struct err *err) CHECK_RESULT;

#endif
