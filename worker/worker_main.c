/* worker_main.c - main() of the worker daemons, with the stage's functions in a table. */
#include "worker/worker.h"

#include "base/log.h"
#include "base/options.h"
#include "base/stop.h"
#include "model/checkpoint.h"
#include "tensor/threads.h"
#include "worker/selftest.h"

#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

/* Checks the checkpoint, if the configuration names one. (-n may also be used to check only a card.) */
static void check_model(const struct worker_program *p)
{
    struct checkpoint *checkpoint = NULL;
    struct err err;

    if (strcmp(p->common->device, "null") == 0 || !p->common->model[0])
        return;
    if (checkpoint_open(p->common->model, &checkpoint, &err) < 0 || checkpoint_check(checkpoint, p->stage, &err) < 0)
        fatal(EXIT_CONFIG, "model = %s: %s", p->common->model, err.text);
    checkpoint_free(checkpoint);
}

/* Checks that the device can be opened. */
static void check_device(const struct device_conf *d)
{
    struct ops *o = NULL;
    struct err err;

    if (strcmp(d->device, "null") != 0 && device_open(d, &o, &err) < 0)
        fatal(EXIT_CONFIG, "%s", err.text);
    ops_free(o);
}

static void *start(const struct worker_program *p)
{
    void *daemon = NULL;
    struct err err = {""};
    int rc = p->open(p->conf, &daemon, &err);

    if (rc == 0)
        rc = worker_start(daemon, &err);
    if (rc == 0)
        return daemon;
    if (daemon)
        (void)worker_explain(daemon, rc, &err);
    p->free(daemon);
    fatal(EXIT_INIT, "%s", err.text);
}

int worker_main(const struct worker_program *p, int argc, char **argv)
{
    struct options opt = options_parse(argc, argv, p->name, p->what, p->table);
    enum log_level level;
    struct selftest_conf selftest;
    void *daemon;
    struct err err;
    int rc;

    log_init(p->name, LOG_LEVEL_INFO);
    tensor_threads_prepare(argv);
    if (conf_load(p->table, p->conf, opt.file, &err) < 0)
        fatal(EXIT_CONFIG, "%s", err.text);
    if (log_level_parse(p->common->log_level, &level) < 0)
        fatal(EXIT_CONFIG, "log_level = %s: expected err, warn, info or debug", p->common->log_level);
    if (worker_device(p->common, &selftest.device, &err) < 0 || (p->check && p->check(p->conf, &err) < 0))
        fatal(EXIT_CONFIG, "%s", err.text);
    log_init(p->name, opt.verbose ? LOG_LEVEL_DEBUG : level);
    if (opt.check_only) {
        check_model(p);
        check_device(&selftest.device);
        return EXIT_SUCCESS;
    }
    if (opt.golden_dir) {
        rc = p->selftest(opt.golden_dir, &selftest, stdout, &err);
        if (rc < 0)
            fatal(EXIT_INIT, "%s", err.text);
        return rc;
    }
    if (!p->common->model[0] && strcmp(p->common->device, "null") != 0)
        fatal(EXIT_CONFIG, "model is missing: give the folder of a checkpoint (-f FILE, with a line model = FOLDER)");
    if (stop_init(&err) < 0)
        fatal(EXIT_INIT, "%s", err.text);
    daemon = start(p);
    (void)sd_notify(0, "READY=1");
    rc = p->run(daemon, &err);
    if (rc < 0)
        log_err("event=ended msg=\"%s\"", err.text);
    (void)sd_notify(0, "STOPPING=1");
    p->free(daemon);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
