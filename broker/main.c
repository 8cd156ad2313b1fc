/* blipline-broker - hands out units of work and keeps what comes back. Read broker/server.c next, then broker/core.h.
 */
#include "broker/reading.h"
#include "broker/server.h"

#include "base/log.h"
#include "base/options.h"
#include "base/stop.h"

#include <stdlib.h>
#include <systemd/sd-daemon.h>

int main(int argc, char **argv)
{
    struct broker_conf conf;
    struct broker *b = NULL;
    enum log_level level;
    struct options opt;
    struct err err;
    int rc;

    log_init("blipline-broker", LOG_LEVEL_INFO);
    if (reading_is_asked_for(argc, argv))
        return reading_serve();
    opt = options_parse(argc, argv, "blipline-broker", "the broker of a captioning cluster", broker_conf_table);
    if (conf_load(broker_conf_table, &conf, opt.file, &err) < 0)
        fatal(EXIT_CONFIG, "%s", err.text);
    if (log_level_parse(conf.log_level, &level) < 0)
        fatal(EXIT_CONFIG, "log_level = %s: err, warn, info or debug is wanted", conf.log_level);
    if (opt.golden_dir)
        fatal(EXIT_USAGE, "-t: the broker computes nothing to test; the workers do");
    if (opt.check_only)
        return EXIT_SUCCESS;
    log_init("blipline-broker", opt.verbose ? LOG_LEVEL_DEBUG : level);
    if (stop_init_reload(&err) < 0 || broker_new(&conf, &b, &err) < 0)
        fatal(EXIT_INIT, "%s", err.text);
    (void)sd_notify(0, "READY=1");
    rc = broker_run(b, &err);
    if (rc < 0)
        log_err("event=ended msg=\"%s\"", err.text);
    (void)sd_notify(0, "STOPPING=1");
    broker_free(b);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
