/* models.h - the models that workers have offered. The broker keeps their small files in STATE/models, so that clients
 * can plan a job without the checkpoint.
 *
 * A model is told apart by name and files (struct model.id), so a worker can never change the files of another one.
 * Who may call: the loop's thread. Units: bytes. Memory: struct models owns the models; it borrows what it points to.
 * Errors: -EBADMSG: the peer's message makes no sense. What cannot be kept is logged. */
#ifndef BLIPLINE_BROKER_MODELS_H
#define BLIPLINE_BROKER_MODELS_H

#include "base/err.h"
#include "broker/answers.h"
#include "broker/peers.h"
#include "broker/requests.h"
#include "proto/model.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kept_model {
    struct model model;
    bool kept;      /* its files are in STATE/models */
    bool changed;   /* its stages are not those in STATE/models */
    bool writing;   /* the committer has it */
    uint64_t asked; /* the worker that was asked for the files; 0: none */
    int64_t asked_ms;
};

struct models {
    char folder[1024 + 16]; /* "": this broker keeps none */
    struct requests *requests;
    struct answers *answers;
    const struct peers *peers;
    size_t n;
    struct kept_model *list[MODEL_MAX_LISTED];
    uint64_t bytes; /* of all files */
};

/* `state_dir` "": keep none. */
int models_load(struct models *all, const char *state_dir, struct err *err) CHECK_RESULT;
void models_release(struct models *all);

/* What workers say. */
int models_offer(struct models *all, struct peer *p, const struct wire_message *message, struct err *err) CHECK_RESULT;
int models_files(struct models *all, const struct peer *p, struct wire_message *message, struct err *err) CHECK_RESULT;
/* The worker is gone, and forgotten. */
void models_let_go(struct models *all, uint64_t peer);

/* What clients ask. */
void models_answer_list(struct models *all, const struct peer *p, const struct msg *m);
void models_answer_get(struct models *all, const struct peer *p, const struct msg *m);

/* The completion of a COMMITTER_MODEL. */
void models_on_completion(struct models *all, const struct committer_completion *done);

#endif
