/* worker.h - shared by the three worker daemons: configuration keys, device, checkpoint, session, start and end.
 *
 * Who may call: the compute thread of a worker daemon, which is its main thread.
 * Units: in the names.
 * Memory: struct worker owns what it opened; freed with worker_release.
 * Errors: negative errno with err. Functions that return nothing log their errors and the consequence. */
#ifndef BLIPLINE_WORKER_WORKER_H
#define BLIPLINE_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"
#include "model/checkpoint.h"
#include "tensor/device.h"
#include "tensor/ops.h"
#include "tensor/tensor.h"
#include "wire/worker_session.h"

#include <stdbool.h>
#include <stdint.h>

struct worker_conf {
    char endpoint[256];
    struct wire_keys_conf keys;
    char model[1024];
    char device[64];
    char cuda_library[1024];
    char dtype[16];
    char memory_share[16];
    char cpu_isa[16];
    bool tf32;
    int64_t threads;
    int64_t batch;        /* 0: chosen for the device (struct worker) */
    int64_t window_items; /* 0: chosen for the batch */
    int64_t window_bytes;
    char log_level[16];
};

/* The rows of a configuration table for these keys; `c` is the daemon's struct, whose field `common` is a struct
 * worker_conf. threads_: the default of threads; auto_: help text for batch = 0. */
/* clang-format off */
#define WORKER_CONF_KEYS(c, threads_, auto_) \
    {"endpoint", CONF_TEXT, CONF_AT(c, common.endpoint), "ipc:///run/blipline/broker", 1, 0, \
     "the broker's endpoint: ipc:///PATH, or tcp://HOST:PORT with keys"}, \
    WIRE_KEYS_CONF(c, common.keys), \
    WIRE_KEYS_CONF_SERVER(c, common.keys), \
    {"model", CONF_TEXT, CONF_AT(c, common.model), "", 0, 0, \
     "checkpoint directory (not needed for device = null)"}, \
    {"device", CONF_TEXT, CONF_AT(c, common.device), "cpu", 1, 0, \
     "cpu; cuda:N or a GPU's UUID (GPU-...); null: results of the right shape, without a model"}, \
    {"cuda_library", CONF_TEXT, CONF_AT(c, common.cuda_library), "", 0, 0, \
     "path of libblipline-cuda.so; empty: search beside the program and in ../lib/blipline"}, \
    {"dtype", CONF_TEXT, CONF_AT(c, common.dtype), "fp32", 1, 0, \
     "fp32; bf16 if the device has it; on CUDA also fp16 (not FlanT5) and fp8: bf16 with the large matrices of " \
     "image encoder and OPT in e4m3"}, \
    {"memory_share", CONF_TEXT, CONF_AT(c, common.memory_share), "1", 1, 0, \
     "CUDA: share of the card's memory that this process may use, 0.05 to 1"}, \
    {"tf32", CONF_BOOL, CONF_AT(c, common.tf32), "no", 0, 0, \
     "CUDA: fp32 products round their operands to tf32: several times as fast, relative error about 1e-3"}, \
    {"threads", CONF_INT, CONF_AT(c, common.threads), threads_, 1, 1024, \
     "threads for the model"}, \
    {"cpu_isa", CONF_TEXT, CONF_AT(c, common.cpu_isa), "auto", 1, 0, \
     "device cpu: vector instructions: base, avx2, avx512, or auto (the best of this processor). With " \
     "avx2 all processors give the same bytes"}, \
    {"batch", CONF_INT, CONF_AT(c, common.batch), "0", 0, WORKER_MAX_BATCH, \
     "images or sequences computed together; 0: " auto_}, \
    {"window_items", CONF_INT, CONF_AT(c, common.window_items), "0", 0, WORKER_MAX_WINDOW_ITEMS, \
     "items held at once; 0: two batches (four on a GPU), at least 128 (language model: 256)"}, \
    {"window_bytes", CONF_SIZE, CONF_AT(c, common.window_bytes), "4GiB", 1, 0, \
     "bytes of tensors held at once"}, \
    {"log_level", CONF_TEXT, CONF_AT(c, common.log_level), "info", 1, 0, \
     "err, warn, info or debug"}
/* clang-format on */

enum { WORKER_MAX_BATCH = 4096, WORKER_MAX_WINDOW_ITEMS = 32768 };

struct worker {
    const struct worker_conf *conf;
    struct checkpoint *checkpoint; /* NULL: device null */
    struct ops *ops;               /* NULL: device null */
    struct worker_session *session;
    enum stage stage;
    unsigned settings; /* argument of fingerprint_with_settings */
    int batch; /* configured or chosen for the device; 0: the language model chooses it by the available memory */
    int64_t started_ms;  /* clock_mono_ms of worker_init */
    size_t device_bytes; /* CUDA: free at worker_open */
    bool draining;
    uint32_t n_connects;               /* at the last log line about the connection */
    char not_connected[MSG_TEXT_SIZE]; /* the reason in that line; "": none */
};

/* Call this first. Sets batch and window sizes from the keys. */
void worker_init(struct worker *w, const struct worker_conf *conf, enum stage stage);
/* The number of items that this worker holds at once. */
uint32_t worker_window_items(const struct worker *w);
/* True for device = null: results have the right shapes, but nothing is computed and no checkpoint is needed. */
bool worker_is_null(const struct worker *w);

/* True if the device is asynchronous. Then start the next batch before waiting for the results of the last one; on a
 * synchronous device that would only delay the results. */
bool worker_is_async(const struct worker *w);

/* Reads the keys about the device; *ret borrows from conf. -EINVAL: err names the key. */
int worker_device(const struct worker_conf *conf, struct device_conf *ret, struct err *err) CHECK_RESULT;
/* The type in fingerprints and in Hello: the type of activations, or F8_E4M3. */
enum dtype worker_dtype(const struct device_conf *d);
/* The type of the tensors that this worker sends. Works for device = null too. */
enum dtype worker_tensor_dtype(const struct worker *w);

/* Opens the device and the checkpoint, and checks the stage's tensors. */
int worker_open(struct worker *w, struct err *err) CHECK_RESULT;
/* Appends the device's error message, if there is one, to err. Returns rc. */
int worker_explain(const struct worker *w, int rc, struct err *err);
/* The same, with err starting with `what` and the name of the error. */
int worker_failed(const struct worker *w, int rc, const char *what, struct err *err);
/* Starts the session and sends the stage, with the checkpoint's fingerprint if there is one. */
int worker_start(struct worker *w, struct err *err) CHECK_RESULT;
/* Ends the session at once and closes checkpoint and device. Free the models that use `ops` first. */
void worker_release(struct worker *w);

/* Call in every iteration of the main loop: after SIGTERM or SIGINT it makes the session drain. It also logs when the
 * connection to the broker is made, and why it cannot be made. */
void worker_check_stop(struct worker *w);
/* Reports a unit as failed. */
void worker_fail_unit(struct worker *w, struct worker_work **work, const char *code, const char *text);
/* Returns a unit without counting an attempt. A unit whose lease is void is dropped silently. */
void worker_return_unit(struct worker *w, struct worker_work **work);
/* Sends the result and takes its rows and tensors. If that fails, the unit fails or its lease expires. */
void worker_send_result(struct worker *w, struct worker_work **work, struct worker_result *result);
/* Call at the end of the main loop. Returns 0 if the session has drained, else the error that ended it. */
int worker_end(struct worker *w, struct err *err) CHECK_RESULT;

/* Parses "257,1408", for device = null. */
int worker_null_shape(const char *text, uint32_t *ret_rows, uint32_t *ret_width, struct err *err) CHECK_RESULT;

/* -- main() -- */

struct selftest_conf;

struct worker_program {
    const char *name, *what;
    enum stage stage;
    const struct conf_key *table;
    void *conf;                       /* the struct that `table` describes */
    const struct worker_conf *common; /* inside conf */
    int (*selftest)(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err);
    int (*check)(const void *conf, struct err *err); /* checks the stage's own keys; NULL: nothing to check */
    /* *ret begins with its struct worker. It is set also on failure, unless there is no memory. */
    int (*open)(const void *conf, void **ret, struct err *err);
    int (*run)(void *daemon, struct err *err);
    void (*free)(void *daemon);
};
/* Parses options, loads the configuration, opens the log; then runs the self-test, or opens the daemon, starts the
 * session, READY, run, STOPPING, free. Returns the exit code. */
int worker_main(const struct worker_program *p, int argc, char **argv);

#endif
