/* llm_worker.h - the language model daemon: turns projected queries and prompts into captions.
 *
 * Who may call: main.
 * Units: in the names.
 * Memory: owned by the struct.
 * Errors: negative errno with err; a unit that fails becomes a Failure message. */
#ifndef BLIPLINE_LLM_WORKER_LLM_WORKER_H
#define BLIPLINE_LLM_WORKER_LLM_WORKER_H

#include "worker/worker.h"

#include <stdint.h>

struct llm_conf {
    struct worker_conf common;
    int64_t positions;
    char admit[8];
};

extern const struct conf_key llm_conf_table[];

/* The functions of struct worker_program. check() checks the keys of this stage. open() loads the weights (none for
 * device null). run() returns after SIGTERM, once all work is finished. -ECONNREFUSED: the broker refused this worker;
 * err says why. */
int llm_worker_check(const void *conf, struct err *err) CHECK_RESULT;
int llm_worker_open(const void *conf, void **ret, struct err *err) CHECK_RESULT;
int llm_worker_run(void *daemon, struct err *err) CHECK_RESULT;
void llm_worker_free(void *daemon);

#endif
