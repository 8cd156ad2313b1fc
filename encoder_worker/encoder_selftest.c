#include "encoder_worker/encoder_selftest.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/file.h"
#include "encoder_worker/decode.h"
#include "encoder_worker/resize.h"
#include "encoder_worker/vit.h"
#include "model/params.h"
#include "tensor/ops.h"
#include "worker/selftest.h"

/* Loads an image file as size x size pixels. */
static int load_pixels(const char *path, int size, uint8_t *ret, struct err *err)
{
    const struct decode_options options = DECODE_OPTIONS_DEFAULT;
    struct resize *resize = NULL;
    struct picture picture;
    struct buf bytes;
    struct err why;
    int rc;

    picture_init(&picture, NULL);
    buf_init(&bytes, options.max_file_bytes);
    if ((rc = file_read(path, options.max_file_bytes, &bytes, err)) < 0)
        goto out;
    if (decode_picture(bytes.data, bytes.size_bytes, &options, &picture, &why) != IMAGE_OK) {
        rc = err_set(err, -EINVAL, "%s: %s", path, why.text);
        goto out;
    }
    if ((rc = resize_new(&resize)) == 0)
        rc = resize_rgb(resize, picture.rgb, picture.width, picture.height, ret, (uint32_t)size, (uint32_t)size);
    if (rc < 0)
        err_set(err, rc, "%s: cannot resize to %d pixels", path, size);
out:
    resize_free(resize);
    picture_release(&picture);
    buf_release(&bytes);
    return rc;
}

static int load_all_pixels(const struct golden *g, int n_images, uint8_t *rgb, struct err *err)
{
    const int size = g->checkpoint->config.vision.image_size;
    const size_t image_bytes = (size_t)size * (size_t)size * 3;
    char path[PATH_MAX];
    int rc = 0;

    for (int i = 0; rc == 0 && i < n_images; i++) {
        rc = golden_image_path(g, i, path, sizeof(path), err);
        if (rc == 0)
            rc = load_pixels(path, size, rgb + (size_t)i * image_bytes, err);
    }
    return rc;
}

/* The golden features are after post_layernorm, which the Q-Former stage computes, so apply it here. */
static int trunk_features(struct ops *o, const struct golden *g, struct vit *v, int n_images, const uint8_t *rgb,
                          float *ret, struct err *err)
{
    const int64_t rows = (int64_t)n_images * vit_n_tokens(v), c = vit_width(v);
    struct params_norm post = {0};
    const void *trunk;
    void *normed = NULL;
    int rc;

    rc = params_norm_load(&(struct params){o, g->checkpoint, err, 0}, "vision_model.post_layernorm", c, &post);
    if (rc < 0)
        return rc;
    rc = o->f->alloc(o, (size_t)(rows * c) * dtype_size_bytes(o->act_dtype), &normed);
    if (rc == 0)
        rc = vit_forward(v, n_images, rgb, &trunk);
    if (rc == 0)
        rc = params_norm_apply(o, &post, rows, c, g->checkpoint->config.vision.eps, trunk, normed, NULL);
    if (rc == 0)
        rc = o->f->download(o, ret, DTYPE_F32, normed, o->act_dtype, (size_t)(rows * c));
    if (rc < 0)
        err_set(err, rc, "the vision model failed");
    o->f->release(o, normed);
    params_norm_free(o, &post);
    return rc;
}

static int test_vision(struct ops *o, struct golden *g, struct err *err)
{
    const struct config_vision *s = &g->checkpoint->config.vision;
    const int n = golden_n_pictures(g, "vision_last_hidden_state", err);
    const int64_t shape[] = {n, s->n_tokens, s->width};
    const size_t image_bytes = (size_t)s->image_size * (size_t)s->image_size * 3;
    float *got = NULL, *want = NULL;
    uint8_t *rgb = NULL;
    struct vit *v = NULL;
    struct err why;
    int rc;

    if (n < 0)
        return n;
    rgb = calloc((size_t)n, image_bytes);
    got = calloc((size_t)(shape[0] * shape[1] * shape[2]), sizeof(*got));
    if (!rgb || !got) {
        rc = err_set(err, -ENOMEM, "no memory for %d pictures", n);
        goto out;
    }
    if (load_all_pixels(g, n, rgb, &why) < 0) {
        rc = golden_report_equal(g, "vision_last_hidden_state", n, false, why.text, err);
        goto out;
    }
    rc = golden_floats(g, "vision_last_hidden_state", 3, shape, &want, err);
    if (rc == 0)
        rc = vit_new(o, g->checkpoint, n, &v, err);
    if (rc == 0)
        rc = trunk_features(o, g, v, n, rgb, got, err);
    if (rc == 0)
        rc = golden_report_tensor(g, "vision_last_hidden_state", 3, shape, got, want, err);
out:
    vit_free(v);
    free(want);
    free(got);
    free(rgb);
    return rc;
}

int encoder_selftest(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err)
{
    struct golden *g = NULL;
    struct ops *o = NULL;
    int rc = selftest_open(golden_dir, conf, &g, &o, err);

    if (rc == 0)
        rc = test_vision(o, g, err);
    if (rc == 0)
        rc = golden_print(g, out, err);
    ops_free(o);
    golden_free(g);
    return rc;
}
