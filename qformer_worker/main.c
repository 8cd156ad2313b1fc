/* blipline-qformer - learned queries look at the image features. Read qformer_worker/worker.c next. */
#include "qformer_worker/worker.h"

#include "base/log.h"
#include "base/options.h"
#include "base/stop.h"
#include "qformer_worker/selftest.h"
#include "tensor/threads.h"

#include <stdlib.h>
#include <systemd/sd-daemon.h>

int main(int argc, char **argv)
{
    struct options opt = options_parse(argc, argv, "blipline-qformer", "BLIP-2 Q-Former worker", qformer_conf_table);
    struct qformer_conf conf;
    struct qformer_worker *w = NULL;
    enum log_level level;
    struct err err;
    int rc;

    tensor_threads_prepare(argv);
    if (conf_load(qformer_conf_table, &conf, opt.file, &err) < 0)
        fatal(EXIT_CONFIG, "%s", err.text);
    if (log_level_parse(conf.log_level, &level) < 0)
        fatal(EXIT_CONFIG, "log_level = %s: err, warn, info or debug is wanted", conf.log_level);
    if (opt.check_only)
        return EXIT_SUCCESS;
    log_init("blipline-qformer", opt.verbose ? LOG_LEVEL_DEBUG : level);
    if (opt.golden_dir) {
        rc = qformer_selftest(opt.golden_dir, (int)conf.threads, stdout, &err);
        if (rc < 0)
            fatal(EXIT_INIT, "%s", err.text);
        return rc;
    }
    stop_init();
    if (qformer_worker_new(&conf, &w, &err) < 0)
        fatal(EXIT_INIT, "%s", err.text);
    (void)sd_notify(0, "READY=1");
    rc = qformer_worker_run(w, &err);
    if (rc < 0)
        log_err("event=ended reason=\"%s\"", err.text);
    (void)sd_notify(0, "STOPPING=1");
    qformer_worker_free(w);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
