/* recipe_builtin.c - the files of ops/recipes, as the Makefile turns them into a table. */
#include "client/recipe.h"

const struct recipe_builtin recipe_builtins[] = {
#include "client/recipe_texts.h"
    {0},
};
