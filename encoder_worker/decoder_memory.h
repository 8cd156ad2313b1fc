/* decoder_memory.h - memory shared by the encoder and a decoder process: slots for pixels, then the bytes of files.
 *
 * Slots outlive the process: images wait there for their batch, and a new process fills the others. The process may
 * write anywhere at any time, so the encoder reads only pixels from it.
 * Who may call: one thread at a time; decoder_slot_free: any.
 * Units: bytes.
 * Memory: pages are allocated on use and kept, except those of unusually large files.
 * Errors: negative errno; running out of memory never kills the process here. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODER_MEMORY_H
#define BLIPLINE_ENCODER_WORKER_DECODER_MEMORY_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A decoded image; the holder frees it with decoder_slot_free. */
struct decoder_slot {
    struct decoder_memory *owner;
    struct decoder_slot *next_free;
    const uint8_t *pixels; /* size_px * size_px * 3 bytes */
    bool has_pages;
};

/* Images that a process may have pending: the current one and the next. */
enum { DECODER_DEPTH = 2 };

/* The memory layout, for both sides. */
struct decoder_layout {
    uint32_t size_px, n_slots;
    size_t max_file_bytes;
};

struct decoder_memory {
    int fd;
    struct decoder_layout layout;
    uint8_t *pixels; /* pixels of all slots */
    struct decoder_slot *slots, *first_free;
    pthread_mutex_t lock; /* of first_free */
    struct decoder_file {
        uint8_t *at;
        size_t bytes;
    } files[DECODER_DEPTH];
};

int decoder_memory_init(struct decoder_memory *m, const struct decoder_layout *layout) CHECK_RESULT;
void decoder_memory_release(struct decoder_memory *m); /* all slots must be free */
/* Copies the bytes of a file for the process to read; i < DECODER_DEPTH. */
int decoder_memory_put(struct decoder_memory *m, int i, const uint8_t *bytes, size_t n) CHECK_RESULT;
/* Call when the file is no longer needed; frees the memory of an unusually large one. */
void decoder_memory_shrink(struct decoder_memory *m, int i);

/* NULL if all are held or memory is exhausted. */
struct decoder_slot *decoder_slot_take(struct decoder_memory *m);
void decoder_slot_free(struct decoder_slot *slot); /* NULL is allowed */
uint32_t decoder_slot_number(const struct decoder_slot *slot);

static inline size_t decoder_slot_at(const struct decoder_layout *l, uint32_t slot)
{
    return (size_t)l->size_px * l->size_px * 3 * slot;
}

/* Offset of file i: after the slots, page-aligned, with address space for the largest file; unused pages take no
 * memory. */
static inline size_t decoder_file_at(const struct decoder_layout *l, int i)
{
    const size_t page = 65536, most = (size_t)1 << 60,
                 file = l->max_file_bytes < most ? l->max_file_bytes / page * page + page : most;

    return (decoder_slot_at(l, l->n_slots) + page - 1) / page * page + file * (size_t)i;
}

#endif
