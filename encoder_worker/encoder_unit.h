/* encoder_unit.h - one leased unit in the encoder: its images, their errors, its features.
 *
 * Who may call: the compute thread.
 * Units: nanoseconds, bytes.
 * Memory: the unit owns everything except `work`'s session.
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
    uint32_t n_items;            /* copy of work's, which is freed before the unit */
    uint64_t serial;             /* identifies this unit's pool results */
    struct decoder_slot **slots; /* [n_items]: decoded images that are in no batch yet */
    bool *failed;                /* [n_items] */
    uint8_t *pictures;           /* bytes that came with the unit; NULL: none */
    size_t n_pictures;
    struct unit_failure *failures; /* [n_failures], in order of completion */
    uint32_t n_submitted;          /* items passed to the pool so far */
    uint32_t n_failures, n_decoded, n_ok;
    uint32_t n_given, n_computed; /* images passed to the model; of them, those with features */
    bool no_memory;               /* out of memory: the whole unit fails */
    uint32_t next_row;            /* the first row not yet in a batch */
    char *features; /* [n_ok, P, C] in act_dtype, allocated when the last image is decoded; becomes the tensor */
    int64_t started_ns, decode_ns, resize_ns, compute_ns;
};

/* Takes the work, unless it fails: -ENOMEM, -EBADMSG (the bytes that came with it are not what was sent). */
int encoder_unit_new(struct worker_work **work, uint64_t serial, struct unit **ret, struct err *err) CHECK_RESULT;
void encoder_unit_free(struct unit *u); /* does not return the unit: `work` must be NULL */

/* Submits the remaining images to the pool. False if it has no room for all of them. */
bool encoder_unit_submit(struct unit *u, struct pool *pool) CHECK_RESULT;
/* Records a finished image and takes its slot. */
void encoder_unit_note(struct unit *u, uint32_t row, const struct pool_result *r);
/* Writes the Record rows of the result in order of items: an error or only the number. */
int encoder_unit_rows(const struct unit *u, struct buf *ret) CHECK_RESULT;

#endif
