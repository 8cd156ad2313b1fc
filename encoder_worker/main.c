/* blipline-encoder - decode pictures, run the frozen image encoder. Read encoder_worker/worker.c next. */
#include "encoder_worker/worker.h"

#include "base/log.h"
#include "base/options.h"
#include "base/stop.h"
#include "encoder_worker/selftest.h"
#include "tensor/threads.h"

#include <stdlib.h>
#include <systemd/sd-daemon.h>

int main(int argc, char **argv)
{
    struct options opt =
        options_parse(argc, argv, "blipline-encoder", "BLIP-2 image encoder worker", encoder_conf_table);
    struct encoder_conf conf;
    struct encoder_worker *w = NULL;
    enum log_level level;
    struct err err;
    int rc;

    tensor_threads_prepare(argv);
    if (conf_load(encoder_conf_table, &conf, opt.file, &err) < 0)
        fatal(EXIT_CONFIG, "%s", err.text);
    if (log_level_parse(conf.log_level, &level) < 0)
        fatal(EXIT_CONFIG, "log_level = %s: err, warn, info or debug is wanted", conf.log_level);
    if (opt.check_only)
        return EXIT_SUCCESS;
    log_init("blipline-encoder", opt.verbose ? LOG_LEVEL_DEBUG : level);
    if (opt.golden_dir) {
        rc = encoder_selftest(opt.golden_dir, (int)conf.threads, stdout, &err);
        if (rc < 0)
            fatal(EXIT_INIT, "%s", err.text);
        return rc;
    }
    stop_init();
    if (encoder_worker_new(&conf, &w, &err) < 0)
        fatal(EXIT_INIT, "%s", err.text);
    (void)sd_notify(0, "READY=1");
    rc = encoder_worker_run(w, &err);
    if (rc < 0)
        log_err("event=ended reason=\"%s\"", err.text);
    (void)sd_notify(0, "STOPPING=1");
    encoder_worker_free(w);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
