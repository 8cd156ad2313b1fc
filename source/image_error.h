/* image_error.h - the reason why an image failed, as a code with a stable name.
 *
 * Names are used in messages, in stores and by `retry --reason`, so they are never changed or reused.
 * Who may call: anyone, any thread.
 * Units: none.
 * Memory: names are static.
 * Errors: none. */
#ifndef BLIPLINE_SOURCE_IMAGE_ERROR_H
#define BLIPLINE_SOURCE_IMAGE_ERROR_H

enum image_error {
    IMAGE_OK = 0,
    IMAGE_MISSING,         /* the file does not exist when it is read */
    IMAGE_UNREADABLE,      /* permission, I/O error, a folder, a pipe, a path that is too long */
    IMAGE_EMPTY,           /* zero bytes */
    IMAGE_TOO_LARGE,       /* more bytes than the limit */
    IMAGE_UNKNOWN_FORMAT,  /* the first bytes are not those of JPEG, PNG or WebP */
    IMAGE_UNSUPPORTED,     /* an unsupported kind of JPEG, PNG or WebP (12 bit, lossless) */
    IMAGE_TRUNCATED,       /* the file ends before the image is complete */
    IMAGE_CORRUPT,         /* the bytes contradict the format */
    IMAGE_TOO_MANY_PIXELS, /* more pixels, or a longer side, than the limit */
    IMAGE_NO_MEMORY,       /* a problem of this machine, not of the image: worth a retry */
    IMAGE_URL,             /* the list names a URL; nothing is downloaded */
    IMAGE_NO_PICTURE,      /* its row of the list names no image */
    IMAGE_BAD_ROW,         /* a value of its row is invalid, or the row does not match its table */
    IMAGE_DECODER_CRASHED, /* the decoder process crashed */
    IMAGE_DECODER_TIMEOUT, /* decoding took longer than the limit */
    IMAGE_DECODER_MEMORY,  /* decoding needed more memory than the limit or the machine has */
    IMAGE_N_ERRORS
};

/* "ok", "missing", "unreadable", "empty", "too_large", "unknown_format", "unsupported", "truncated", "corrupt",
 * "too_many_pixels", "no_memory", "url", "no_picture", "bad_row", "decoder_crashed", "decoder_timeout",
 * "decoder_memory"; "unknown" for a value outside the enum. */
const char *image_error_name(enum image_error code);
/* The code of this name; IMAGE_BAD_ROW for an unknown name. */
enum image_error image_error_of(const char *name);

#endif
