/* decoder_process.c - the decoder process: reads bytes, writes pixels, and can reach nothing else. */
#include "encoder_worker/decoder.h"

#include "base/clock.h"
#include "encoder_worker/decoder_talk.h"
#include "encoder_worker/resize.h"
#include "encoder_worker/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

struct process {
    struct decoder_setup setup;
    struct decoder_request request, next; /* next.n_bytes 0: no early request */
    uint8_t *pixels;
    struct decoder_file files[DECODER_DEPTH];
    struct resize *resize;
    struct picture picture;
};

/* Reads a message. Exits if the encoder has closed the socket. */
static void hear(void *message, size_t n)
{
    if (read(DECODER_SOCKET, message, n) != (ssize_t)n)
        _exit(EXIT_SUCCESS);
}

static void say(const struct decoder_answer *a)
{
    if (write(DECODER_SOCKET, a, sizeof(*a)) != (ssize_t)sizeof(*a))
        _exit(EXIT_SUCCESS);
}

static void hear_request(struct process *p)
{
    if (p->next.n_bytes)
        p->request = p->next;
    else
        hear(&p->request, sizeof(p->request));
    p->next.n_bytes = 0;
}

/* The next request may arrive first. */
static void wait_for_turn(void *arg)
{
    struct process *p = arg;
    struct decoder_request r;

    say(&(struct decoder_answer){.kind = DECODER_GIANT, .serial = p->request.serial});
    for (hear(&r, sizeof(r)); r.serial != p->request.serial; hear(&r, sizeof(r)))
        p->next = r;
}

/* Maps the file's bytes, growing the mapping if needed; NULL if out of memory. */
static const uint8_t *file_of(struct process *p)
{
    const int i = (int)(p->request.serial % DECODER_DEPTH);
    struct decoder_file *f = &p->files[i];
    void *at;

    if (p->request.n_bytes <= f->bytes)
        return f->at;
    at = mmap(NULL, p->request.n_bytes, PROT_READ, MAP_SHARED, DECODER_MEMORY,
              (off_t)decoder_file_at(&p->setup.layout, i));
    if (at == MAP_FAILED)
        return NULL;
    if (f->at)
        (void)munmap(f->at, f->bytes);
    *f = (struct decoder_file){.at = at, .bytes = p->request.n_bytes};
    return f->at;
}

static int map_pixels(struct process *p)
{
    void *at = mmap(NULL, decoder_file_at(&p->setup.layout, 0), PROT_READ | PROT_WRITE, MAP_SHARED, DECODER_MEMORY, 0);

    if (at == MAP_FAILED)
        return -errno;
    p->pixels = at;
    return 0;
}

static void decode(struct process *p, struct decoder_answer *ret)
{
    const uint32_t side = p->setup.layout.size_px;
    uint8_t *slot = p->pixels + decoder_slot_at(&p->setup.layout, p->request.slot);
    const uint8_t *bytes = file_of(p);
    int64_t t0 = clock_mono_ns(), t1;

    ret->code = IMAGE_NO_MEMORY;
    if (!bytes)
        return;
    ret->code = decode_picture(bytes, p->request.n_bytes, &p->setup.options, &p->picture, &ret->message);
    ret->width = p->picture.width;
    ret->height = p->picture.height;
    t1 = clock_mono_ns();
    ret->decode_ns = t1 - t0;
    if (ret->code == IMAGE_OK && resize_rgb(p->resize, p->picture.rgb, ret->width, ret->height, slot, side, side) < 0)
        ret->code = IMAGE_NO_MEMORY;
    ret->resize_ns = clock_mono_ns() - t1;
    picture_done(&p->picture);
}

bool decoder_is_asked_for(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[1], DECODER_ARGUMENT) == 0;
}

int decoder_serve(void)
{
    struct process p = {0};
    struct decoder_answer ready = {.kind = DECODER_READY};
    sigset_t late;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the encoder has already exited, its end of the socket is closed */
    (void)prctl(PR_SET_NAME, "decoder");
    (void)sigemptyset(&late);
    (void)sigaddset(&late, SIGXCPU);
    (void)sigprocmask(SIG_UNBLOCK, &late, NULL); /* the encoder has blocked it */
    hear(&p.setup, sizeof(p.setup));
    picture_init(&p.picture, &(struct picture_turn){.wait = wait_for_turn, .arg = &p});
    if (resize_new(&p.resize) < 0 || map_pixels(&p) < 0)
        return EXIT_FAILURE;
    sandbox_enter(p.setup.memory_bytes, &ready.message);
    say(&ready);
    for (;;) {
        struct decoder_answer done = {.kind = DECODER_DONE};

        hear_request(&p);
        decode(&p, &done);
        done.serial = p.request.serial;
        say(&done);
    }
}
