#include "encoder_worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HAS_SANITIZER = 1 };
#else
enum { HAS_SANITIZER = 0 };
#endif

/* Makes the kernel kill this process first if memory runs out: its image is retried and nothing else is lost. */
static void offer_to_die(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!write(fd, "1000", 4);
    (void)close(fd);
}

/* Bytes that count towards RLIMIT_DATA. */
static uint64_t data_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    uint64_t pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*u %*u %*u %*u %*u %" SCNu64, &pages) != 1)
        pages = 0;
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit(int what, uint64_t value)
{
    const struct rlimit r = {.rlim_cur = value, .rlim_max = value};

    return setrlimit((__rlimit_resource_t)what, &r) < 0 ? -errno : 0;
}

static int limit_resources(uint64_t memory_bytes)
{
    int rc = limit(RLIMIT_DATA, data_bytes() + memory_bytes);

    if (rc == 0)
        rc = limit(RLIMIT_CORE, 0);
    if (rc == 0)
        rc = limit(RLIMIT_FSIZE, 0);
    if (rc == 0)
        rc = limit(RLIMIT_NPROC, 0);
    return rc < 0 ? rc : limit(RLIMIT_NOFILE, 2); /* the open ones */
}

/* Allows the calls that a decoder and the C library need. */
static int add_calls(scmp_filter_ctx filter)
{
    static const int calls[] = {
        SCMP_SYS(brk),           SCMP_SYS(munmap),          SCMP_SYS(mremap),
        SCMP_SYS(madvise),       SCMP_SYS(futex),           SCMP_SYS(exit),
        SCMP_SYS(exit_group),    SCMP_SYS(rt_sigreturn),    SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall), SCMP_SYS(getpid),
        SCMP_SYS(gettid),        SCMP_SYS(sched_yield),     SCMP_SYS(getrandom),
        SCMP_SYS(sysinfo),
    };
    const struct scmp_arg_cmp socket = SCMP_A0(SCMP_CMP_EQ, 0), self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()),
                              no_code = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(calls) / sizeof(calls[0]); i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(read), 1, socket);
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, socket);
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, no_code);
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, no_code);
    return rc < 0 ? rc : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, self); /* abort() */
}

/* Other calls fail instead of killing the process: a C library may try a call and continue without it. */
static int filter_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int rc;

    if (!filter)
        return -ENOMEM;
    /* The process has no secrets to protect from speculative reads, and on older kernels the protection is slow. */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    rc = add_calls(filter);
    if (rc == 0)
        rc = seccomp_load(filter);
    seccomp_release(filter);
    return rc;
}

void sandbox_enter(uint64_t memory_bytes, struct err *ret_missing)
{
    int limits = 0, filter = 0;

    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!HAS_SANITIZER) {
        offer_to_die();
        closefrom(2);
        limits = limit_resources(memory_bytes);
        filter = filter_calls();
    }
    (void)snprintf(ret_missing->text, sizeof(ret_missing->text), "%s%s%s%s%s",
                   limits < 0 ? "limits of memory and files: " : "", limits < 0 ? strerror(-limits) : "",
                   limits < 0 && filter < 0 ? "; " : "", filter < 0 ? "a filter of system calls: " : "",
                   filter < 0 ? strerror(-filter) : "");
}
