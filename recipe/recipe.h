/* recipe.h - recipes as users write them: a recipe file, overridden by command line options.
 *
 *   recipe_keys.c     the table of keys
 *   recipe_values.c   parses values from files and the command line
 *   recipe_print.c    prints recipes, `blipline help recipe`, and the options of caption, score and embed
 *   recipe_file.c     reads recipe files (INI)
 *   recipe_builtin.c  ops/recipes, built into the command
 *   recipe_options.c  the options that reproduce the recipe of a store
 *
 * recipe/plan.h turns a recipe into a struct msg_recipe once the checkpoints are known.
 * Who may call: the commands. Units: tokens; texts are UTF-8 (checked by plan). Memory: plain values.
 * Errors: -EINVAL with file and line (or option), key, and what was expected; a call that fails has changed nothing. */
#ifndef BLIPLINE_RECIPE_RECIPE_H
#define BLIPLINE_RECIPE_RECIPE_H

#include "base/buf.h"
#include "base/err.h"
#include "console/cli.h"
#include "proto/recipe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum recipe_stage { RECIPE_CAPTION = 1, RECIPE_SCORE = 2, RECIPE_EMBED = 4 };

struct recipe_prompt {
    char text[MSG_PROMPT_SIZE];
    bool is_question; /* put into the question form that the language model was trained with */
};

struct recipe {
    char name[MSG_NAME_SIZE];
    char about[256];
    unsigned stages; /* bits of enum recipe_stage */
    uint32_t n_prompts;
    struct recipe_prompt prompts[MSG_MAX_PROMPTS];
    struct generation_options decode;
    enum dtype dtype_encode, dtype_qformer, dtype_llm; /* 0: auto */
    bool itc, itm;
    uint32_t n_text_fields;
    char text_fields[MSG_MAX_TEXT_FIELDS][MSG_NAME_SIZE];
    uint32_t n_embeddings;
    struct msg_embedding_spec embeddings[MSG_MAX_EMBEDDINGS];
    bool exif_orientation, grey16_high_byte; /* as in struct msg_recipe */
};

/* No stages; every key at its default. */
void recipe_init(struct recipe *r);

/* Load a built-in recipe or a file. Its sections determine the stages. */
int recipe_load(const char *name_or_path, struct recipe *ret, struct err *err) CHECK_RESULT;
/* Parse the text of a recipe file. `name` is used unless the text has a name; errors begin with `where`. */
int recipe_parse(const char *text, size_t bytes, const char *name, const char *where, struct recipe *ret,
                 struct err *err) CHECK_RESULT;
/* Set one key; errors begin with `where`. `begun`, zero at first, has a bit for each list whose earlier values have
 * been replaced. */
int recipe_set(struct recipe *r, const char *key, const char *value, const char *where, unsigned *begun,
               struct err *err) CHECK_RESULT;
/* Apply options to a recipe. The last value of an option counts; a list replaces that of the recipe. Keys of a stage
 * that the recipe lacks are refused, except for `score` and `embed`, which add their stage. */
int recipe_override(struct recipe *r, const struct cli_settings *settings, struct err *err) CHECK_RESULT;
/* Check combinations of keys and stages. Errors name the cure as a key of a recipe file or as an option. */
enum recipe_form { RECIPE_FILE, RECIPE_OPTIONS };
int recipe_check(const struct recipe *r, enum recipe_form form, struct err *err) CHECK_RESULT;

/* Append the recipe as a recipe file. Parsing it gives the same recipe, except for values with line ends (a comment
 * says so) and long values with a semicolon or without spaces. */
int recipe_print(const struct recipe *r, struct buf *ret) CHECK_RESULT;
/* Append the options, quoted for a shell, that turn the recipe `asked` into `stored`; they replace the options of the
 * command. Appends nothing if the only difference is a list that would have to be omitted. */
int recipe_options(const struct msg_recipe *stored, const struct msg_recipe *asked, struct buf *ret) CHECK_RESULT;
/* Print all keys with their meanings, defaults and ranges. */
void recipe_print_help(FILE *out);
/* Option `i` of a command with these stages (see struct cli_command.more_options). */
bool recipe_option(unsigned stages, size_t i, size_t offset, struct cli_option *ret);

/* The files of ops/recipes; a NULL name ends the table. */
struct recipe_builtin {
    const char *name, *text;
};
extern const struct recipe_builtin recipe_builtins[];

#endif
