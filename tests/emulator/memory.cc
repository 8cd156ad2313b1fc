#include "emulator.h"

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>

/* Device memory and pinned memory: a range of addresses each, never used twice. An allocation ends (rounded up to 256
 * bytes) where a page begins that nobody may touch; the bytes around it are known and checked. What is not allocated is
 * mapped from an empty file, so that one mprotect over the range opens and closes what is, and the rest stays
 * forbidden. */

enum { PAGE = 4096, ALIGNMENT = 256, POISON = 0xff };
static const size_t RANGE_BYTES = (size_t)1 << 40;
static const size_t DEVICE_BYTES = (size_t)16 << 30, POISON_BYTES = 16 << 20;

struct allocation {
    size_t n_bytes;
    unsigned char *pages;
    size_t page_bytes;
};

struct range {
    const char *name;
    bool always_open;
    unsigned char *start, *top;
    size_t used_bytes;
    std::map<unsigned char *, allocation> allocations;
};

static struct range device = {"device memory", false, NULL, NULL, 0, {}};
static struct range pinned = {"pinned memory", true, NULL, NULL, 0, {}};
static std::map<unsigned char *, size_t> registered; /* cudaHostRegister */
static int n_open;
static bool accessible;  /* device memory, at this moment */
static int nothing = -1; /* the empty file */
static int poison = -1;  /* a file of POISON_BYTES of POISON */

static bool make_files(void)
{
    unsigned char *p;

    if (poison >= 0)
        return true;
    nothing = memfd_create("nothing", MFD_CLOEXEC);
    poison = memfd_create("poison", MFD_CLOEXEC);
    if (nothing < 0 || poison < 0 || ftruncate(poison, POISON_BYTES) < 0)
        return false;
    p = (unsigned char *)mmap(NULL, POISON_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, poison, 0);
    if (p == MAP_FAILED)
        return false;
    memset(p, POISON, POISON_BYTES);
    munmap(p, POISON_BYTES);
    return true;
}

/* Memory that holds POISON and takes no room until it is written. */
static bool map_poison(unsigned char *pages, size_t n_bytes, int access)
{
    for (size_t i = 0; i < n_bytes; i += POISON_BYTES)
        if (mmap(pages + i, std::min(POISON_BYTES, n_bytes - i), access, MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE,
                 poison, 0) == MAP_FAILED)
            return false;
    return true;
}

static bool reserve(struct range *r)
{
    void *p;

    if (r->start)
        return true;
    if (!make_files())
        return false;
    p = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_SHARED | MAP_NORESERVE, nothing, 0);
    if (p == MAP_FAILED)
        return false;
    r->start = r->top = (unsigned char *)p;
    return true;
}

static bool contains(const struct range *r, const void *p)
{
    return r->start && p >= r->start && p < r->top;
}

static cudaError_t allocate(struct range *r, size_t n_bytes, void **ret)
{
    const size_t rounded = (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const size_t page_bytes = (rounded + PAGE - 1) / PAGE * PAGE;
    const int access = r->always_open || accessible ? PROT_READ | PROT_WRITE : PROT_NONE;
    unsigned char *pages, *at;

    *ret = NULL;
    if (!n_bytes)
        return cudaSuccess;
    if (n_bytes > DEVICE_BYTES || r->used_bytes + page_bytes > DEVICE_BYTES || !reserve(r))
        return cudaErrorMemoryAllocation;
    pages = r->top;
    if (pages + page_bytes + PAGE > r->start + RANGE_BYTES)
        return cudaErrorMemoryAllocation;
    if (!map_poison(pages, page_bytes, access))
        return cudaErrorMemoryAllocation;
    r->top = pages + page_bytes + PAGE;
    r->used_bytes += page_bytes;
    at = pages + page_bytes - rounded;
    r->allocations[at] = {n_bytes, pages, page_bytes};
    *ret = at;
    return cudaSuccess;
}

/* Bytes start .. end - 1 belong to nobody; `of`: the allocation beside them. */
static void check_bytes(const struct range *r, const unsigned char *start, const unsigned char *end,
                        const unsigned char *of, size_t n_bytes)
{
    static unsigned char same[PAGE];

    if (!same[0])
        memset(same, POISON, sizeof(same));
    if (!memcmp(start, same, (size_t)(end - start)))
        return;
    while (*start == POISON)
        start++;
    emulator_fail("%s: a write at %p, %td bytes from the start of the %zu bytes at %p", r->name, (void *)start,
                  start - of, n_bytes, (void *)of);
}

static void check(const struct range *r, const unsigned char *at, const allocation &a)
{
    check_bytes(r, at + a.n_bytes, a.pages + a.page_bytes, at, a.n_bytes);
    check_bytes(r, a.pages, at, at, a.n_bytes);
}

static cudaError_t release(struct range *r, void *p)
{
    auto i = r->allocations.find((unsigned char *)p);

    if (!p)
        return cudaSuccess;
    if (i == r->allocations.end())
        return cudaErrorInvalidValue;
    mprotect(i->second.pages, i->second.page_bytes, PROT_READ);
    check(r, i->first, i->second);
    mmap(i->second.pages, i->second.page_bytes, r->always_open || accessible ? PROT_READ | PROT_WRITE : PROT_NONE,
         MAP_FIXED | MAP_SHARED | MAP_NORESERVE, nothing, i->second.pages - r->start);
    r->used_bytes -= i->second.page_bytes;
    r->allocations.erase(i);
    return cudaSuccess;
}

enum emulator_place emulator_place_of(const void *p)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    if (contains(&device, p))
        return EMULATOR_DEVICE;
    if (contains(&pinned, p))
        return EMULATOR_PINNED;
    auto i = registered.upper_bound((unsigned char *)p);
    if (i != registered.begin() && (--i, (unsigned char *)p < i->first + i->second))
        return EMULATOR_PINNED;
    return EMULATOR_PAGEABLE;
}

void emulator_memory_describe(const void *p, char *text, size_t n)
{
    const struct range *r = contains(&device, p) ? &device : contains(&pinned, p) ? &pinned : NULL;

    if (!r) {
        snprintf(text, n, "%p, which is not memory of the device", p);
        return;
    }
    auto after = r->allocations.upper_bound((unsigned char *)p);
    if (after != r->allocations.begin()) {
        auto before = std::prev(after);
        const size_t offset = (size_t)((const unsigned char *)p - before->first);

        if (offset < before->second.n_bytes || offset < before->second.n_bytes + 16 * PAGE) {
            snprintf(text, n, "%p: %s, %zd bytes from the end of the %zu bytes at %p", p, r->name,
                     (ssize_t)(offset - before->second.n_bytes), before->second.n_bytes, (void *)before->first);
            return;
        }
    }
    snprintf(text, n, "%p: %s that is free or was never allocated", p, r->name);
}

/* -- while queued work runs -- */

static struct sigaction before_segv, before_bus;
static unsigned char signal_stack[64 * 1024];

static void fault(int signal, siginfo_t *info, void *)
{
    char where[200], text[300];

    emulator_memory_describe(info->si_addr, where, sizeof(where));
    snprintf(text, sizeof(text), "%s at %s (far from any memory: the thread's stack may have overflowed)",
             signal == SIGBUS ? "bus error" : "segmentation fault", where);
    if (emulator_place_of(info->si_addr) != EMULATOR_PAGEABLE)
        *strrchr(text, '(') = 0;
    emulator_describe(text);
    abort();
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* It takes the longer the more memory has been used; where it took too much of the time, memory stays open. */
static void set_accessible(bool yes)
{
    static double first, spent;
    const double start = now_s();

    if (!device.start || yes == accessible)
        return;
    if (first == 0)
        first = start;
    if (!yes && spent > 0.5 + 0.1 * (start - first))
        return;
    mprotect(device.start, (size_t)(device.top - device.start), yes ? PROT_READ | PROT_WRITE : PROT_NONE);
    accessible = yes;
    spent += now_s() - start;
}

void emulator_memory_open(void)
{
    struct sigaction action = {};
    const stack_t stack = {signal_stack, 0, sizeof(signal_stack)};

    if (n_open++)
        return;
    set_accessible(true);
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaltstack(&stack, NULL);
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
}

void emulator_memory_close(void)
{
    const stack_t none = {NULL, SS_DISABLE, 0};

    if (--n_open)
        return;
    for (const struct range *r : {&device, &pinned})
        for (const auto &i : r->allocations)
            check(r, i.first, i.second);
    set_accessible(false);
    sigaction(SIGSEGV, &before_segv, NULL);
    sigaction(SIGBUS, &before_bus, NULL);
    sigaltstack(&none, NULL);
}

/* -- static __shared__ variables: the thread-local variables of this object, see launch.cuh -- */

struct shared_range {
    void *start;
    size_t n_bytes;
};

static int find_own(struct dl_phdr_info *info, size_t, void *ret)
{
    const uintptr_t at = (uintptr_t)find_own - info->dlpi_addr;
    bool own = false;
    size_t tls_bytes = 0;

    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];

        if (h->p_type == PT_LOAD && at >= h->p_vaddr && at < h->p_vaddr + h->p_memsz)
            own = true;
        if (h->p_type == PT_TLS)
            tls_bytes = h->p_memsz;
    }
    if (own && info->dlpi_tls_data)
        *(struct shared_range *)ret = {info->dlpi_tls_data, tls_bytes};
    return own;
}

void *emulator_static_shared(size_t *ret_bytes)
{
    static thread_local volatile char one; /* that somebody touches: from then on they are there */
    struct shared_range r = {NULL, 0};

    one = one + 1;
    dl_iterate_phdr(find_own, &r);
    *ret_bytes = r.n_bytes;
    return r.start;
}

/* -- the runtime's functions -- */

cudaError_t cudaMalloc(void **ret, size_t n_bytes)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    return emulator_return(emulator_may_allocate() != cudaSuccess ? cudaErrorStreamCaptureUnsupported
                                                                  : allocate(&device, n_bytes, ret));
}

cudaError_t cudaFree(void *p)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    if (!p)
        return cudaSuccess;
    if (emulator_may_allocate() != cudaSuccess)
        return emulator_return(cudaErrorStreamCaptureUnsupported);
    emulator_finish_all();
    return emulator_return(release(&device, p));
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    *ret_total = DEVICE_BYTES;
    *ret_free = DEVICE_BYTES - device.used_bytes;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **ret, size_t n_bytes, unsigned)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    return emulator_return(emulator_may_allocate() != cudaSuccess ? cudaErrorStreamCaptureUnsupported
                                                                  : allocate(&pinned, n_bytes, ret));
}

cudaError_t cudaMallocHost(void **ret, size_t n_bytes)
{
    return cudaHostAlloc(ret, n_bytes, 0);
}

cudaError_t cudaFreeHost(void *p)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    if (!p)
        return cudaSuccess;
    emulator_finish_all();
    return emulator_return(release(&pinned, p));
}

cudaError_t cudaHostRegister(void *p, size_t n_bytes, unsigned)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    if (!p || !n_bytes || emulator_place_of(p) != EMULATOR_PAGEABLE)
        return emulator_return(cudaErrorInvalidValue);
    registered[(unsigned char *)p] = n_bytes;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *p)
{
    const std::lock_guard<std::recursive_mutex> guard(emulator_lock);

    emulator_finish_all();
    return emulator_return(registered.erase((unsigned char *)p) ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}
