#include "client/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct progress_sample *oldest(const struct progress *p)
{
    return &p->samples[p->first];
}

static const struct progress_sample *newest(const struct progress *p)
{
    return &p->samples[(p->first + p->n_samples - 1) % PROGRESS_SAMPLES];
}

static void add_sample(struct progress *p, int64_t now_ms, uint64_t n_done)
{
    /* keep one sample older than the window, so that the samples always span it */
    while (p->n_samples > 2 && p->samples[(p->first + 1) % PROGRESS_SAMPLES].t_ms <= now_ms - PROGRESS_WINDOW_MS) {
        p->first = (p->first + 1) % PROGRESS_SAMPLES;
        p->n_samples--;
    }
    if (p->n_samples == PROGRESS_SAMPLES) {
        p->first = (p->first + 1) % PROGRESS_SAMPLES;
        p->n_samples--;
    }
    p->samples[(p->first + p->n_samples) % PROGRESS_SAMPLES] = (struct progress_sample){now_ms, n_done};
    p->n_samples++;
}

void progress_init(struct progress *p, int64_t now_ms, uint64_t n_done, uint64_t n_total)
{
    *p = (struct progress){.start_ms = now_ms, .n_done = n_done, .n_total = n_total};
    add_sample(p, now_ms, n_done);
}

void progress_update(struct progress *p, int64_t now_ms, uint64_t n_done, uint64_t n_failed, uint64_t n_total)
{
    if (n_done < p->n_done) {
        progress_init(p, now_ms, n_done, n_total);
        p->n_failed = n_failed;
        return;
    }
    p->n_done = n_done;
    p->n_failed = n_failed;
    p->n_total = n_total;
    /* space the samples so that the ring covers the window */
    if (now_ms - newest(p)->t_ms >= PROGRESS_WINDOW_MS / (PROGRESS_SAMPLES - 4))
        add_sample(p, now_ms, n_done);
}

double progress_rate(const struct progress *p)
{
    const struct progress_sample *a = oldest(p), *b = newest(p);

    if (b->t_ms <= a->t_ms)
        return 0;
    return (double)(b->n_done - a->n_done) * 1000 / (double)(b->t_ms - a->t_ms);
}

int64_t progress_eta_ms(const struct progress *p, int64_t now_ms)
{
    double rate = progress_rate(p);
    double eta;

    if (now_ms - p->start_ms < PROGRESS_ETA_AFTER_MS || p->n_total < p->n_done || rate <= 0)
        return -1;
    eta = (double)(p->n_total - p->n_done) / rate * 1000;
    return eta > 1e15 ? -1 : (int64_t)eta;
}

char *progress_duration(int64_t ms, char ret[PROGRESS_DURATION_SIZE])
{
    int64_t s = (ms + 500) / 1000;

    if (s < 60)
        (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%" PRId64 "s", s);
    else if (s < 3600)
        (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
    return ret;
}

char *progress_rate_text(double per_second, char ret[PROGRESS_RATE_SIZE])
{
    int digits = per_second < 10 ? 2 : per_second < 100 ? 1 : 0;

    if (per_second > 0 && per_second < 0.01)
        (void)snprintf(ret, PROGRESS_RATE_SIZE, "%.2g", per_second);
    else
        (void)snprintf(ret, PROGRESS_RATE_SIZE, "%.*f", digits, per_second);
    return ret;
}

/* "SEPARATOR12.3 img/s"; nothing while no picture is done, for example while a model is loaded. */
static void add_rate(const struct progress *p, const char *separator, char *ret, size_t ret_size)
{
    char rate[PROGRESS_RATE_SIZE];
    const size_t n = strlen(ret);

    if (progress_rate(p) > 0)
        (void)snprintf(ret + n, ret_size - n, "%s%s img/s", separator, progress_rate_text(progress_rate(p), rate));
}

/* The text to the right of the bar. */
static void bar_numbers(const struct progress *p, int64_t now_ms, char *ret, size_t ret_size)
{
    char eta[PROGRESS_DURATION_SIZE];
    int64_t eta_ms = progress_eta_ms(p, now_ms);
    size_t n;

    (void)snprintf(ret, ret_size, "%" PRIu64 "/%" PRIu64, p->n_done, p->n_total);
    add_rate(p, "  ", ret, ret_size);
    n = strlen(ret);
    if (eta_ms >= 0 && p->n_done < p->n_total)
        (void)snprintf(ret + n, ret_size - n, "  ETA %s", progress_duration(eta_ms, eta));
    n = strlen(ret);
    if (p->n_failed)
        (void)snprintf(ret + n, ret_size - n, "  %" PRIu64 " failed", p->n_failed);
}

void progress_bar(const struct progress *p, int64_t now_ms, unsigned columns, char *ret, size_t ret_size)
{
    enum { MAX_BAR = 40, MIN_BAR = 8 };
    char numbers[128], bar[MAX_BAR + 1];
    double share = p->n_total ? (double)p->n_done / (double)p->n_total : 0;
    unsigned width, filled;

    if (share > 1)
        share = 1;
    bar_numbers(p, now_ms, numbers, sizeof(numbers));
    width = columns > strlen(numbers) + 10 ? columns - (unsigned)strlen(numbers) - 10 : 0;
    if (width > MAX_BAR)
        width = MAX_BAR;
    if (width < MIN_BAR) {
        (void)snprintf(ret, ret_size, "%3d%% %s", (int)(share * 100), numbers);
    } else {
        filled = (unsigned)(share * width);
        for (unsigned i = 0; i < width; i++)
            bar[i] = i < filled ? '=' : i == filled ? '>' : ' ';
        bar[width] = '\0';
        (void)snprintf(ret, ret_size, "%3d%% [%s] %s", (int)(share * 100), bar, numbers);
    }
    if (strlen(ret) >= columns && columns > 0 && columns <= ret_size)
        ret[columns - 1] = '\0';
}

void progress_line(const struct progress *p, int64_t now_ms, char *ret, size_t ret_size)
{
    char eta[PROGRESS_DURATION_SIZE];
    int64_t eta_ms = progress_eta_ms(p, now_ms);
    size_t n;

    (void)snprintf(ret, ret_size, "%" PRIu64 " of %" PRIu64 " done", p->n_done, p->n_total);
    add_rate(p, ", ", ret, ret_size);
    n = strlen(ret);
    if (eta_ms >= 0 && p->n_done < p->n_total)
        (void)snprintf(ret + n, ret_size - n, ", %s to go", progress_duration(eta_ms, eta));
    n = strlen(ret);
    if (p->n_failed)
        (void)snprintf(ret + n, ret_size - n, ", %" PRIu64 " failed", p->n_failed);
}
