/* config_pixels.c - preprocessor_config.json, or image_processor of processor_config.json: image preprocessing. */
#include "model/config_private.h"

#include <string.h>

enum { DEFAULT_SIZE = 384 }; /* transformers' default for every model */

static int read_square(struct json_reader *r, const json_t *size)
{
    struct json_reader s = config_section(r, "size.", size);
    int height, width;

    if (json_read_any(&s, "shortest_edge") || json_read_any(&s, "longest_edge"))
        json_reader_fail(&s, "shortest_edge", "is not supported, only height and width");
    if (!json_read_any(&s, "height") || !json_read_any(&s, "width"))
        json_reader_fail(&s, "height", "expected height and width");
    height = config_read_size(&s, "height", 1, CONFIG_MAX_PIXELS);
    width = config_read_size(&s, "width", 1, CONFIG_MAX_PIXELS);
    if (height != width)
        json_reader_fail(&s, "width", "%d is not height %d: only squares are supported", width, height);
    if (s.rc < 0)
        r->rc = s.rc;
    return height;
}

static void read_size_key(struct json_reader *r, int image_size)
{
    const json_t *v = json_read_any(r, "size");
    int size = json_is_object(v) ? read_square(r, v) : config_read_size(r, "size", DEFAULT_SIZE, CONFIG_MAX_PIXELS);

    if (size != image_size)
        json_reader_fail(r, "size", "%d%s, but config.json has vision_config.image_size %d", size,
                         v ? "" : " (the default)", image_size);
}

/* Other processors have other defaults. */
static void check_type(struct json_reader *r)
{
    static const char *const known[] = {"BlipImageProcessor", "BlipImageProcessorFast", "BlipImageProcessorPil"};
    const char *type = json_read_text(r, "image_processor_type", known[0]);

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(type, known[i]) == 0)
            return;
    json_reader_fail(r, "image_processor_type", "\"%s\" is not supported, only \"%s\"", type, known[0]);
}

static void read_three(struct json_reader *r, const char *key, double min, double ret[3])
{
    const json_t *v = json_read_node(r, key, JSON_ARRAY);

    if (!v && json_object_get(r->object, key))
        json_reader_fail(r, key, "is %s, expected an array", json_type_text(json_object_get(r->object, key)));
    if (!v)
        return;
    if (json_array_size(v) != 3) {
        json_reader_fail(r, key, "%zu values, expected 3, one per colour", json_array_size(v));
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        const json_t *item = json_array_get(v, i);
        double x = json_number_value(item);

        if (!json_is_number(item) || !(x >= min && x <= 1e6)) {
            json_reader_fail(r, key, "value %zu is not a number from %g to 1e6", i, min);
            return;
        }
        ret[i] = x;
    }
}

int config_read_pixels(struct json_reader *r, int image_size, struct config_pixels *p)
{
    int64_t resample;

    *p = (struct config_pixels){.size = image_size,
                                .rescale = 1.0 / 255,
                                .mean = {0.48145466, 0.4578275, 0.40821073},
                                .std = {0.26862954, 0.26130258, 0.27577711}};
    if (!r->object)
        return 0;
    r->no_nulls = true; /* in transformers null turns a step off or breaks it */
    check_type(r);
    read_size_key(r, image_size);
    config_want_bool(r, "do_resize", true);
    config_want_bool(r, "default_to_square", true);
    if (json_read_any(r, "do_center_crop"))
        config_want_bool(r, "do_center_crop", false);
    if (json_read_any(r, "do_pad"))
        config_want_bool(r, "do_pad", false);
    config_want_bool(r, "do_convert_rgb", true);
    resample = json_read_int(r, "resample", 3, 0, 5);
    if (resample != 3)
        json_reader_fail(r, "resample", "%d is not supported, only 3 (bicubic)", (int)resample);
    p->rescale = json_read_real(r, "rescale_factor", p->rescale, 1e-9, 1e9);
    read_three(r, "image_mean", -1e6, p->mean);
    read_three(r, "image_std", 1e-6, p->std);
    if (!json_read_bool(r, "do_rescale", true))
        p->rescale = 1;
    if (!json_read_bool(r, "do_normalize", true))
        for (int i = 0; i < 3; i++) {
            p->mean[i] = 0;
            p->std[i] = 1;
        }
    return r->rc;
}
