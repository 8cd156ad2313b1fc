/* bench_decode - how many pictures a second the encoder's pool fetches, decodes and resizes.
 *
 *     bench_decode [FOLDER [THREADS [SECONDS [SIDE]]]]   default: examples/images, 2, 5, 224
 *
 * The folder's files are read again and again. Printed: pictures a second, and the CPU time of a picture, start
 * and end of the processes included. */
#include "base/clock.h"
#include "encoder_worker/pool.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_FILES = 4096, CAPACITY = 128 };

static char *files[MAX_FILES];
static int n_files;

static void list_files(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;

    while (d && n_files < MAX_FILES && (e = readdir(d)))
        if (e->d_name[0] != '.' && asprintf(&files[n_files], "%s/%s", folder, e->d_name) > 0)
            n_files++;
    if (d)
        (void)closedir(d);
}

/* Of this process and those that have ended. */
static double cpu_s(void)
{
    static const __rusage_who_t whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    double s = 0;

    for (int i = 0; i < 2; i++) {
        struct rusage u;

        (void)getrusage(whose[i], &u);
        s += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    }
    return s;
}

/* Keep the pool full until the time is over; pictures that came out, failed ones with them. */
static uint64_t run(struct pool *p, double seconds, uint64_t *ret_failed)
{
    const int64_t until = clock_mono_ns() + (int64_t)(seconds * 1e9);
    uint64_t n_asked = 0, n_done = 0;
    struct pool_result r;

    while (n_asked < CAPACITY) {
        const char *path = files[n_asked % (uint64_t)n_files];

        if (pool_submit(p, n_asked, path, strlen(path)) < 0)
            exit(1);
        n_asked++;
    }
    while (pool_take(p, -1, &r) == 1) {
        const char *path = files[n_asked % (uint64_t)n_files];

        n_done++;
        *ret_failed += r.code != IMAGE_OK;
        decoder_slot_free(r.slot);
        if (clock_mono_ns() < until && pool_submit(p, n_asked++, path, strlen(path)) < 0)
            exit(1);
    }
    return n_done;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "examples/images";
    const int threads = argc > 2 ? atoi(argv[2]) : 2, side = argc > 4 ? atoi(argv[4]) : 224;
    const double seconds = argc > 3 ? atof(argv[3]) : 5;
    const struct pool_conf conf = {.n_threads = threads,
                                   .capacity = CAPACITY,
                                   .size_px = (uint32_t)side,
                                   .options = DECODE_OPTIONS_DEFAULT,
                                   .memory_bytes = 4ULL << 30,
                                   .time_ms = 60000};
    uint64_t n, n_warm, failed = 0;
    struct pool *p;
    struct err err;
    double began_s, took_s;

    if (decoder_is_asked_for(argc, argv))
        return decoder_serve();
    list_files(folder);
    if (n_files == 0 || pool_new(&conf, &p, &err) < 0) {
        (void)fprintf(stderr, "bench_decode: %s: %s\n", folder, n_files ? err.text : "no files");
        return 1;
    }
    n_warm = run(p, seconds / 10, &failed);
    began_s = (double)clock_mono_ns() / 1e9;
    failed = 0;
    n = run(p, seconds, &failed);
    took_s = (double)clock_mono_ns() / 1e9 - began_s;
    pool_free(p);
    printf("%s: %.1f img/s with %d threads; CPU time %.3f ms an image; %llu of %llu failed\n", folder,
           (double)n / took_s, threads, cpu_s() / (double)(n + n_warm) * 1e3, (unsigned long long)failed,
           (unsigned long long)n);
    printf("CSV,decode,%s,%d,%.1f\n", folder, threads, (double)n / took_s);
    return 0;
}
