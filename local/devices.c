#include "local/devices.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/file.h"

#define LIBRARY "libblipline-cuda.so"

/* -- detection -- */

/* The value of a line "Name:   value" of a file in /proc, without surrounding blanks; "" if there is none. */
static void field_of(const char *path, const char *name, char *ret, size_t size)
{
    FILE *f = fopen(path, "re");
    char line[4096];

    ret[0] = '\0';
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':'), *end = line + strlen(line);

        if (strncmp(line, name, strlen(name)) != 0 || !colon)
            continue;
        if (strspn(line + strlen(name), " \t") != (size_t)(colon - line) - strlen(name))
            continue; /* a longer name */
        while (end > colon + 1 && isspace((unsigned char)end[-1]))
            *--end = '\0';
        (void)snprintf(ret, size, "%.*s", (int)size - 1, colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (f)
        (void)fclose(f);
}

/* The driver lists an unused GPU as GPU-????????-... */
static bool is_uuid(const char *text)
{
    return strncmp(text, "GPU-", 4) == 0 && text[4] && text[strspn(text, "GPU-0123456789abcdefABCDEF")] == '\0';
}

static bool read_gpu(const char *driver, const char *bus, struct device_gpu *ret)
{
    char path[PATH_MAX], excluded[8];

    *ret = (struct device_gpu){0};
    if (snprintf(path, sizeof(path), "%s/gpus/%s/information", driver, bus) >= (int)sizeof(path) ||
        access(path, R_OK) < 0)
        return false;
    field_of(path, "GPU Excluded", excluded, sizeof(excluded));
    if (strcmp(excluded, "Yes") == 0)
        return false;
    field_of(path, "GPU UUID", ret->uuid, sizeof(ret->uuid));
    if (!is_uuid(ret->uuid))
        ret->uuid[0] = '\0';
    field_of(path, "Model", ret->model, sizeof(ret->model));
    (void)snprintf(ret->bus, sizeof(ret->bus), "%.*s", (int)sizeof(ret->bus) - 1, bus);
    return true;
}

static int is_entry(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static void read_gpus(const char *driver, struct devices *ret)
{
    struct dirent **list = NULL;
    char path[PATH_MAX];
    int n;

    (void)snprintf(path, sizeof(path), "%s/gpus", driver);
    n = scandir(path, &list, is_entry, alphasort);
    for (int i = 0; i < n; i++) {
        if (ret->n_gpus < DEVICES_MAX && read_gpu(driver, list[i]->d_name, &ret->gpus[ret->n_gpus]))
            ret->n_gpus++;
        free(list[i]);
    }
    free(list);
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 ..." -> "550.54.15" */
static void read_driver(const char *driver, struct devices *ret)
{
    char path[PATH_MAX], line[256], *rest = line, *word;

    if (snprintf(path, sizeof(path), "%s/version", driver) >= (int)sizeof(path))
        return;
    field_of(path, "NVRM version", line, sizeof(line));
    while ((word = strsep(&rest, " ")))
        if (isdigit((unsigned char)*word) && strchr(word, '.')) {
            (void)snprintf(ret->driver, sizeof(ret->driver), "%.*s", (int)sizeof(ret->driver) - 1, word);
            return;
        }
}

/* CUDA uses the entries before the first invalid one. */
static int count_visible(const char *visible)
{
    int n = 0;

    for (const char *p = visible; p && *p; p += strcspn(p, ","), p += *p == ',') {
        p += strspn(p, " ");
        if (!isdigit((unsigned char)*p) && strncmp(p, "GPU-", 4) != 0 && strncmp(p, "MIG-", 4) != 0)
            break;
        n++;
    }
    return visible ? n : -1;
}

static void find_library(const struct devices_places *p, struct devices *ret)
{
    static const char *const places[] = {"/" LIBRARY, "/../lib/blipline/" LIBRARY};
    char path[PATH_MAX];

    if (p->library) {
        (void)snprintf(ret->library_places, sizeof(ret->library_places), "%s", p->library);
        if (access(p->library, R_OK) == 0)
            (void)snprintf(ret->library, sizeof(ret->library), "%s", p->library);
        return;
    }
    (void)snprintf(ret->library_places, sizeof(ret->library_places), "in %s or %s/../lib/blipline", p->program_dir,
                   p->program_dir);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && !ret->library[0]; i++)
        if (snprintf(path, sizeof(path), "%s%s", p->program_dir, places[i]) < (int)sizeof(path) &&
            access(path, R_OK) == 0)
            memcpy(ret->library, path, sizeof(path));
}

/* -- the processor -- */

static void read_isa(const char *cpuinfo, char *ret, size_t size)
{
    static const struct {
        const char *flag, *name;
    } known[] = {{"avx2", "avx2"}, {"avx512f", "avx512"}, {"avx512_bf16", "avx512_bf16"}, {"amx_bf16", "amx_bf16"}};
    char flags[4096], *rest = flags, *word;
    size_t used = 0;
    bool has[sizeof(known) / sizeof(known[0])] = {false};

    field_of(cpuinfo, "flags", flags, sizeof(flags));
    while ((word = strsep(&rest, " ")))
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            has[i] |= strcmp(word, known[i].flag) == 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (has[i] && used < size)
            used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? " " : "", known[i].name);
}

static void read_cpu(const char *cpuinfo, struct devices *ret)
{
    cpu_set_t set;

    field_of(cpuinfo, "model name", ret->cpu, sizeof(ret->cpu));
    read_isa(cpuinfo, ret->isa, sizeof(ret->isa));
    ret->n_threads = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    if (ret->n_threads < 1 || ret->n_threads > DEVICES_MAX_THREADS)
        ret->n_threads = ret->n_threads < 1 ? 1 : DEVICES_MAX_THREADS;
}

/* The limit of a container counts if it is lower. */
static double memory_bytes(void)
{
    struct sysinfo info;
    char text[64] = "";
    double total, limit;
    FILE *f;

    if (sysinfo(&info) < 0)
        return HUGE_VAL;
    total = (double)info.totalram * info.mem_unit;
    f = fopen("/sys/fs/cgroup/memory.max", "re");
    if (f && fgets(text, sizeof(text), f) && (limit = strtod(text, NULL)) > 0 && limit < total)
        total = limit;
    if (f)
        (void)fclose(f);
    return total + (double)info.totalswap * info.mem_unit;
}

void devices_find_at(const struct devices_places *p, struct devices *ret)
{
    char path[PATH_MAX];

    *ret = (struct devices){.n_visible = count_visible(p->visible)};
    read_driver(p->driver, ret);
    read_gpus(p->driver, ret);
    ret->is_elsewhere = access(p->host, F_OK) == 0;
    find_library(p, ret);
    ret->has_mps =
        snprintf(path, sizeof(path), "%s/control", p->mps_pipe_dir) < (int)sizeof(path) && access(path, F_OK) == 0;
    read_cpu(p->cpuinfo, ret);
    ret->memory_bytes = memory_bytes();
}

void devices_find(const char *cuda_library, struct devices *ret)
{
    const char *pipe_dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char dir[PATH_MAX];
    struct devices_places p = {.driver = "/proc/driver/nvidia",
                               .cpuinfo = "/proc/cpuinfo",
                               .host = "/dev/dxg",
                               .program_dir = dir,
                               .library = cuda_library,
                               .visible = getenv("CUDA_VISIBLE_DEVICES"),
                               .mps_pipe_dir = pipe_dir && *pipe_dir ? pipe_dir : "/tmp/nvidia-mps"};

    if (file_program_folder(dir, NULL) < 0)
        dir[0] = '\0';
    devices_find_at(&p, ret);
}

/* -- choosing -- */

static int choose_auto(const struct devices *have, struct device_choice *ret)
{
    int n = have->n_visible >= 0 && have->n_visible < have->n_gpus ? have->n_visible : have->n_gpus;

    *ret = (struct device_choice){.kind = DEVICE_CPU, .n = 1, .names = {"cpu"}};
    if (n > 0 && have->library[0]) {
        ret->kind = DEVICE_CUDA;
        ret->n = n;
        for (int i = 0; i < n; i++)
            if (have->n_visible < 0 && have->gpus[i].uuid[0])
                memcpy(ret->names[i], have->gpus[i].uuid, DEVICE_NAME_SIZE);
            else
                (void)snprintf(ret->names[i], DEVICE_NAME_SIZE, "cuda:%d", i);
        return 0;
    }
    if (n > 0)
        (void)snprintf(ret->note, sizeof(ret->note),
                       "computing on the CPU: there %s %d GPU%s (%s), but no " LIBRARY
                       " %.300s; run `make` with the CUDA toolkit installed",
                       n > 1 ? "are" : "is", n, n > 1 ? "s" : "", have->gpus[0].model, have->library_places);
    else if (have->library[0])
        (void)snprintf(ret->note, sizeof(ret->note), "computing on the CPU: %s",
                       have->n_gpus         ? "CUDA_VISIBLE_DEVICES hides every GPU"
                       : have->driver[0]    ? "NVIDIA's driver is loaded, but lists no GPU"
                       : have->is_elsewhere ? "GPUs cannot be detected here (try --device cuda:0)"
                                            : "there is no GPU here, or NVIDIA's driver is not loaded");
    return 0;
}

/* "cuda:N" -> N; -1 for another name. */
static long ordinal_of(const char *name)
{
    char *end;
    long n;

    if (strncmp(name, "cuda:", 5) != 0 || !isdigit((unsigned char)name[5]))
        return -1;
    n = strtol(name + 5, &end, 10);
    return *end || n > 1023 ? -1 : n;
}

/* Checks what can be known without CUDA; the worker checks the rest. */
static int check_gpu(const struct devices *have, const char *name, struct err *err)
{
    long n = ordinal_of(name);
    int n_visible = have->n_visible >= 0 ? have->n_visible : have->n_gpus;
    bool known = false, all_known = true;

    if (have->is_elsewhere && have->n_gpus == 0)
        return 0;
    if (have->n_gpus == 0)
        return err_set(
            err, -ENODEV,
            "--device %s: there is no GPU here, or NVIDIA's driver is not loaded; use --device cpu (blipline "
            "devices lists what there is)",
            name);
    if (n >= n_visible)
        return err_set(err, -ENODEV, "--device %s: %s%d GPU%s, counted from 0 (blipline devices lists them)", name,
                       have->n_visible >= 0 ? "CUDA_VISIBLE_DEVICES shows " : "this machine has ", n_visible,
                       n_visible == 1 ? "" : "s");
    for (int i = 0; i < have->n_gpus; i++) {
        known |= strcasecmp(have->gpus[i].uuid, name) == 0;
        all_known &= have->gpus[i].uuid[0] != '\0';
    }
    if (n < 0 && !known && all_known)
        return err_set(err, -ENODEV, "--device %s: this machine has no such GPU (blipline devices lists them)", name);
    return 0;
}

static int add_gpu(const char *name, struct device_choice *ret, struct err *err)
{
    if (ordinal_of(name) < 0 && !is_uuid(name))
        return err_set(err, -EDOM,
                       "--device %.60s: not a device: auto, cpu, null, or GPUs (cuda:N, or GPU-... as blipline devices "
                       "lists them) with commas between them",
                       name);
    if (ret->n == DEVICES_MAX || strlen(name) >= DEVICE_NAME_SIZE)
        return err_set(err, -EDOM, "--device: more than %d GPUs, or too long a name", DEVICES_MAX);
    for (int i = 0; i < ret->n; i++)
        if (strcasecmp(ret->names[i], name) == 0)
            return err_set(err, -EDOM, "--device: %s twice", name);
    (void)snprintf(ret->names[ret->n++], DEVICE_NAME_SIZE, "%s", name);
    return 0;
}

static int choose_gpus(const struct devices *have, const char *list, const char *cuda_library,
                       struct device_choice *ret, struct err *err)
{
    char words[DEVICES_MAX * DEVICE_NAME_SIZE + 64], *rest = words, *word;
    int rc = 0;

    *ret = (struct device_choice){.kind = DEVICE_CUDA};
    if (snprintf(words, sizeof(words), "%s", list) >= (int)sizeof(words))
        return err_set(err, -EDOM, "--device: the list is too long");
    while (rc == 0 && (word = strsep(&rest, ",")))
        rc = add_gpu(word, ret, err);
    if (rc == 0 && !have->library[0])
        rc = err_set(err, -ENOTSUP,
                     "--device %.60s: there are no CUDA operators (no " LIBRARY " %.300s): use --device cpu, or build "
                     "with the CUDA toolkit installed",
                     list, have->library_places);
    for (int i = 0; rc == 0 && !cuda_library && i < ret->n; i++)
        rc = check_gpu(have, ret->names[i], err);
    return rc;
}

int devices_choose(const struct devices *have, const char *list, const char *cuda_library, struct device_choice *ret,
                   struct err *err)
{
    struct device_choice chosen;
    int rc = 0;

    if (strcmp(list, "auto") == 0)
        rc = choose_auto(have, &chosen);
    else if (strcmp(list, "null") == 0)
        chosen = (struct device_choice){.kind = DEVICE_NULL, .n = 1, .names = {"null"}};
    else if (strcmp(list, "cpu") == 0)
        chosen = (struct device_choice){.kind = DEVICE_CPU, .n = 1, .names = {"cpu"}};
    else
        rc = choose_gpus(have, list, cuda_library, &chosen, err);
    if (rc == 0 && chosen.kind == DEVICE_CUDA && cuda_library && !realpath(cuda_library, chosen.library))
        rc = err_set(err, -errno, "--cuda-library %s: %s", cuda_library, strerror(errno));
    if (rc == 0)
        *ret = chosen;
    return rc;
}

int devices_choose_isa(const char *name, enum cpu_isa *ret, struct err *err)
{
    int rc = cpu_isa_choose(name, ret, NULL);

    return rc < 0 ? err_set(err, rc, "--cpu-isa %s: this processor lacks it; its best is %s", name,
                            cpu_isa_name(cpu_isa_resolve(CPU_ISA_AUTO)))
                  : 0;
}
