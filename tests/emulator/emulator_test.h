/* emulator_test.h - what the tests of the emulator share. Each is a program of its own, linked with the emulator.
 *
 * Who may call: tests/emulator/test_*.cc, each once. */
#ifndef BLIPLINE_TESTS_EMULATOR_EMULATOR_TEST_H
#define BLIPLINE_TESTS_EMULATOR_EMULATOR_TEST_H

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/ptx.cuh"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#include "stream.h"

extern "C" void emulator_fail_next(int cuda_error);

/* what the emulated launch.cuh wants of the back end */
int cuda_status(struct cuda_ops *, cudaError_t e, const char *)
{
    return e == cudaSuccess ? 0 : -EIO;
}

static struct cuda_ops rig;

static int setup(void **)
{
    emulator_eager = 0;
    assert_int_equal(cudaStreamCreateWithFlags(&rig.stream, cudaStreamNonBlocking), 0);
    assert_int_equal(cudaStreamCreateWithFlags(&rig.upload_stream, cudaStreamNonBlocking), 0);
    return 0;
}

template <typename T> static T *device(size_t n)
{
    T *d = NULL;

    assert_int_equal(cudaMalloc((void **)&d, n * sizeof(T)), 0);
    return d;
}

template <typename T> static void put(T *d, const T *x, size_t n)
{
    assert_int_equal(cudaMemcpyAsync(d, x, n * sizeof(T), cudaMemcpyHostToDevice, rig.stream), 0);
}

template <typename T> static void take(T *x, const T *d, size_t n)
{
    assert_int_equal(cudaMemcpyAsync(x, d, n * sizeof(T), cudaMemcpyDeviceToHost, rig.stream), 0);
}

/* What the child writes to stderr before it dies; "" where it lives. */
static inline const char *death(void (*f)(void))
{
    static char text[4000];
    int p[2], status;
    size_t n = 0;

    assert_int_equal(pipe(p), 0);
    const pid_t pid = fork();
    if (!pid) {
        dup2(p[1], 2);
        close(p[0]);
        close(p[1]);
        for (int s : {SIGSEGV, SIGBUS, SIGABRT})
            signal(s, SIG_DFL);
        f();
        _exit(0);
    }
    close(p[1]);
    for (ssize_t got; n < sizeof(text) - 1 && (got = read(p[0], text + n, sizeof(text) - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(p[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && !n)
        return "";
    assert_true(WIFSIGNALED(status));
    return n ? text : strsignal(WTERMSIG(status));
}

static inline void assert_says(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("\"%s\" does not say \"%s\"", text, what);
}

#endif
