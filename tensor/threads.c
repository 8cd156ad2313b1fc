#include "tensor/threads.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

void tensor_threads_prepare(char **argv)
{
    char program[PATH_MAX]; /* its real name, which is what ps then shows */
    ssize_t n;

    if (getenv("GOMP_SPINCOUNT"))
        return;
    n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1) < 0 || setenv("GOMP_SPINCOUNT", "10000", 1) < 0)
        return;
    program[n] = '\0';
    (void)execv(program, argv);
}
