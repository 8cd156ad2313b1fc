/* decoder_memory.h - memory that the encoder and a decoder process see: slots for pixels, then the bytes of a file.
 *
 * The slots stay when the process goes: pictures wait there for their batch, and a new process fills the others. Whoever
 * has the memory may write to all of it at any time, so the encoder takes from it nothing but pixels.
 * Who may call: one thread at a time; decoder_slot_free: any. Units: bytes. Memory: pages come with use and stay, but for
 * those of unusually large files. Errors: negative errno; none of the calls or accesses here ends the process for want of
 * memory. */
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

struct decoder_memory {
    int fd;
    uint32_t size_px, n_slots;
    uint8_t *pixels; /* of all slots */
    struct decoder_slot *slots, *first_free;
    pthread_mutex_t lock; /* of first_free */
    uint8_t *file;
    size_t file_bytes;
};

int decoder_memory_init(struct decoder_memory *m, uint32_t size_px, uint32_t n_slots) CHECK_RESULT;
void decoder_memory_release(struct decoder_memory *m); /* there are no slots any more */
/* The bytes of a file, for the process to read. */
int decoder_memory_put(struct decoder_memory *m, const uint8_t *bytes, size_t n) CHECK_RESULT;
/* They are not needed any more: give back what only unusual files take. */
void decoder_memory_shrink(struct decoder_memory *m);

/* NULL: all are held, or there is no memory. */
struct decoder_slot *decoder_slot_take(struct decoder_memory *m);
void decoder_slot_free(struct decoder_slot *slot); /* NULL: nothing */
uint32_t decoder_slot_number(const struct decoder_slot *slot);

/* -- where things are, for both sides -- */

static inline size_t decoder_slot_at(uint32_t size_px, uint32_t slot)
{
    return (size_t)size_px * size_px * 3 * slot;
}

/* Where the file's bytes begin: behind the slots, on a page of whatever size. */
static inline size_t decoder_bytes_at(uint32_t size_px, uint32_t n_slots)
{
    return (decoder_slot_at(size_px, n_slots) + 65535) / 65536 * 65536;
}

#endif
