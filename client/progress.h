/* progress.h - the speed and remaining time of a job, as a bar or a line.
 *
 * The caller supplies the time and prints the text. Who may call: one thread.
 * Units:  CLOCK_MONOTONIC milliseconds, items. Memory: plain values; the caller's buffers.
 * Errors: none; long texts are truncated. */
#ifndef BLIPLINE_CLIENT_PROGRESS_H
#define BLIPLINE_CLIENT_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

#define PROGRESS_SAMPLES 64

struct progress {
    struct progress_sample {
        int64_t t_ms;
        uint64_t n_done;
    } samples[PROGRESS_SAMPLES]; /* ring, oldest at `first`; at most PROGRESS_WINDOW_MS long */
    unsigned first, n_samples;
    int64_t start_ms;
    uint64_t n_done, n_failed, n_total;
};

enum { PROGRESS_WINDOW_MS = 10000, PROGRESS_ETA_AFTER_MS = 3000 };

/* `n_done` items were done by earlier runs and do not count for the speed. */
void progress_init(struct progress *p, int64_t now_ms, uint64_t n_done, uint64_t n_total);
/* If n_done falls, counting starts again. */
void progress_update(struct progress *p, int64_t now_ms, uint64_t n_done, uint64_t n_failed, uint64_t n_total);

/* Items per second over the last PROGRESS_WINDOW_MS; 0 before the first item. */
double progress_rate(const struct progress *p);
/* Remaining milliseconds; -1: unknown. */
int64_t progress_eta_ms(const struct progress *p, int64_t now_ms);

/* " 62% [=====>   ] 124/200  35.2 img/s  ETA 2s  3 failed" in at most `columns` columns. */
void progress_bar(const struct progress *p, int64_t now_ms, unsigned columns, char *ret, size_t ret_size);
/* "124 of 200 done, 35.2 img/s, 2s to go, 3 failed" */
void progress_line(const struct progress *p, int64_t now_ms, char *ret, size_t ret_size);

/* "45s", "3m07s", "2h05m", "3d04h" */
#define PROGRESS_DURATION_SIZE 24
char *progress_duration(int64_t ms, char ret[PROGRESS_DURATION_SIZE]);
/* At least three significant digits: "0.52", "35.2", "1250". */
#define PROGRESS_RATE_SIZE 32
char *progress_rate_text(double per_second, char ret[PROGRESS_RATE_SIZE]);

#endif
