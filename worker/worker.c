#include "worker/worker.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop.h"
#include "model/fingerprint.h"
#include "proto/model_contents.h"
#include "wire/context.h"
#include "wire/worker_end.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

enum { GOODBYE_MS = 10000 };

static bool is_cuda(const struct worker *w)
{
    return device_is_cuda(w->conf->device);
}

void worker_init(struct worker *w, const struct worker_conf *conf, enum stage stage)
{
    w->conf = conf;
    w->stage = stage;
    w->started_ms = clock_mono_ms();
    w->batch = (int)conf->batch;
    if (w->batch == 0 && stage == STAGE_LLM)
        w->batch = is_cuda(w) ? 0 : 64;
    else if (w->batch == 0)
        w->batch = is_cuda(w) ? 256 : 16;
}

/* One batch is computed while the next one arrives; an asynchronous device holds two more. */
uint32_t worker_window_items(const struct worker *w)
{
    const uint32_t least = w->stage == STAGE_LLM ? 256 : 128, wanted = (is_cuda(w) ? 4U : 2U) * (uint32_t)w->batch;

    if (w->conf->window_items)
        return (uint32_t)w->conf->window_items;
    return wanted > least ? wanted : least;
}

bool worker_is_null(const struct worker *w)
{
    return strcmp(w->conf->device, "null") == 0;
}

bool worker_is_async(const struct worker *w)
{
    return w->ops && w->ops->f->memory; /* the device has its own memory */
}

static int parse_share(const char *text, double *ret, struct err *err)
{
    char *end;
    const double share = strtod(text, &end);

    if (end == text || *end || !(share >= 0.05 && share <= 1))
        return err_set(err, -EINVAL, "memory_share = %s: expected a number from 0.05 to 1", text);
    *ret = share;
    return 0;
}

int worker_device(const struct worker_conf *conf, struct device_conf *ret, struct err *err)
{
    struct device_conf d = {.device = conf->device,
                            .cuda_library = conf->cuda_library,
                            .n_threads = (int)conf->threads,
                            .tf32 = conf->tf32};
    const bool host = strcmp(conf->device, "cpu") == 0 || strcmp(conf->device, "ref") == 0;
    enum dtype dtype = DTYPE_F32;

    if (!host && !device_is_cuda(conf->device) && strcmp(conf->device, "null") != 0)
        return err_set(err, -EINVAL, "device = %s: expected cpu, cuda:N, a GPU's UUID or null", conf->device);
    if (dtype_parse(conf->dtype, &dtype) < 0 || !dtype_is_float(dtype_of_activations(dtype)))
        return err_set(err, -EINVAL, "dtype = %s: expected fp32, bf16, fp16 or fp8", conf->dtype);
    if (host && (dtype == DTYPE_F16 || dtype == DTYPE_F8_E4M3))
        return err_set(err, -EINVAL, "dtype = %s: device = %s computes in fp32 or bf16", conf->dtype, conf->device);
    d.act_dtype = dtype_of_activations(dtype);
    d.fp8 = dtype == DTYPE_F8_E4M3;
    *ret = d;
    if (cpu_isa_choose(conf->cpu_isa, &ret->cpu_isa, err) < 0)
        return -EINVAL;
    return parse_share(conf->memory_share, &ret->memory_share, err);
}

enum dtype worker_dtype(const struct device_conf *d)
{
    return d->fp8 ? DTYPE_F8_E4M3 : d->act_dtype;
}

enum dtype worker_tensor_dtype(const struct worker *w)
{
    struct device_conf d;

    if (w->ops)
        return w->ops->act_dtype;
    return worker_device(w->conf, &d, NULL) < 0 ? DTYPE_F32 : d.act_dtype;
}

/* Processes on one card take turns unless MPS lets them run concurrently. */
static void log_mps(const struct device_conf *d)
{
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char control[PATH_MAX];

    if (!dir || !*dir)
        dir = "/tmp/nvidia-mps";
    (void)snprintf(control, sizeof(control), "%s/control", dir);
    if (access(control, F_OK) == 0)
        log_info("event=mps status=running pipe=%s", dir);
    else if (d->memory_share < 1) /* other processes share the card */
        log_warn("event=mps status=missing pipe=%s msg=\"processes that share a card take turns without MPS: start it "
                 "(ops/mps.sh, docs/gpu.md)\"",
                 dir);
    else
        log_info("event=mps status=missing pipe=%s msg=\"for several processes per card see docs/gpu.md\"", dir);
}

int worker_open(struct worker *w, struct err *err)
{
    struct device_conf d;
    size_t total_bytes;
    int rc = worker_device(w->conf, &d, err);

    if (rc == 0 && is_cuda(w))
        log_mps(&d);
    if (rc == 0)
        rc = device_open(&d, &w->ops, err);
    if (rc == 0 && w->ops->f->memory && w->ops->f->memory(w->ops, &w->device_bytes, &total_bytes) < 0)
        w->device_bytes = 0;
    if (rc == 0)
        rc = checkpoint_open(w->conf->model, &w->checkpoint, err);
    if (rc == 0)
        rc = checkpoint_check(w->checkpoint, STAGE_BIT(w->stage), err);
    return rc;
}

int worker_explain(const struct worker *w, int rc, struct err *err)
{
    const size_t n = strlen(err->text);

    if (w->ops && w->ops->why.text[0] && !strstr(err->text, w->ops->why.text))
        (void)snprintf(err->text + n, sizeof(err->text) - n, "%s%s", n ? ": " : "", w->ops->why.text);
    return rc;
}

int worker_failed(const struct worker *w, int rc, const char *what, struct err *err)
{
    return worker_explain(w, err_set(err, rc, "%s: %s", what, strerror(-rc)), err);
}

/* Notifies systemd's watchdog, if the service has one; systemd restarts the service if this stops. */
static void feed_watchdog(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

static void note_alive(void *session)
{
    worker_session_progress(session);
}

static void log_ready(const struct worker *w, const struct worker_session_conf *c)
{
    size_t free_bytes = 0, total_bytes = 0;
    char memory[128] = "";

    if (w->ops && w->ops->f->memory && w->ops->f->memory(w->ops, &free_bytes, &total_bytes) == 0)
        (void)snprintf(memory, sizeof(memory), " device_bytes=%zu free_bytes=%zu",
                       w->device_bytes > free_bytes ? w->device_bytes - free_bytes : 0, free_bytes);
    log_info("event=ready stage=%s device=%s dtype=%s model=%s threads=%lld batch=%d window_items=%u load_ms=%lld%s",
             stage_name(c->stage), c->device, dtype_word(c->dtype), c->model, (long long)w->conf->threads, w->batch,
             c->window_items, (long long)(clock_mono_ms() - w->started_ms), memory);
}

/* What the broker is told of the checkpoint. `fingerprint`: without the settings. A checkpoint that cannot be told of,
 * such as one with huge files, still serves jobs that are made elsewhere. */
static void describe_model(const struct worker *w, const struct worker_session_conf *conf,
                           const struct fingerprint *fingerprint, struct model *ret)
{
    struct err err = {""};

    *ret = (struct model){
        .writes_captions = w->checkpoint->config.lm != CONFIG_LM_NONE,
        .n_stages = 1,
        .stages = {{.stage = w->stage, .dtype = conf->dtype, .settings = w->settings, .fingerprint = *fingerprint}}};
    (void)msg_text_set(ret->name, sizeof(ret->name), conf->model);
    if (model_contents_describe(w->conf->model, ret, &err) == 0)
        return;
    ret->n_files = 0;
    log_warn("event=model_not_offered msg=\"%s\"", err.text);
}

int worker_start(struct worker *w, struct err *err)
{
    static struct model offer; /* large for a stack */
    char name[MSG_NAME_SIZE];
    struct worker_session_conf conf = {.endpoint = w->conf->endpoint,
                                       .stage = w->stage,
                                       .device = w->conf->device,
                                       .model = name,
                                       .window_bytes = (uint64_t)w->conf->window_bytes,
                                       .alive = sd_watchdog_enabled(0, NULL) > 0 ? feed_watchdog : NULL};
    struct device_conf device;
    struct wire_keys keys;
    int rc = worker_device(w->conf, &device, err);

    if (rc < 0)
        return rc;
    conf.window_items = worker_window_items(w);
    conf.dtype = worker_dtype(&device);
    file_base_name(w->conf->model, name, sizeof(name));
    if (w->checkpoint) {
        rc = stage_fingerprint(w->checkpoint, w->stage, worker_dtype(&device), &conf.fingerprint, err);
        if (rc < 0)
            return rc;
        describe_model(w, &conf, &conf.fingerprint, &offer);
        conf.offer = &offer;
        conf.folder = w->conf->model;
        rc = fingerprint_with_settings(&conf.fingerprint, w->settings);
        if (rc < 0)
            return rc;
    }
    rc = wire_keys_load(&w->conf->keys, false, &keys, err);
    if (rc < 0)
        return rc;
    conf.keys = &keys;
    rc = wire_init(1, err);
    if (rc == 0)
        rc = worker_session_start(&conf, &w->session, err);
    wire_keys_wipe(&keys);
    conf.keys = NULL;
    if (rc == 0 && w->ops) {
        w->ops->alive = note_alive;
        w->ops->alive_arg = w->session;
    }
    if (rc == 0)
        log_ready(w, &conf);
    return rc;
}

void worker_release(struct worker *w)
{
    worker_session_stop(&w->session);
    wire_exit();
    checkpoint_free(w->checkpoint);
    ops_free(w->ops);
    w->checkpoint = NULL;
    w->ops = NULL;
}

static void log_connection(struct worker *w)
{
    struct worker_session_status s;

    worker_session_status(w->session, &s);
    if (s.n_connects != w->n_connects) {
        w->n_connects = s.n_connects;
        w->not_connected[0] = '\0';
        log_info("event=connected endpoint=\"%s\"", w->conf->endpoint);
    }
    if (s.state == WORKER_SESSION_CONNECTING && strcmp(s.text, w->not_connected) != 0) {
        memcpy(w->not_connected, s.text, sizeof(w->not_connected));
        log_warn("event=not_connected endpoint=\"%s\" msg=\"%s; trying again\"", w->conf->endpoint, s.text);
    }
}

void worker_check_stop(struct worker *w)
{
    log_connection(w);
    if (w->draining || !stop_requested())
        return;
    w->draining = true;
    log_info("event=draining");
    worker_session_drain(w->session);
}

void worker_fail_unit(struct worker *w, struct worker_work **work, const char *code, const char *text)
{
    log_warn("event=unit_failed unit=%u code=%s msg=\"%s\"", (*work)->lease.unit, code, text);
    if (worker_session_failure(w->session, work, code, text) < 0)
        log_warn("event=failure_not_sent msg=\"the lease will expire instead\"");
}

void worker_return_unit(struct worker *w, struct worker_work **work)
{
    if (worker_session_return(w->session, work, NULL) < 0)
        log_warn("event=return_not_sent msg=\"the lease will expire instead\"");
}

void worker_send_result(struct worker *w, struct worker_work **work, struct worker_result *result)
{
    struct err err = {""};

    if (worker_session_result(w->session, work, result, &err) < 0)
        log_warn("event=result_not_sent msg=\"%s; the lease will expire\"", err.text);
}

int worker_end(struct worker *w, struct err *err)
{
    return worker_session_end(w->session, GOODBYE_MS, err);
}

int worker_null_shape(const char *text, uint32_t *ret_rows, uint32_t *ret_width, struct err *err)
{
    unsigned rows, width;

    if (sscanf(text, "%u,%u", &rows, &width) != 2 || rows == 0 || width == 0 || rows > 65536 || width > 65536)
        return err_set(err, -EINVAL, "null_shape = %s: expected two numbers, \"rows,width\"", text);
    *ret_rows = rows;
    *ret_width = width;
    return 0;
}
