/* worker.h - what the three worker daemons share: configuration keys, device and checkpoint, the session, the way to start and to end.
 *
 * Who may call: the compute thread of a worker daemon, which is also the one that runs main().
 * Units: in the names. Memory: struct worker owns what it opened; worker_release.
 * Errors: negative errno with err. The functions that return nothing log what they could not do and say what happens instead. */
#ifndef BLIPLINE_WORKER_WORKER_H
#define BLIPLINE_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"
#include "model/checkpoint.h"
#include "tensor/tensor.h"
#include "tensor/ops.h"
#include "wire/worker_session.h"

#include <stdbool.h>
#include <stdint.h>

struct worker_conf {
    char endpoint[128];
    char model[1024];
    char device[64];
    char dtype[16];
    int64_t threads;
    int64_t batch;
    int64_t window_items;
    int64_t window_bytes;
    char log_level[16];
};

/* The rows of a configuration table for these keys; `c` is the daemon's struct, whose field `common` is a struct worker_conf. The
 * defaults of threads, batch and window_items are the stage's. */
#define WORKER_CONF_KEYS(c, threads_, batch_, window_items_)                                                             \
    {"endpoint", CONF_TEXT, CONF_AT(c, common.endpoint), "ipc:///run/blipline/broker", 1, 0, "the broker's endpoint"},   \
        {"model", CONF_TEXT, CONF_AT(c, common.model), "", 0, 0, "checkpoint directory (not needed for device = null)"}, \
        {"device", CONF_TEXT, CONF_AT(c, common.device), "cpu", 1, 0, "cpu, or null: right shapes without arithmetic"},  \
        {"dtype", CONF_TEXT, CONF_AT(c, common.dtype), "fp32", 1, 0, "fp32, or bf16 where the device has it"},           \
        {"threads", CONF_INT, CONF_AT(c, common.threads), threads_, 1, 1024, "threads of the model"},                    \
        {"batch",                                                                                                        \
         CONF_INT,                                                                                                       \
         CONF_AT(c, common.batch),                                                                                       \
         batch_,                                                                                                         \
         1,                                                                                                              \
         4096,                                                                                                           \
         "images or sequences that are computed together"},                                                              \
        {"window_items", CONF_INT, CONF_AT(c, common.window_items), window_items_, 1, 65536, "items held at once"},      \
        {"window_bytes", CONF_SIZE, CONF_AT(c, common.window_bytes), "4GiB", 1, 0, "bytes of tensors held at once"},     \
    {                                                                                                                    \
        "log_level", CONF_TEXT, CONF_AT(c, common.log_level), "info", 1, 0, "err, warn, info or debug"                   \
    }

struct worker {
    const struct worker_conf *conf;
    struct checkpoint *checkpoint; /* NULL: device null */
    struct ops *ops;               /* NULL: device null */
    struct worker_session *session;
    bool draining;
};

/* device = null: the daemon gives right shapes without arithmetic and needs no checkpoint. */
bool worker_is_null(const struct worker *w);

/* What the key dtype says: DTYPE_F32 or DTYPE_BF16. */
int worker_dtype(const struct worker_conf *conf, enum dtype *ret, struct err *err) CHECK_RESULT;

/* Open the device and the checkpoint, and check the tensors of `stage`. */
int worker_open(struct worker *w, enum model_stage stage, struct err *err) CHECK_RESULT;
/* Announce the stage, with the fingerprint of the checkpoint if there is one. */
int worker_start(struct worker *w, enum model_stage stage, struct err *err) CHECK_RESULT;
/* Ends the session at once, closes checkpoint and device. The graphs over `ops` must be gone by now. */
void worker_release(struct worker *w);

/* To be called in every round of the main loop: after SIGTERM or SIGINT the session is told to drain, once. */
void worker_check_stop(struct worker *w);
/* Give a unit back as failed. */
void worker_fail_unit(struct worker *w, struct worker_work **work, const char *code, const char *text);
/* Hand a unit back unpunished; of a stale one nobody hears. */
void worker_return_unit(struct worker *w, struct worker_work **work);
/* Takes the result (rows and tensors); what cannot be sent is given back as failed, or its lease expires. */
void worker_send_result(struct worker *w, struct worker_work **work, struct worker_result *result);
/* The last line of a main loop: drained, or why not. */
int worker_end(struct worker *w, struct err *err) CHECK_RESULT;

/* "257,1408" -> two numbers, for device = null. */
int worker_null_shape(const char *text, uint32_t *ret_rows, uint32_t *ret_width, struct err *err) CHECK_RESULT;

/* -- main() ---------------------------------------------------------------------------------------------------------------- */

struct selftest_conf;

struct worker_program {
    const char *name, *what;
    const struct conf_key *table;
    void *conf;                       /* what `table` describes */
    const struct worker_conf *common; /* inside conf */
    int (*selftest)(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err);
    int (*start)(const void *conf, void **ret, struct err *err);
    int (*run)(void *daemon, struct err *err);
    void (*free)(void *daemon);
};
/* Options, configuration, log, self-test or: start, READY, run, STOPPING, free. Returns the exit code. */
int worker_main(const struct worker_program *p, int argc, char **argv);

#endif
