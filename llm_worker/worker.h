/* worker.h - the language model daemon: projected queries and a prompt in, captions out.
 *
 * Who may call: main. Units: in the names. Memory: owned by the struct.
 * Errors: negative errno with err; a unit that cannot be done is a Failure to the broker. */
#ifndef BLIPLINE_LLM_WORKER_WORKER_H
#define BLIPLINE_LLM_WORKER_WORKER_H

#include "base/conf.h"
#include "base/err.h"

#include <stdint.h>

struct llm_conf {
    char endpoint[128];
    char model[1024];
    char device[64];
    int64_t threads;
    int64_t batch;
    int64_t positions;
    int64_t window_items;
    int64_t window_bytes;
    char log_level[16];
};

extern const struct conf_key llm_conf_table[];

struct llm_worker;

/* Loads the weights (device null: nothing), starts the session. */
int llm_worker_new(const struct llm_conf *conf, struct llm_worker **ret, struct err *err) CHECK_RESULT;
/* Until SIGTERM and everything in hand is finished. -ECONNREFUSED: the broker refused this worker, err says why. */
int llm_worker_run(struct llm_worker *w, struct err *err) CHECK_RESULT;
void llm_worker_free(struct llm_worker *w);

#endif
