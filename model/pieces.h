/* pieces.h - a list of strings in one buffer: words before encoding, tokens after decoding.
 *
 * Who may call: model/ only, one thread at a time.
 * Units: bytes of valid UTF-8.
 * Memory: the list copies strings; pieces_release frees it.
 * Errors: -ENOMEM, or -EFBIG past PIECES_MAX_BYTES; a call that fails has changed nothing. */
#ifndef BLIPLINE_MODEL_PIECES_H
#define BLIPLINE_MODEL_PIECES_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Limit of a text's size while it is processed: a hostile file could replace each letter by megabytes. */
#define PIECES_MAX_BYTES (32u << 20)

/* A string; borrowed, not NUL-terminated. */
struct token_text {
    const char *text;
    size_t size_bytes;
};

struct piece {
    uint32_t begin, size_bytes; /* in text */
};

struct pieces {
    struct buf text;
    struct piece *list;
    size_t n, capacity;
    bool at_start; /* the first piece is at the start of the whole text; set by the caller */
};

void pieces_init(struct pieces *p);
void pieces_release(struct pieces *p);
void pieces_clear(struct pieces *p); /* empty, memory kept */
int pieces_add(struct pieces *p, const char *text, size_t n) CHECK_RESULT;
/* Makes a piece of a part of p->text that the caller has appended. */
int pieces_mark(struct pieces *p, size_t begin, size_t n) CHECK_RESULT;
/* Valid until the list changes. */
struct token_text pieces_at(const struct pieces *p, size_t i);

#endif
