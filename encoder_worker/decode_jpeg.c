#include "encoder_worker/decode_formats.h"
#include "encoder_worker/jpeg_segments.h"

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* A progressive file may have any number of scans, and each costs a pass over the image. Encoders write about ten. */
enum { MAX_SCANS = 200 };

struct jpeg_run {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf fail;
    bool has_all_rows;
    enum image_error code;
    char text[JMSG_LENGTH_MAX];
};

static struct jpeg_run *run_of(j_common_ptr cinfo)
{
    return cinfo->client_data;
}

static _Noreturn void give_up(struct jpeg_run *run, enum image_error code, const char *text)
{
    run->code = code;
    (void)snprintf(run->text, sizeof(run->text), "%s", text);
    longjmp(run->fail, 1);
}

static enum image_error code_of_message(int msg)
{
    switch (msg) {
    case JERR_OUT_OF_MEMORY:
        return IMAGE_NO_MEMORY;
    case JERR_IMAGE_TOO_BIG:
    case JERR_WIDTH_OVERFLOW:
        return IMAGE_TOO_MANY_PIXELS;
    case JERR_SOF_UNSUPPORTED:
    case JERR_BAD_PRECISION:
    case JERR_CONVERSION_NOTIMPL:
#if JPEG_LIB_VERSION < 70 /* libjpeg 8 (Ubuntu) has no such message */
    case JERR_ARITH_NOTIMPL:
#endif
    case JERR_NOT_COMPILED:
    case JERR_CCIR601_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
        return IMAGE_UNSUPPORTED;
    default:
        return IMAGE_CORRUPT;
    }
}

static void on_error(j_common_ptr cinfo)
{
    char text[JMSG_LENGTH_MAX];

    cinfo->err->format_message(cinfo, text);
    give_up(run_of(cinfo), code_of_message(cinfo->err->msg_code), text);
}

/* Warnings concern data that still decodes; Pillow accepts such an image, and so do we. */
static void on_message(j_common_ptr cinfo, int level)
{
    (void)cinfo;
    (void)level;
}

static void on_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void on_progress(j_common_ptr cinfo)
{
    if (cinfo->is_decompressor && ((j_decompress_ptr)cinfo)->input_scan_number > MAX_SCANS)
        give_up(run_of(cinfo), IMAGE_CORRUPT, "more than 200 scans");
}

static void source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

/* Called when the file is exhausted. libjpeg's own source would insert an end marker and return grey. */
static boolean source_fill(j_decompress_ptr cinfo)
{
    give_up(run_of((j_common_ptr)cinfo), IMAGE_TRUNCATED, "the file ends before the picture is complete");
}

static void source_skip(j_decompress_ptr cinfo, long n)
{
    if (n <= 0)
        return;
    if ((size_t)n > cinfo->src->bytes_in_buffer)
        (void)source_fill(cinfo);
    cinfo->src->next_input_byte += n;
    cinfo->src->bytes_in_buffer -= (size_t)n;
}

/* a * b / 255, rounded, for bytes */
static unsigned muldiv255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;

    return ((t >> 8) + t) >> 8;
}

/* cmyk is inverted, as Adobe stores it: 255 is no ink. */
static void rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, uint32_t width)
{
    for (uint32_t x = 0; x < width; x++) {
        unsigned paper = cmyk[4 * x + 3];

        for (int c = 0; c < 3; c++) {
            int v = (int)paper - (int)muldiv255(255U - cmyk[4 * x + c], paper);

            rgb[3 * x + c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

static void read_rows(struct jpeg_run *run, struct picture *p)
{
    j_decompress_ptr cinfo = &run->cinfo;
    size_t stride = (size_t)p->width * 3;
    JSAMPARRAY inks = NULL;

    if (cinfo->out_color_space == JCS_CMYK)
        inks = cinfo->mem->alloc_sarray((j_common_ptr)cinfo, JPOOL_IMAGE, p->width * 4, 1);
    while (cinfo->output_scanline < cinfo->output_height) {
        uint8_t *row = p->rgb + (size_t)cinfo->output_scanline * stride;

        if (jpeg_read_scanlines(cinfo, inks ? inks : &row, 1) != 1)
            give_up(run, IMAGE_CORRUPT, "a row could not be decoded");
        if (inks)
            rgb_from_cmyk(row, inks[0], p->width);
    }
}

/* Calls setjmp; locals of this frame must not change between it and a longjmp. */
static enum image_error decompress(struct jpeg_run *run, const struct decode_options *options, struct picture *p,
                                   struct err *err)
{
    j_decompress_ptr cinfo = &run->cinfo;
    enum image_error code;

    if (setjmp(run->fail)) {
        if (run->has_all_rows && run->code == IMAGE_TRUNCATED)
            return IMAGE_OK; /* only the end marker is missing: accepted, as in Pillow */
        (void)err_set(err, -EBADMSG, "JPEG: %s", run->text);
        return run->code;
    }
    jpeg_create_decompress(cinfo);
    cinfo->src = &run->source;
    cinfo->progress = &run->progress;
    (void)jpeg_read_header(cinfo, TRUE);
    code = decode_size_picture(p, cinfo->image_width, cinfo->image_height, options, err);
    if (code != IMAGE_OK)
        return code;
    if (cinfo->num_components == 1 || cinfo->num_components == 3)
        cinfo->out_color_space = JCS_RGB;
    else if (cinfo->num_components == 4)
        cinfo->out_color_space = JCS_CMYK;
    else
        give_up(run, IMAGE_UNSUPPORTED, "neither 1, 3 nor 4 components");
    (void)jpeg_start_decompress(cinfo);
    if (cinfo->output_width != p->width || cinfo->output_height != p->height)
        give_up(run, IMAGE_CORRUPT, "the size changed after the header");
    read_rows(run, p);
    run->has_all_rows = true;
    (void)jpeg_finish_decompress(cinfo);
    return IMAGE_OK;
}

enum image_error decode_jpeg(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                             struct err *err)
{
    struct jpeg_run run = {0};
    struct orientation_source source;
    enum image_error code = jpeg_check_segments(bytes, n, &source, err);

    if (code != IMAGE_OK)
        return code;
    ret->orientation = orientation_of(&source);
    run.cinfo.err = jpeg_std_error(&run.errors);
    run.cinfo.client_data = &run;
    run.errors.error_exit = on_error;
    run.errors.emit_message = on_message;
    run.errors.output_message = on_output;
    run.progress.progress_monitor = on_progress;
    run.source.next_input_byte = bytes;
    run.source.bytes_in_buffer = n;
    run.source.init_source = source_nothing;
    run.source.fill_input_buffer = source_fill;
    run.source.skip_input_data = source_skip;
    run.source.resync_to_restart = jpeg_resync_to_restart;
    run.source.term_source = source_nothing;
    code = decompress(&run, options, ret, err);
    jpeg_destroy_decompress(&run.cinfo);
    return code;
}
