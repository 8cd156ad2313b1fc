#include "qformer_worker/batch_texts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int batch_texts_alloc(struct batch_texts *b, size_t n, size_t n_ids)
{
    *b = (struct batch_texts){.texts = calloc(n + 1, sizeof(*b->texts)),
                              .embeds = calloc(n + 1, sizeof(*b->embeds)),
                              .computed = calloc(n + 1, sizeof(*b->computed)),
                              .ids = calloc(n_ids + 1, sizeof(*b->ids)),
                              .start = calloc(n + 2, sizeof(*b->start)),
                              .image = calloc(n + 1, sizeof(*b->image))};
    if (b->texts && b->embeds && b->computed && b->ids && b->start && b->image)
        return 0;
    batch_texts_release(b);
    return -ENOMEM;
}

void batch_texts_release(struct batch_texts *b)
{
    free(b->texts);
    free(b->embeds);
    free(b->computed);
    free(b->ids);
    free(b->start);
    free(b->image);
    *b = (struct batch_texts){0};
}

void batch_texts_clear(struct batch_texts *b)
{
    b->n = b->n_computed = 0;
}

/* The index of the same text of the same image, or -1. */
static int32_t find(const struct batch_texts *b, int32_t image, const int32_t *ids, size_t n_ids)
{
    for (int32_t i = b->n_computed - 1; i >= 0 && b->image[i] == image; i--)
        if ((size_t)(b->start[i + 1] - b->start[i]) == n_ids &&
            memcmp(b->ids + b->start[i], ids, n_ids * sizeof(*ids)) == 0)
            return i;
    return -1;
}

void batch_texts_add(struct batch_texts *b, int32_t image, struct unit_text *text, const int32_t *ids, size_t n_ids,
                     float *embed)
{
    int32_t same = find(b, image, ids, n_ids);

    assert(b->n_computed == 0 || image >= b->image[b->n_computed - 1]);
    if (same < 0) {
        same = b->n_computed++;
        b->image[same] = image;
        memcpy(b->ids + b->start[same], ids, n_ids * sizeof(*ids));
        b->start[same + 1] = b->start[same] + (int32_t)n_ids;
    }
    b->texts[b->n] = text;
    b->embeds[b->n] = embed;
    b->computed[b->n++] = same;
}
