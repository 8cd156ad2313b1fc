/* recipe_builtin.c - the files of ops/recipes, as the Makefile turns them into a table. */
#include "recipe/recipe.h"

const struct recipe_builtin recipe_builtins[] = {
#include "recipe/recipe_texts.h"
    {0},
};
