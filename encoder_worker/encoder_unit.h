/* encoder_unit.h - one leased unit on its way through the encoder: its pictures, their reasons, its features.
 *
 * Who may call: the compute thread.
 * Units: nanoseconds, bytes.
 * Memory: the unit owns everything but `work`'s session.
 * Errors: negative errno. */
#ifndef BLIPLINE_ENCODER_WORKER_ENCODER_UNIT_H
#define BLIPLINE_ENCODER_WORKER_ENCODER_UNIT_H

#include "base/err.h"
#include "encoder_worker/pool.h"
#include "wire/worker_session.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unit_failure {
    uint32_t row;
    enum image_error code;
    struct err message;
};

struct unit {
    struct unit *next;
    struct worker_work *work;
    uint32_t n_items;              /* work's; that is gone before the unit is */
    uint64_t serial;               /* which pool results are this unit's */
    struct decoder_slot **slots;   /* [n_items]: pictures that are decoded and in no batch yet */
    bool *failed;                  /* [n_items] */
    struct unit_failure *failures; /* [n_failures], in order of completion */
    uint32_t n_submitted;          /* the first of them are with the pool, or through */
    uint32_t n_failures, n_decoded, n_ok;
    uint32_t n_given, n_computed; /* pictures handed to the model; of them, those whose features are there */
    bool no_memory;               /* the machine's trouble: the whole unit is given back as failed */
    uint32_t next_row;            /* the first one that no batch has looked at */
    char *features; /* [n_ok, P, C] in act_dtype, made when the last picture is decoded; goes to the tensor */
    int64_t started_ns, decode_ns, resize_ns, compute_ns;
};

int encoder_unit_new(struct worker_work **work, uint64_t serial, struct unit **ret) CHECK_RESULT;
void encoder_unit_free(struct unit *u); /* gives nothing back: `work` must be NULL by now */

/* Ask the pool for the pictures that it has not been asked for. False: it has no room for all now. */
bool encoder_unit_submit(struct unit *u, struct pool *pool) CHECK_RESULT;
/* Note one finished picture; takes its slot. */
void encoder_unit_note(struct unit *u, uint32_t row, const struct pool_result *r);
/* The Record rows of the result: an error or just the number, in order of items. */
int encoder_unit_rows(const struct unit *u, struct buf *ret) CHECK_RESULT;

#endif
