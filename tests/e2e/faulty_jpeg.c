/* faulty_jpeg.c - a library to preload: a JPEG whose bytes hold "FAULT:" and a word makes its decoder do that.
 *
 * crash, abort, exit, kill (as the kernel does when memory runs out), hang, spin, nonsense (the encoder gets an
 * answer of the wrong size), escape (try what a decoder may not do: whatever succeeds ends it with exit code 66, else
 * the picture is decoded). With NO_SECCOMP in the environment this is a system without that. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <jpeglib.h>
#include <seccomp.h>

static void hang(void)
{
    sem_t never;

    (void)sem_init(&never, 0, 0);
    for (;;)
        (void)sem_wait(&never);
}

static bool escapes(void)
{
    return open("/dev/null", O_RDONLY) >= 0 || socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || fork() >= 0 ||
           kill(getppid(), 0) == 0 || execl("/bin/true", "true", NULL) == 0 || ftruncate(1, 0) == 0 ||
           mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED || dup(0) >= 0;
}

static void misbehave(const char *how)
{
    static const char nonsense[16384];
    static volatile int *volatile nowhere;

    if (strncmp(how, "crash", 5) == 0)
        *nowhere = 1;
    else if (strncmp(how, "abort", 5) == 0)
        abort();
    else if (strncmp(how, "exit", 4) == 0)
        _exit(3);
    else if (strncmp(how, "kill", 4) == 0)
        (void)syscall(SYS_tgkill, getpid(), gettid(), SIGKILL);
    else if (strncmp(how, "hang", 4) == 0)
        hang();
    else if (strncmp(how, "nonsense", 8) == 0)
        (void)!write(0, nonsense, sizeof(nonsense));
    else if (strncmp(how, "escape", 6) == 0 && escapes())
        _exit(66);
    while (strncmp(how, "spin", 4) == 0)
        ;
}

__attribute__((visibility("default"))) int seccomp_load(const scmp_filter_ctx filter)
{
    int (*real)(scmp_filter_ctx) = (int (*)(scmp_filter_ctx))dlsym(RTLD_NEXT, "seccomp_load");

    return getenv("NO_SECCOMP") ? -EINVAL : real(filter);
}

__attribute__((visibility("default"))) int jpeg_read_header(j_decompress_ptr c, boolean require_image)
{
    int (*real)(j_decompress_ptr, boolean) = (int (*)(j_decompress_ptr, boolean))dlsym(RTLD_NEXT, "jpeg_read_header");
    const char *at = memmem(c->src->next_input_byte, c->src->bytes_in_buffer, "FAULT:", 6);

    if (at)
        misbehave(at + 6);
    return real(c, require_image);
}
