/* batch_texts.h - the texts of a batch of images, gathered from their units. Equal texts of an image, which sampling
 * often gives, are computed once.
 *
 * Who may call: the compute thread.
 * Units: tokens, including special ones; image numbers are within the batch.
 * Memory: owns its arrays; texts and embeds point into the units. Freed with batch_texts_release; a zeroed struct is
 * empty.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_QFORMER_WORKER_BATCH_TEXTS_H
#define BLIPLINE_QFORMER_WORKER_BATCH_TEXTS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct unit_text;

struct batch_texts {
    struct unit_text **texts; /* [n] */
    float **embeds;           /* [n] destination of each ITC embedding */
    int32_t *computed;        /* [n] index of each text in the arrays below */
    int n;
    int32_t *ids, *start, *image; /* as struct qformer_texts; image [n_computed], ascending */
    int n_computed;
};

/* Allocates room for n texts with n_ids tokens in total. */
int batch_texts_alloc(struct batch_texts *b, size_t n, size_t n_ids) CHECK_RESULT;
void batch_texts_release(struct batch_texts *b);
/* Removes all texts; keeps the memory. */
void batch_texts_clear(struct batch_texts *b);
/* Adds a text, in ascending order of images. ids are copied. */
void batch_texts_add(struct batch_texts *b, int32_t image, struct unit_text *text, const int32_t *ids, size_t n_ids,
                     float *embed);

#endif
