#include "worker/selftest.h"

#include <errno.h>
#include <jansson.h>

#include "tensor/cpu_machine.h"
#include "worker/worker.h"

static int report_machine(struct golden *g, const struct selftest_conf *conf, struct err *err)
{
    struct cpu_machine m;

    cpu_machine_describe(conf->device.cpu_isa, &m);
    return golden_report_machine(g,
                                 json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "device", conf->device.device, "cpu",
                                           m.cpu, "isa", m.isa, "library", m.library, "dtype",
                                           dtype_name(worker_dtype(&conf->device)), "threads", conf->device.n_threads),
                                 err);
}

static enum golden_grain grain_of(const struct device_conf *d)
{
    if (d->fp8)
        return GOLDEN_FP8;
    if (d->act_dtype == DTYPE_BF16)
        return GOLDEN_BF16;
    return d->act_dtype == DTYPE_F16 || d->tf32 ? GOLDEN_FP16 : GOLDEN_EXACT;
}

int selftest_open(const char *golden_dir, const struct selftest_conf *conf, struct golden **ret_golden,
                  struct ops **ret_ops, struct err *err)
{
    struct golden *g = NULL;
    struct ops *o = NULL;
    int rc = golden_open(golden_dir, &g, err);

    if (rc == 0)
        rc = device_open(&conf->device, &o, err);
    if (rc == 0) {
        g->grain = grain_of(&conf->device);
        rc = report_machine(g, conf, err);
    }
    if (rc < 0) {
        ops_free(o);
        golden_free(g);
        return rc;
    }
    *ret_golden = g;
    *ret_ops = o;
    return 0;
}
