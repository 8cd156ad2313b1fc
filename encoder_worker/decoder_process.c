/* decoder_process.c - what runs in a decoder: bytes in, pixels out, and nothing else within reach. */
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
    struct decoder_request request;
    uint8_t *shared;
    size_t shared_bytes;
    struct resize *resize;
    struct picture picture;
};

/* The encoder has gone, or has had enough of us: there is nobody to tell. */
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

static void wait_for_turn(void *arg)
{
    struct process *p = arg;

    say(&(struct decoder_answer){.kind = DECODER_GIANT, .serial = p->request.serial});
    hear(&p->request, sizeof(p->request));
}

/* The memory has grown with the file. */
static int reach(struct process *p, size_t bytes)
{
    void *at;

    if (bytes <= p->shared_bytes)
        return 0;
    if (p->shared)
        (void)munmap(p->shared, p->shared_bytes);
    p->shared = NULL;
    p->shared_bytes = 0;
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, DECODER_MEMORY, 0);
    if (at == MAP_FAILED)
        return -errno;
    p->shared = at;
    p->shared_bytes = bytes;
    return 0;
}

static void decode(struct process *p, struct decoder_answer *ret)
{
    const uint32_t side = p->setup.size_px;
    const size_t bytes_at = decoder_bytes_at(side, p->setup.n_slots), slot_at = decoder_slot_at(side, p->request.slot);
    int64_t t0;

    ret->code = IMAGE_NO_MEMORY;
    if (reach(p, bytes_at + p->request.n_bytes) < 0)
        return;
    ret->code = decode_picture(p->shared + bytes_at, p->request.n_bytes, &p->setup.options, &p->picture, &ret->message);
    ret->width = p->picture.width;
    ret->height = p->picture.height;
    t0 = clock_mono_ns();
    if (ret->code == IMAGE_OK &&
        resize_rgb(p->resize, p->picture.rgb, ret->width, ret->height, p->shared + slot_at, side, side) < 0)
        ret->code = IMAGE_NO_MEMORY;
    ret->resize_ns = clock_mono_ns() - t0;
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

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* where the encoder is gone already, its end of the socket is too */
    (void)prctl(PR_SET_NAME, "decoder");
    (void)sigemptyset(&late);
    (void)sigaddset(&late, SIGXCPU);
    (void)sigprocmask(SIG_UNBLOCK, &late, NULL); /* the encoder has blocked it for itself */
    hear(&p.setup, sizeof(p.setup));
    picture_init(&p.picture, &(struct picture_turn){.wait = wait_for_turn, .arg = &p});
    if (resize_new(&p.resize) < 0)
        return EXIT_FAILURE;
    sandbox_enter(p.setup.memory_bytes, &ready.message);
    say(&ready);
    for (;;) {
        struct decoder_answer done = {.kind = DECODER_DONE};

        hear(&p.request, sizeof(p.request));
        decode(&p, &done);
        done.serial = p.request.serial;
        say(&done);
    }
}
