/* image_error.h - why one picture could not be used, as a code with a stable name.
 *
 * The name is what travels, what the store keeps and what `retry --reason` takes: names are never changed or reused.
 * Who may call: anyone, any thread.
 * Units: none.
 * Memory: names are static.
 * Errors: none. */
#ifndef BLIPLINE_SOURCE_IMAGE_ERROR_H
#define BLIPLINE_SOURCE_IMAGE_ERROR_H

enum image_error {
    IMAGE_OK = 0,
    IMAGE_MISSING,         /* no such file by the time it is read */
    IMAGE_UNREADABLE,      /* permission, I/O error, a folder, a pipe, a path that is too long */
    IMAGE_EMPTY,           /* zero bytes */
    IMAGE_TOO_LARGE,       /* more bytes than the limit */
    IMAGE_UNKNOWN_FORMAT,  /* the first bytes are not those of JPEG, PNG or WebP */
    IMAGE_UNSUPPORTED,     /* a kind of JPEG, PNG or WebP that is not decoded (12 bit, lossless) */
    IMAGE_TRUNCATED,       /* the bytes end before the picture does */
    IMAGE_CORRUPT,         /* the bytes contradict the format */
    IMAGE_TOO_MANY_PIXELS, /* more pixels, or a longer side, than the limit */
    IMAGE_NO_MEMORY,       /* this machine's trouble, not the picture's: worth another attempt */
    IMAGE_URL,             /* its list names something on the network, which is not fetched */
    IMAGE_NO_PICTURE,      /* its row of a list names none */
    IMAGE_BAD_ROW,         /* a value of its row that is used cannot be, or the row does not fit its table */
    IMAGE_DECODER_CRASHED, /* the process that decoded it came to a bad end */
    IMAGE_DECODER_TIMEOUT, /* decoding took longer than the limit */
    IMAGE_DECODER_MEMORY,  /* decoding took more memory than the limit, or than there was */
    IMAGE_N_ERRORS
};

/* "ok", "missing", "unreadable", "empty", "too_large", "unknown_format", "unsupported", "truncated", "corrupt",
 * "too_many_pixels", "no_memory", "url", "no_picture", "bad_row", "decoder_crashed", "decoder_timeout",
 * "decoder_memory"; "unknown" for a value outside the enum. */
const char *image_error_name(enum image_error code);
/* The code of this name; IMAGE_BAD_ROW for one that is none. */
enum image_error image_error_of(const char *name);

#endif
