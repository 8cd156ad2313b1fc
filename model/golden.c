#include "model/golden.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"

enum { GOLDEN_MAX_JSON_BYTES = 64 << 20, GOLDEN_MAX_IMAGES = 256, GOLDEN_MAX_PATH = 4096 };

const struct golden_limits golden_limits[] = {
    [GOLDEN_EXACT] = {GOLDEN_LIMIT, GOLDEN_LIMIT_T5_LOGITS},
    [GOLDEN_FP16] = {1e-2, 0.1},
    [GOLDEN_BF16] = {5e-2, 0.4},
    [GOLDEN_FP8] = {0.5, 0.5},
};

static int path_in(const char *dir, const char *name, char *ret, size_t size)
{
    int n = snprintf(ret, size, "%s/%s", dir, name);

    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int load_expected(struct golden *g, struct err *err)
{
    char path[GOLDEN_MAX_PATH];
    struct buf text;
    json_error_t where;
    json_t *images;
    int rc;

    if ((rc = path_in(g->dir, "expected.json", path, sizeof(path))) < 0)
        return err_set(err, rc, "%s: the path is too long", g->dir);
    buf_init(&text, GOLDEN_MAX_JSON_BYTES);
    rc = file_read(path, GOLDEN_MAX_JSON_BYTES, &text, err);
    if (rc == 0) {
        g->expected = json_loadb((const char *)text.data, text.size_bytes, JSON_ALLOW_NUL, &where);
        if (!g->expected)
            rc = err_set(err, -EINVAL, "%s: line %d: %s", path, where.line, where.text);
    }
    buf_release(&text);
    if (rc < 0)
        return rc;
    images = json_object_get(g->expected, "images");
    if (!json_is_array(images) || json_array_size(images) < 1 || json_array_size(images) > GOLDEN_MAX_IMAGES)
        return err_set(err, -EINVAL, "%s: \"images\" must name 1 to %d pictures", path, GOLDEN_MAX_IMAGES);
    g->n_images = (int)json_array_size(images);
    for (int i = 0; i < g->n_images; i++) {
        const char *name = golden_image_name(g, i);

        if (!name || !*name || *name == '.' || strchr(name, '/'))
            return err_set(err, -EINVAL, "%s: picture %d has no usable name", path, i);
    }
    return 0;
}

int golden_open(const char *dir, struct golden **ret, struct err *err)
{
    struct golden *g = calloc(1, sizeof(*g));
    char path[GOLDEN_MAX_PATH];
    int rc;

    if (!g)
        return err_set(err, -ENOMEM, "no memory for golden data");
    g->dir = strdup(dir);
    g->rows = json_array();
    rc = g->dir && g->rows ? 0 : err_set(err, -ENOMEM, "no memory for golden data");
    if (rc == 0)
        rc = load_expected(g, err);
    if (rc == 0)
        rc = checkpoint_open(dir, &g->checkpoint, err);
    if (rc == 0 && (rc = path_in(dir, "expected.safetensors", path, sizeof(path))) < 0)
        err_set(err, rc, "%s: the path is too long", dir);
    if (rc == 0)
        rc = safetensors_open_file(path, &g->tensors, err);
    if (rc < 0) {
        golden_free(g);
        return rc;
    }
    g->row_ns = clock_mono_ns();
    *ret = g;
    return 0;
}

void golden_free(struct golden *g)
{
    if (!g)
        return;
    safetensors_free(g->tensors);
    checkpoint_free(g->checkpoint);
    json_decref(g->expected);
    json_decref(g->rows);
    free(g->dir);
    free(g);
}

const char *golden_image_name(const struct golden *g, int i)
{
    return json_string_value(json_array_get(json_object_get(g->expected, "images"), (size_t)i));
}

int golden_image_path(const struct golden *g, int i, char *ret, size_t size, struct err *err)
{
    static const char *const folders[] = {"images", "../images_odd", "../../images/odd"};
    const char *name = golden_image_name(g, i);

    for (size_t f = 0; f < sizeof(folders) / sizeof(folders[0]); f++) {
        int n = snprintf(ret, size, "%s/%s/%s", g->dir, folders[f], name);

        if (n > 0 && (size_t)n < size && access(ret, R_OK) == 0)
            return 0;
    }
    return err_set(err, -ENOENT, "picture %s is not in %s/images, ../images_odd or ../../images/odd", name, g->dir);
}

int golden_n_pictures(const struct golden *g, const char *name, struct err *err)
{
    const struct safetensors_entry *e = safetensors_find(g->tensors, name);

    if (!e)
        return err_set(err, -ENOENT, "%s/expected.safetensors has no tensor %s", g->dir, name);
    if (e->tensor.n_dims < 1 || e->tensor.shape[0] < 1 || e->tensor.shape[0] > g->n_images)
        return err_set(err, -EINVAL, "%s/expected.safetensors: %s is not for 1 to %d pictures", g->dir, name,
                       g->n_images);
    return (int)e->tensor.shape[0];
}

static int floats_of(const struct golden *g, const struct safetensors_entry *e, const char *name, int n_dims,
                     const int64_t *shape, float **ret, struct err *err)
{
    char want[64], found[64];
    float *values;
    int64_t n;

    if (!tensor_shape_is(&e->tensor, n_dims, shape) || !dtype_is_float(e->tensor.dtype))
        return err_set(err, -EINVAL, "%s/expected.safetensors: %s is %s %s, but the checkpoint gives %s", g->dir, name,
                       dtype_name(e->tensor.dtype),
                       tensor_shape_text(e->tensor.n_dims, e->tensor.shape, found, sizeof(found)),
                       tensor_shape_text(n_dims, shape, want, sizeof(want)));
    if (tensor_n_elements(&e->tensor, &n) < 0 || n > INT64_MAX / (int64_t)sizeof(float))
        return err_set(err, -EINVAL, "%s/expected.safetensors: %s is too large", g->dir, name);
    values = malloc((size_t)n * sizeof(*values) + 1);
    if (!values)
        return err_set(err, -ENOMEM, "no memory for %s", name);
    tensor_to_f32(values, e->tensor.dtype, e->tensor.data, (size_t)n);
    *ret = values;
    return 0;
}

int golden_floats(const struct golden *g, const char *name, int n_dims, const int64_t *shape, float **ret,
                  struct err *err)
{
    const struct safetensors_entry *e = safetensors_find(g->tensors, name);

    if (!e)
        return err_set(err, -ENOENT, "%s/expected.safetensors has no tensor %s", g->dir, name);
    return floats_of(g, e, name, n_dims, shape, ret, err);
}

int golden_first_floats(const struct golden *g, const char *name, int n_dims, const int64_t *shape, float **ret,
                        struct err *err)
{
    const struct safetensors_entry *e = safetensors_find(g->tensors, name);
    struct safetensors_entry first;

    if (!e)
        return err_set(err, -ENOENT, "%s/expected.safetensors has no tensor %s", g->dir, name);
    first = *e;
    if (first.tensor.n_dims == n_dims && first.tensor.shape[0] > shape[0])
        first.tensor.shape[0] = shape[0]; /* row-major: these rows come first */
    return floats_of(g, &first, name, n_dims, shape, ret, err);
}

double golden_relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];

        difference += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return sqrt(difference) / (norm > 0 ? sqrt(norm) : 1);
}

static int add_row(struct golden *g, json_t *row, struct err *err)
{
    const int64_t now_ns = clock_mono_ns();

    /* NULL row: out of memory */
    if (!row || json_object_set_new(row, "seconds", json_real((double)(now_ns - g->row_ns) / 1e9)) < 0 ||
        json_array_append_new(g->rows, row) < 0)
        return err_set(err, -ENOMEM, "no memory for a row of the self-test's report");
    g->row_ns = now_ns;
    return 0;
}

int golden_report_tensor(struct golden *g, const char *stage, int n_dims, const int64_t *shape, const float *got,
                         const float *want, struct err *err)
{
    return golden_report_within(g, stage, n_dims, shape, GOLDEN_LIMIT, got, want, err);
}

static json_t *finite_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

int golden_report_within(struct golden *g, const char *stage, int n_dims, const int64_t *shape, double limit,
                         const float *got, const float *want, struct err *err)
{
    json_t *dims = json_array();
    size_t n = 1;
    double e;
    bool pass;

    for (int i = 0; i < n_dims; i++) {
        n *= (size_t)shape[i];
        json_array_append_new(dims, json_integer(shape[i]));
    }
    if (g->grain != GOLDEN_EXACT)
        limit = limit == GOLDEN_LIMIT_T5_LOGITS ? golden_limits[g->grain].t5_logits : golden_limits[g->grain].tensor;
    e = golden_relative_error(got, want, n);
    pass = e <= limit; /* false for NaN */
    g->n_failed += !pass;
    return add_row(g,
                   json_pack("{s:s, s:o, s:o, s:f, s:b}", "stage", stage, "shape", dims, "relative_error",
                             finite_or_null(e), "limit", limit, "pass", pass),
                   err);
}

int golden_report_equal(struct golden *g, const char *stage, int n, bool pass, const char *detail, struct err *err)
{
    g->n_failed += !pass;
    return add_row(g,
                   json_pack("{s:s, s:[i], s:n, s:n, s:b, s:s*}", "stage", stage, "shape", n, "relative_error", "limit",
                             "pass", pass, "detail", detail),
                   err);
}

int golden_report_sequences(struct golden *g, const char *stage, const struct golden_sequences *s, struct err *err)
{
    const bool near = isnan(s->score_error) || s->score_error <= s->limit;
    const bool pass = g->grain != GOLDEN_EXACT || (s->n_equal == s->n && near);

    g->n_failed += !pass;
    return add_row(g,
                   json_pack("{s:s, s:[i], s:i, s:o, s:o, s:b, s:s*}", "stage", stage, "shape", s->n, "equal",
                             s->n_equal, "relative_error", finite_or_null(s->score_error), "limit",
                             g->grain != GOLDEN_EXACT || isnan(s->score_error) ? json_null() : json_real(s->limit),
                             "pass", pass, "detail", s->detail),
                   err);
}

int golden_report_machine(struct golden *g, json_t *machine, struct err *err)
{
    return add_row(g, json_pack("{s:o, s:n}", "machine", machine, "pass"), err);
}

int golden_report_skipped(struct golden *g, const char *stage, const char *reason, struct err *err)
{
    return add_row(g,
                   json_pack("{s:s, s:[], s:n, s:n, s:n, s:s}", "stage", stage, "shape", "relative_error", "limit",
                             "pass", "skipped", reason),
                   err);
}

int golden_print(const struct golden *g, FILE *out, struct err *err)
{
    if (json_dumpf(g->rows, out, JSON_INDENT(1) | JSON_REAL_PRECISION(4)) < 0 || fputc('\n', out) < 0 ||
        fflush(out) != 0)
        return err_set(err, -EIO, "the self-test's report could not be written");
    return g->n_failed > 0;
}
