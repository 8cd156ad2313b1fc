/* config_private.h - what model/config*.c share: how the sections of the configuration files are read.
 *
 *   config.c         the files of a directory; vision model, Q-Former, what the checkpoint is for
 *   config_lm.c      the language model and its special ids
 *   config_pixels.c  what is done with a picture before the first layer
 *
 * Who may call: they. Units, errors: as in config.h.
 * Memory: readers borrow from their document. */
#ifndef BLIPLINE_MODEL_CONFIG_PRIVATE_H
#define BLIPLINE_MODEL_CONFIG_PRIVATE_H

#include "model/config.h"
#include "model/json.h"

/* Limits far above any published model, low enough that products of two stay in 64 bits and of a few in memory sizes.
 */
enum {
    CONFIG_MAX_WIDTH = 1 << 16,
    CONFIG_MAX_FFN = 1 << 18,
    CONFIG_MAX_LAYERS = 1024,
    CONFIG_MAX_HEADS = 1024,
    CONFIG_MAX_VOCAB = 1 << 22,
    CONFIG_MAX_POSITIONS = 1 << 20,
    CONFIG_MAX_PIXELS = 8192, /* of a side */
};

/* A section of the parent's document; `name` ends in a dot. */
struct json_reader config_section(const struct json_reader *parent, const char *name, const json_t *object);
/* 1 to max. */
int config_read_size(struct json_reader *r, const char *key, int fallback, int max);
/* Where only one value is implemented: any other fails the reader. */
void config_want_text(struct json_reader *r, const char *key, const char *fallback, const char *wanted);
void config_want_bool(struct json_reader *r, const char *key, bool wanted);
/* width / n_heads, which must be whole. */
int config_head_width(struct json_reader *r, const char *key, int width, int n_heads);

/* text_config and what belongs to it, into c->lm, opt, t5, the special ids and the note. */
int config_read_lm(struct json_reader *top, struct json_reader *text, struct json_reader *generation,
                   struct config *c) CHECK_RESULT;
/* A picture's size and numbers. No document: the published numbers at image_size. */
int config_read_pixels(struct json_reader *r, int image_size, struct config_pixels *p) CHECK_RESULT;

#endif
