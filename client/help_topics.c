/* help_topics.c - the pages of `blipline help TOPIC`. */
#include <stddef.h>
#include <string.h>

#include "base/nearest.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "recipe/recipe.h"

static int print_recipe(const char *name, FILE *out)
{
    const char *words[32];
    char hint[96];
    size_t n;

    for (const struct recipe_builtin *b = recipe_builtins; name && b->name; b++) {
        if (strcmp(b->name, name) == 0) {
            fputs(b->text, out);
            return CLI_EXIT_OK;
        }
    }
    if (!name) {
        recipe_print_help(out);
        return CLI_EXIT_OK;
    }
    for (n = 0; n < 31 && recipe_builtins[n].name; n++)
        words[n] = recipe_builtins[n].name;
    words[n] = NULL;
    cli_error("unknown built-in recipe %s%s (blipline help recipe lists them)", name,
              nearest_hint("", name, words, hint, sizeof(hint)));
    return CLI_EXIT_USAGE;
}

const struct help_topic help_topics[] = {
    {"sources", "which pictures can be processed, and how to name them", HELP_SOURCES, NULL},
    {"recipe", "what can be computed: recipes and their keys", NULL, print_recipe},
    {"store", "what a store is, and who may read it", HELP_STORE, NULL},
    {"recovery", "stopping, crashing and continuing", HELP_RECOVERY, NULL},
    {"keys", "keys for connections by tcp: who may do what", HELP_KEYS, NULL},
    {"json", "what --json prints", HELP_JSON, NULL},
    {"exit-codes", "what the exit codes mean", HELP_EXIT_CODES, NULL},
    {NULL, NULL, NULL, NULL},
};
