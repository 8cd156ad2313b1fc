/* config_private.h - shared by model/config*.c: reads the sections of the configuration files.
 *
 *   config.c         the files of a directory; vision model, Q-Former, the task
 *   config_lm.c      the language model and its special ids
 *   config_pixels.c  image preprocessing
 *
 * Who may call: model/config*.c. Units, errors: as in config.h.
 * Memory: readers borrow from their document. */
#ifndef BLIPLINE_MODEL_CONFIG_PRIVATE_H
#define BLIPLINE_MODEL_CONFIG_PRIVATE_H

#include "model/config.h"
#include "model/json.h"

/* Limits far above any published model, but low enough that products of them do not overflow. / */
enum {
    CONFIG_MAX_WIDTH = 1 << 16,
    CONFIG_MAX_FFN = 1 << 18,
    CONFIG_MAX_LAYERS = 1024,
    CONFIG_MAX_HEADS = 1024,
    CONFIG_MAX_VOCAB = 1 << 22,
    CONFIG_MAX_POSITIONS = 1 << 20,
    CONFIG_MAX_PIXELS = 8192, /* per side */
};

/* A section of the parent's document; `name` ends in a dot. */
struct json_reader config_section(const struct json_reader *parent, const char *name, const json_t *object);
/* Reads an integer from 1 to max. */
int config_read_size(struct json_reader *r, const char *key, int fallback, int max);
/* For keys with one implemented value: any other value is an error. */
void config_want_text(struct json_reader *r, const char *key, const char *fallback, const char *wanted);
void config_want_bool(struct json_reader *r, const char *key, bool wanted);
/* width / n_heads; a remainder is an error. */
int config_head_width(struct json_reader *r, const char *key, int width, int n_heads);

/* Reads text_config and generation_config.json into c->lm, opt, t5, the special ids and the note. */
int config_read_lm(struct json_reader *top, struct json_reader *text, struct json_reader *generation,
                   struct config *c) CHECK_RESULT;
/* Reads the image preprocessing. Without a document: the published values at image_size. */
int config_read_pixels(struct json_reader *r, int image_size, struct config_pixels *p) CHECK_RESULT;

#endif
