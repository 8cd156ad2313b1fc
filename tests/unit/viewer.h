/* viewer.h - for tests: image encoder and Q-Former in one process, the input of scores and captions.
 *
 * Errors: a call that fails ends the test with the reason. */
#ifndef BLIPLINE_TESTS_UNIT_VIEWER_H
#define BLIPLINE_TESTS_UNIT_VIEWER_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "encoder_worker/decode.h"
#include "encoder_worker/resize.h"
#include "encoder_worker/vit.h"
#include "model/checkpoint.h"
#include "model/tokenizer.h"
#include "qformer_worker/qformer.h"
#include "tensor/ops.h"

/* rc >= 0, or the test fails with the message */
#define CHECK_OK(call, err)                        \
    do {                                           \
        if ((call) < 0)                            \
            fail_msg("%s: %s", #call, (err).text); \
    } while (0)

struct viewer {
    struct ops *o;
    struct checkpoint *c;
    struct tokenizer *tokenizer;
    struct vit *vit;
    struct qformer *qformer;
    size_t image_bytes, trunk_len; /* of one image */
};

/* The models of the open checkpoint. */
static inline void viewer_load(struct viewer *v, int max_batch)
{
    struct err err = {{0}};

    CHECK_OK(vit_new(v->o, v->c, max_batch, &v->vit, &err), err);
    CHECK_OK(qformer_new(v->o, v->c, max_batch, &v->qformer, &err), err);
    v->image_bytes = (size_t)vit_image_size(v->vit) * (size_t)vit_image_size(v->vit) * 3;
    v->trunk_len = (size_t)vit_n_tokens(v->vit) * (size_t)vit_width(v->vit);
}

static inline void viewer_unload(struct viewer *v)
{
    qformer_free(v->qformer);
    vit_free(v->vit);
}

/* Takes `o`. */
static inline void viewer_open(struct viewer *v, const char *dir, struct ops *o, int max_batch)
{
    struct err err = {{0}};

    *v = (struct viewer){.o = o};
    CHECK_OK(checkpoint_open(dir, &v->c, &err), err);
    CHECK_OK(tokenizer_load(v->c->tokenizer_path, &v->tokenizer, &err), err);
    viewer_load(v, max_batch);
}

static inline void viewer_close(struct viewer *v)
{
    viewer_unload(v);
    tokenizer_free(v->tokenizer);
    checkpoint_free(v->c);
    ops_free(v->o);
}

/* A picture file -> rgb [S, S, 3] */
static inline void viewer_pixels(const struct vit *vit, const char *path, uint8_t *rgb)
{
    const struct decode_options options = DECODE_OPTIONS_DEFAULT;
    const uint32_t size = (uint32_t)vit_image_size(vit);
    struct resize *resize = NULL;
    struct picture picture;
    struct buf bytes;
    struct err err = {{0}};

    picture_init(&picture, NULL);
    buf_init(&bytes, options.max_file_bytes);
    CHECK_OK(file_read(path, options.max_file_bytes, &bytes, &err), err);
    if (decode_picture(bytes.data, bytes.size_bytes, &options, &picture, &err) != IMAGE_OK)
        fail_msg("%s: %s", path, err.text);
    assert_int_equal(resize_new(&resize), 0);
    assert_int_equal(resize_rgb(resize, picture.rgb, picture.width, picture.height, rgb, size, size), 0);
    resize_free(resize);
    picture_release(&picture);
    buf_release(&bytes);
}

/* rgb [n, S, S, 3] -> trunk [n, P, C], in one batch */
static inline void viewer_trunk(struct viewer *v, int n, const uint8_t *rgb, float *trunk)
{
    const void *device = NULL;

    assert_int_equal(vit_forward(v->vit, n, rgb, &device), 0);
    assert_int_equal(v->o->f->download(v->o, trunk, DTYPE_F32, device, v->o->act_dtype, (size_t)n * v->trunk_len), 0);
}

static inline void *viewer_floats(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

#endif
