/* recipe.h - what a job is to compute, as a user writes it: a recipe file, with command line options on top.
 *
 *   recipe_keys.c     one table of keys, by which
 *   recipe_values.c     parses them, from files and the command line
 *   recipe_print.c      prints them, makes `blipline help recipe` and the options of caption, score and embed
 *   recipe_file.c     the INI form
 *   recipe_builtin.c  ops/recipes, built into the command
 *   recipe_options.c  the options that a recipe of a store stands for
 *
 * It becomes a struct msg_recipe once the checkpoints are known (recipe/plan.h).
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
    bool is_question; /* goes into the words that the language model was trained with */
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

/* Nothing to do yet; every key at its default. */
void recipe_init(struct recipe *r);

/* A built-in recipe by its name, or else the file. The stages are those of its sections. */
int recipe_load(const char *name_or_path, struct recipe *ret, struct err *err) CHECK_RESULT;
/* A recipe file's text; `name` is that of the recipe unless it says another, `where` that of messages. */
int recipe_parse(const char *text, size_t bytes, const char *name, const char *where, struct recipe *ret,
                 struct err *err) CHECK_RESULT;
/* "Name" = "value" as in a file of one section, where keys need not say theirs; `where` is named in errors.
 * `begun`, zero at first, remembers of which lists the values have been replaced. */
int recipe_set(struct recipe *r, const char *key, const char *value, const char *where, unsigned *begun,
               struct err *err) CHECK_RESULT;
/* Options over a recipe: the last one counts; a list that is given replaces the recipe's. A key of a stage that the
 * recipe does not have is refused, but `score` and `embed`, which add theirs. */
int recipe_override(struct recipe *r, const struct cli_settings *settings, struct err *err) CHECK_RESULT;
/* What one stage needs of another, and ranges that concern several keys. Errors name the cure as a key of a recipe file
 * or as an option of the command line. */
enum recipe_form { RECIPE_FILE, RECIPE_OPTIONS };
int recipe_check(const struct recipe *r, enum recipe_form form, struct err *err) CHECK_RESULT;

/* Append the recipe as a recipe file. Parsing the file gives the same recipe, unless a value has line ends (then a
 * comment says so), or is long and has a semicolon or no spaces. */
int recipe_print(const struct recipe *r, struct buf *ret) CHECK_RESULT;
/* Append the options, quoted for a shell, that a command with the recipe `asked` needs to have the recipe `stored`.
 * They replace those that it was given. Nothing if the only difference is a list that would have to be left out. */
int recipe_options(const struct msg_recipe *stored, const struct msg_recipe *asked, struct buf *ret) CHECK_RESULT;
/* The keys of all sections with their meaning, defaults and ranges. */
void recipe_print_help(FILE *out);
/* Option `i` of a command with these stages (see struct cli_command.more_options). */
bool recipe_option(unsigned stages, size_t i, size_t offset, struct cli_option *ret);

/* Those that come with the program, the text as it is in ops/recipes; a NULL name ends the table. */
struct recipe_builtin {
    const char *name, *text;
};
extern const struct recipe_builtin recipe_builtins[];

#endif
