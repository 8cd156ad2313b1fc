/* recipe_private.h - what client/recipe_*.c share.
 *
 * Who may call: they. Units, memory: none. Errors: as each says. */
#ifndef BLIPLINE_CLIENT_RECIPE_PRIVATE_H
#define BLIPLINE_CLIENT_RECIPE_PRIVATE_H

#include "client/recipe.h"

enum { RECIPE_MAX_KEYS = 64 };

int recipe_key_number(const char *name); /* -1: there is none */
bool recipe_key_is_list(int number);
const char *recipe_key_section(int number); /* "": above the first one */
/* The recipe asks for what the section is about; false: there is no such section. */
bool recipe_begin_section(struct recipe *r, const char *section);
/* "; did you mean SECTION?", or "". Returns `ret`. */
char *recipe_section_hint(const char *typed, char *ret, size_t ret_size);

/* "key = value", so that it is read as it is: in quotes or in several lines where it must be. */
int recipe_print_text(struct buf *ret, const char *key, const char *value) CHECK_RESULT;

#endif
