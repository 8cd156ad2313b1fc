/* Bicubic resampling in fixed point, as Pillow's ImagingResample does it.
 *
 * Weights have 22 fractional bits. To multiply them two at a time (pmaddwd: 16 x 16 -> 32 bits), each is kept as
 * high * 256 + low with 0 <= low < 256; the two sums are joined at the end. Arithmetic is modulo 2^32 and the true
 * sum fits 32 bits, so every order of summation gives the same bits. The portable kernels define the result. */
#include "encoder_worker/resize.h"

#include "encoder_worker/resize_kernels.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_TABLES = 32, WEIGHT_BITS = 22 };

struct resize {
    struct resize_kernels kernels;
    struct resize_axis tables[N_TABLES];
    uint64_t last_use[N_TABLES];
    uint64_t clock;
    uint8_t *mid; /* rows between the two passes, then RESIZE_ROWS + 1 rows of the input's width */
    size_t mid_bytes;
};

int resize_new(struct resize **ret)
{
    struct resize *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->kernels = resize_kernels_best();
    *ret = r;
    return 0;
}

static void axis_release(struct resize_axis *a)
{
    free(a->first);
    free(a->weights);
    *a = (struct resize_axis){0};
}

void resize_free(struct resize *r)
{
    if (!r)
        return;
    for (int i = 0; i < N_TABLES; i++)
        axis_release(&r->tables[i]);
    free(r->mid);
    free(r);
}

static double cubic(double x)
{
    const double a = -0.5;

    if (x < 0.0)
        x = -x;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

/* Writes the weights of output sample i, rounded half away from zero, to w and returns their number; *ret_first is
 * the first input sample. */
static uint32_t weights_of(uint32_t in, uint32_t out, uint32_t i, double *w, uint32_t *ret_first)
{
    double scale = (double)in / out, fs = scale < 1.0 ? 1.0 : scale, support = 2.0 * fs;
    double center = (i + 0.5) * scale, sum = 0.0, step = 1.0 / fs;
    int lo = (int)(center - support + 0.5), hi = (int)(center + support + 0.5), n;

    if (lo < 0)
        lo = 0;
    if (hi > (int)in)
        hi = (int)in;
    n = hi - lo;
    assert(n >= 1); /* the nearest input is inside the image */
    for (int j = 0; j < n; j++) {
        w[j] = cubic((lo + j - center + 0.5) * step);
        sum += w[j];
    }
    for (int j = 0; j < n; j++) {
        if (sum != 0.0)
            w[j] /= sum;
        w[j] = trunc(w[j] * (1 << WEIGHT_BITS) + (w[j] < 0 ? -0.5 : 0.5));
    }
    *ret_first = (uint32_t)lo;
    return (uint32_t)n;
}

/* Groups of four taps: high0..3, low0..3. Taps that pad a group have weight 0; the window is moved left so that
 * padding stays inside the row. If the row is shorter than a window, the padding is outside; such tables are marked
 * `ragged`. */
static void axis_store(struct resize_axis *a, uint32_t i, const double *w, uint32_t n, uint32_t first)
{
    uint32_t taps = a->n_groups * 4, shift = 0;
    int16_t *to = a->weights + (size_t)i * a->n_groups * 8;

    if (first + taps > a->in && a->in >= taps)
        shift = first + taps - a->in;
    a->first[i] = first - shift;
    for (uint32_t j = 0; j < n; j++) {
        int32_t v = (int32_t)w[j];
        int32_t high = v >> 8;
        uint32_t k = j + shift;

        assert(high >= INT16_MIN && high <= INT16_MAX); /* |w| < 2: the nearest tap is always in the window */
        to[k / 4 * 8 + k % 4] = (int16_t)high;
        to[k / 4 * 8 + 4 + k % 4] = (int16_t)(v & 255);
    }
}

static int axis_init(struct resize_axis *a, uint32_t in, uint32_t out)
{
    double support = 2.0 * (in > out ? (double)in / out : 1.0);
    uint32_t max_taps = (uint32_t)ceil(support) * 2 + 1, widest = 1, first;
    double *w = malloc(max_taps * sizeof(*w));

    assert(in >= 1 && out >= 1);
    *a = (struct resize_axis){.in = in, .out = out};
    if (!w)
        return -ENOMEM;
    for (uint32_t i = 0; i < out; i++) {
        uint32_t n = weights_of(in, out, i, w, &first);

        widest = n > widest ? n : widest;
    }
    a->n_groups = (widest + 3) / 4;
    a->ragged = in < a->n_groups * 4;
    a->first = malloc(out * sizeof(*a->first));
    a->weights = calloc((size_t)out * a->n_groups * 8, sizeof(*a->weights));
    if (!a->first || !a->weights) {
        free(w);
        axis_release(a);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < out; i++) {
        uint32_t n = weights_of(in, out, i, w, &first);

        axis_store(a, i, w, n, first);
    }
    free(w);
    return 0;
}

/* The table for in -> out, from the cache or replacing the least recently used one. `keep` is not replaced. */
static int axis_find(struct resize *r, uint32_t in, uint32_t out, const struct resize_axis *keep,
                     const struct resize_axis **ret)
{
    int oldest = -1, rc;

    r->clock++;
    for (int i = 0; i < N_TABLES; i++) {
        if (r->tables[i].in == in && r->tables[i].out == out) {
            r->last_use[i] = r->clock;
            *ret = &r->tables[i];
            return 0;
        }
        if (&r->tables[i] != keep && (oldest < 0 || r->last_use[i] < r->last_use[oldest]))
            oldest = i;
    }
    axis_release(&r->tables[oldest]);
    r->last_use[oldest] = 0;
    rc = axis_init(&r->tables[oldest], in, out);
    if (rc < 0)
        return rc;
    r->last_use[oldest] = r->clock;
    *ret = &r->tables[oldest];
    return 0;
}

static int scratch_reserve(struct resize *r, size_t bytes)
{
    if (bytes <= r->mid_bytes)
        return 0;
    free(r->mid);
    r->mid = malloc(bytes);
    r->mid_bytes = r->mid ? bytes : 0;
    return r->mid ? 0 : -ENOMEM;
}

/* Resamples n_rows rows of a->in pixels to rows of a->out. `spare` has a->in * 3 + RESIZE_OVERREAD bytes for a row
 * that must not be read past, then a->out * 3 for unused output rows. */
static void pass_across(const struct resize *r, const struct resize_axis *a, const uint8_t *src, uint32_t n_rows,
                        uint8_t *dst, uint8_t *spare)
{
    size_t in_stride = (size_t)a->in * 3, out_stride = (size_t)a->out * 3;

    for (uint32_t y = 0; y < n_rows; y += RESIZE_ROWS) {
        const uint8_t *from[RESIZE_ROWS];
        uint8_t *to[RESIZE_ROWS];

        for (uint32_t k = 0; k < RESIZE_ROWS; k++) {
            uint32_t row = y + k < n_rows ? y + k : n_rows - 1;

            from[k] = src + row * in_stride;
            to[k] = y + k < n_rows ? dst + row * out_stride : spare + in_stride + RESIZE_OVERREAD;
            if (row == n_rows - 1) {
                memcpy(spare, from[k], in_stride);
                from[k] = spare;
            }
        }
        r->kernels.across(a, from, to);
    }
}

static void pass_down(const struct resize *r, const struct resize_axis *a, const uint8_t *src, uint32_t first_row,
                      uint8_t *dst, size_t row_bytes)
{
    for (uint32_t y = 0; y < a->out; y++)
        r->kernels.down(a, y, src + (size_t)(a->first[y] - first_row) * row_bytes, row_bytes, dst + y * row_bytes);
}

/* The rows of the input that the vertical pass reads. */
static void rows_needed(const struct resize_axis *down, uint32_t height, uint32_t *ret_first, uint32_t *ret_n)
{
    uint32_t lo = 0, hi = height;

    if (down) {
        lo = down->first[0];
        hi = down->first[down->out - 1] + down->n_groups * 4;
        if (hi > height)
            hi = height;
    }
    *ret_first = lo;
    *ret_n = hi - lo;
}

int resize_rgb(struct resize *r, const uint8_t *src, uint32_t width, uint32_t height, uint8_t *dst, uint32_t out_width,
               uint32_t out_height)
{
    const struct resize_axis *across = NULL, *down = NULL;
    size_t in_stride = (size_t)width * 3, out_stride = (size_t)out_width * 3, mid_bytes;
    uint32_t first_row, n_rows;
    int rc;

    if (!width || !height || !out_width || !out_height || width > RESIZE_MAX_SIDE || height > RESIZE_MAX_SIDE ||
        out_width > RESIZE_MAX_SIDE || out_height > RESIZE_MAX_SIDE)
        return -EINVAL;
    if (width != out_width && (rc = axis_find(r, width, out_width, NULL, &across)) < 0)
        return rc;
    if (height != out_height && (rc = axis_find(r, height, out_height, across, &down)) < 0)
        return rc;
    if (!across && !down) {
        memcpy(dst, src, in_stride * height);
        return 0;
    }
    rows_needed(down, height, &first_row, &n_rows);
    if (across) {
        uint8_t *to;

        mid_bytes = down ? n_rows * out_stride : 0;
        rc = scratch_reserve(r, mid_bytes + in_stride + RESIZE_OVERREAD + out_stride);
        if (rc < 0)
            return rc;
        to = down ? r->mid : dst;
        pass_across(r, across, src + first_row * in_stride, n_rows, to, r->mid + mid_bytes);
        src = r->mid;
    } else {
        src += first_row * in_stride;
    }
    if (down)
        pass_down(r, down, src, first_row, dst, out_stride);
    return 0;
}
