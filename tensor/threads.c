#include "tensor/threads.h"

#include <stdlib.h>
#include <unistd.h>

void tensor_threads_prepare(char **argv)
{
    if (getenv("OMP_WAIT_POLICY"))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0)
        (void)execv("/proc/self/exe", argv);
}
