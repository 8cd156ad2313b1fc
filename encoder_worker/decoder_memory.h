/* decoder_memory.h - memory that the encoder and a decoder process see: slots for pixels, then the bytes of files.
 *
 * The slots stay when the process goes: pictures wait there for their batch, and a new process fills the others.
 * Whoever has the memory may write to all of it at any time, so the encoder takes from it nothing but pixels.
 * Who may call: one thread at a time; decoder_slot_free: any.
 * Units: bytes.
 * Memory: pages come with use and stay, but for those of unusually large files.
 * Errors: negative errno; none of the calls or accesses here ends the process for want of memory. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODER_MEMORY_H
#define BLIPLINE_ENCODER_WORKER_DECODER_MEMORY_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A picture where its decoder has put it; the holder's, until decoder_slot_free. */
struct decoder_slot {
    struct decoder_memory *owner;
    struct decoder_slot *next_free;
    const uint8_t *pixels; /* size_px * size_px * 3 bytes */
    bool has_pages;
};

/* Pictures that a process may have been asked for: the one it decodes, and the next. */
enum { DECODER_DEPTH = 2 };

/* Where things are, for both sides. */
struct decoder_layout {
    uint32_t size_px, n_slots;
    size_t max_file_bytes;
};

struct decoder_memory {
    int fd;
    struct decoder_layout layout;
    uint8_t *pixels; /* of all slots */
    struct decoder_slot *slots, *first_free;
    pthread_mutex_t lock; /* of first_free */
    struct decoder_file {
        uint8_t *at;
        size_t bytes;
    } files[DECODER_DEPTH];
};

int decoder_memory_init(struct decoder_memory *m, const struct decoder_layout *layout) CHECK_RESULT;
void decoder_memory_release(struct decoder_memory *m); /* there are no slots any more */
/* The bytes of a file, for the process to read; i < DECODER_DEPTH. */
int decoder_memory_put(struct decoder_memory *m, int i, const uint8_t *bytes, size_t n) CHECK_RESULT;
/* They are not needed any more: give back what only unusual files take. */
void decoder_memory_shrink(struct decoder_memory *m, int i);

/* NULL: all are held, or there is no memory. */
struct decoder_slot *decoder_slot_take(struct decoder_memory *m);
void decoder_slot_free(struct decoder_slot *slot); /* NULL: nothing */
uint32_t decoder_slot_number(const struct decoder_slot *slot);

static inline size_t decoder_slot_at(const struct decoder_layout *l, uint32_t slot)
{
    return (size_t)l->size_px * l->size_px * 3 * slot;
}

/* Behind the slots, on a page of whatever size, with room for the largest file: what is not used takes no memory. */
static inline size_t decoder_file_at(const struct decoder_layout *l, int i)
{
    const size_t page = 65536, most = (size_t)1 << 60,
                 file = l->max_file_bytes < most ? l->max_file_bytes / page * page + page : most;

    return (decoder_slot_at(l, l->n_slots) + page - 1) / page * page + file * (size_t)i;
}

#endif
