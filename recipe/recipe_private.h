/* recipe_private.h - shared by recipe/recipe_*.c only. Units, memory: none. Errors: as each says. */
#ifndef BLIPLINE_RECIPE_RECIPE_PRIVATE_H
#define BLIPLINE_RECIPE_RECIPE_PRIVATE_H

#include "recipe/recipe.h"

enum { RECIPE_MAX_KEYS = 64, RECIPE_N_KEYS = 26, RECIPE_N_SECTIONS = 6 };

enum recipe_key_type {
    KEY_TEXT,     /* char[] */
    KEY_COUNT,    /* uint32_t */
    KEY_REAL,     /* float */
    KEY_POSITIVE, /* float above `min` */
    KEY_SEED,     /* uint64_t */
    KEY_YES,      /* bool */
    KEY_EITHER,   /* bool; `value` is "FALSEWORD|TRUEWORD" */
    KEY_EARLY,    /* enum early_stopping */
    KEY_PROMPT,   /* list */
    KEY_QUESTION, /* the same list */
    KEY_SCORE,    /* itc, itm */
    KEY_FIELD,    /* list */
    KEY_EMBED,    /* list */
    KEY_DTYPE,    /* enum dtype, 0: auto */
    KEY_DTYPES,   /* all three dtypes */
};

struct recipe_key {
    const char *section; /* "": above the first section */
    const char *name;
    enum recipe_key_type type;
    size_t offset, size; /* in struct recipe; lists: 0 */
    double min, max;
    const char *value;   /* placeholder in help pages */
    const char *implied; /* the value of an option given without one; NULL: a value is required */
    const char *help;
};

/* In the order of files and help pages. */
extern const struct recipe_key recipe_keys[RECIPE_N_KEYS];

struct recipe_section {
    const char *name; /* "": above the first section */
    unsigned stage;   /* 0: applies to all */
    const char *what;
};

extern const struct recipe_section recipe_sections[RECIPE_N_SECTIONS];

const struct recipe_key *recipe_find_key(const char *name); /* NULL: unknown */
unsigned recipe_stage_of(const char *section);

int recipe_key_number(const char *name); /* -1: unknown */
bool recipe_key_is_list(int number);
const char *recipe_key_section(int number); /* "": above the first section */
/* Add the stage of the section to the recipe; false: unknown section. */
bool recipe_begin_section(struct recipe *r, const char *section);
/* "; did you mean SECTION?", or "". Returns `ret`. */
char *recipe_section_hint(const char *typed, char *ret, size_t ret_size);

/* Append "key = value", with quotes or on several lines if needed. */
int recipe_print_text(struct buf *ret, const char *key, const char *value) CHECK_RESULT;

#endif
