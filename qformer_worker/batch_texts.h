/* batch_texts.h - the texts of a batch of images, gathered from their units: each text of an image is computed once,
 * however often it is there (samples of a caption are often the same).
 *
 * Who may call: the compute thread.
 * Units: tokens with the special ones; images are counted within the batch.
 * Memory: owns its arrays; texts and embeds point to what their units own. batch_texts_release; one zeroed is empty.
 * Errors: -ENOMEM. */
#ifndef BLIPLINE_QFORMER_WORKER_BATCH_TEXTS_H
#define BLIPLINE_QFORMER_WORKER_BATCH_TEXTS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct unit_text;

struct batch_texts {
    struct unit_text **texts; /* [n] */
    float **embeds;           /* [n] where the ITC embedding of each goes */
    int32_t *computed;        /* [n] which of those below each of them is */
    int n;
    int32_t *ids, *start, *image; /* as struct qformer_texts; image [n_computed], ascending */
    int n_computed;
};

/* Room for n texts of n_ids tokens in all. */
int batch_texts_alloc(struct batch_texts *b, size_t n, size_t n_ids) CHECK_RESULT;
void batch_texts_release(struct batch_texts *b);
/* Forget all texts; the room stays. */
void batch_texts_clear(struct batch_texts *b);
/* One more, of the image of the last one or of a later image. ids are copied. */
void batch_texts_add(struct batch_texts *b, int32_t image, struct unit_text *text, const int32_t *ids, size_t n_ids,
                     float *embed);

#endif
