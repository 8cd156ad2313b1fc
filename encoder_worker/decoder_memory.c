#include "encoder_worker/decoder_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Initial room for a file, and what is kept after a larger one. */
#define FIRST_FILE_BYTES ((size_t)1 << 20)
#define KEEP_FILE_BYTES ((size_t)16 << 20)

static off_t file_at(const struct decoder_memory *m, int i)
{
    return (off_t)decoder_file_at(&m->layout, i);
}

/* Allocates the pages now: if memory runs out, writing to a page would kill the encoder. */
static int file_grow(struct decoder_memory *m, int i, size_t need)
{
    struct decoder_file *f = &m->files[i];
    const size_t most = (size_t)(file_at(m, 1) - file_at(m, 0));
    size_t bytes = need < 2 * f->bytes ? 2 * f->bytes : need;
    void *at;

    if (need <= f->bytes)
        return 0;
    if (bytes > most)
        bytes = most;
    if (need > most)
        return -EFBIG;
    if (fallocate(m->fd, 0, file_at(m, i), (off_t)bytes) < 0)
        return -errno;
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, file_at(m, i));
    if (at == MAP_FAILED)
        return -errno;
    if (f->at)
        (void)munmap(f->at, f->bytes);
    *f = (struct decoder_file){.at = at, .bytes = bytes};
    return 0;
}

static int make_slots(struct decoder_memory *m)
{
    void *at = mmap(NULL, (size_t)file_at(m, 0), PROT_READ, MAP_SHARED, m->fd, 0);

    if (at == MAP_FAILED)
        return -errno;
    m->pixels = at;
    m->slots = calloc(m->layout.n_slots, sizeof(*m->slots));
    if (!m->slots)
        return -ENOMEM;
    for (uint32_t i = m->layout.n_slots; i > 0; i--) {
        struct decoder_slot *s = &m->slots[i - 1];

        *s = (struct decoder_slot){
            .owner = m, .next_free = m->first_free, .pixels = m->pixels + decoder_slot_at(&m->layout, i - 1)};
        m->first_free = s;
    }
    return 0;
}

int decoder_memory_init(struct decoder_memory *m, const struct decoder_layout *layout)
{
    const size_t max = layout->max_file_bytes, first = max < FIRST_FILE_BYTES ? max : FIRST_FILE_BYTES;
    int rc = 0;

    *m = (struct decoder_memory){.layout = *layout, .lock = PTHREAD_MUTEX_INITIALIZER};
    m->fd = memfd_create("pictures", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0)
        return -errno;
    for (int i = 0; rc == 0 && i < DECODER_DEPTH; i++)
        rc = file_grow(m, i, first);
    if (rc < 0)
        return rc;
    if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0) /* nobody can shrink it */
        return -errno;
    return make_slots(m);
}

void decoder_memory_release(struct decoder_memory *m)
{
    for (int i = 0; i < DECODER_DEPTH; i++)
        if (m->files[i].at)
            (void)munmap(m->files[i].at, m->files[i].bytes);
    if (m->pixels)
        (void)munmap(m->pixels, (size_t)file_at(m, 0));
    if (m->fd >= 0)
        (void)close(m->fd);
    (void)pthread_mutex_destroy(&m->lock);
    free(m->slots);
}

int decoder_memory_put(struct decoder_memory *m, int i, const uint8_t *bytes, size_t n)
{
    int rc = file_grow(m, i, n);

    if (rc == 0)
        memcpy(m->files[i].at, bytes, n);
    return rc;
}

void decoder_memory_shrink(struct decoder_memory *m, int i)
{
    struct decoder_file *f = &m->files[i];

    if (f->bytes <= KEEP_FILE_BYTES)
        return;
    (void)fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, file_at(m, i) + (off_t)KEEP_FILE_BYTES,
                    (off_t)(f->bytes - KEEP_FILE_BYTES));
    (void)munmap(f->at + KEEP_FILE_BYTES, f->bytes - KEEP_FILE_BYTES);
    f->bytes = KEEP_FILE_BYTES;
}

/* Takes the slot that was freed last: it is most likely in the cache. */
struct decoder_slot *decoder_slot_take(struct decoder_memory *m)
{
    struct decoder_slot *s;

    (void)pthread_mutex_lock(&m->lock);
    s = m->first_free;
    if (s)
        m->first_free = s->next_free;
    (void)pthread_mutex_unlock(&m->lock);
    if (s && !s->has_pages)
        s->has_pages = fallocate(m->fd, FALLOC_FL_KEEP_SIZE, (off_t)(s->pixels - m->pixels),
                                 (off_t)decoder_slot_at(&m->layout, 1)) == 0;
    if (!s || s->has_pages)
        return s;
    decoder_slot_free(s);
    return NULL;
}

void decoder_slot_free(struct decoder_slot *slot)
{
    struct decoder_memory *m;

    if (!slot)
        return;
    m = slot->owner;
    (void)pthread_mutex_lock(&m->lock);
    slot->next_free = m->first_free;
    m->first_free = slot;
    (void)pthread_mutex_unlock(&m->lock);
}

uint32_t decoder_slot_number(const struct decoder_slot *slot)
{
    return (uint32_t)(slot - slot->owner->slots);
}
