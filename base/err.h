/* err.h - error messages for people.
 *
 * Library folders never log: they return a negative errno and, where the caller passes one, fill a struct err.
 * Who may call: anyone, from any thread (the struct belongs to the caller).
 * Units:  none.
 * Memory: the text lives inside the struct; nothing to free.
 * Errors: `err` arguments may be NULL; the text is written only on failure. */
#ifndef BLIPLINE_BASE_ERR_H
#define BLIPLINE_BASE_ERR_H

#define CHECK_RESULT __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

struct err {
    char text[512];
};

/* Write the message and return `code`, a negative errno. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Prepend "prefix: " to the message and return `code`. */
int err_prefix(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

#ifdef __clang_analyzer__ /* `make lint` sees one file at a time: show it that `code` is returned */
#define err_set(err, code, ...)                       \
    __extension__({                                   \
        const int err_code_ = (code);                 \
        (void)(err_set)(err, err_code_, __VA_ARGS__); \
        err_code_;                                    \
    })
#define err_prefix(err, code, ...)                       \
    __extension__({                                      \
        const int err_code_ = (code);                    \
        (void)(err_prefix)(err, err_code_, __VA_ARGS__); \
        err_code_;                                       \
    })
#endif

#endif
