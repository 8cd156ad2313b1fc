/* recipe_print.c - prints a recipe as a file and the help page of its keys, and makes options of the keys. */
#include "recipe/recipe.h"

#include "base/page.h"
#include "recipe/recipe_private.h"

#include <stdlib.h>
#include <string.h>

static int print_prompts(const struct recipe *r, struct buf *ret)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_prompts; i++)
        rc = recipe_print_text(ret, r->prompts[i].is_question ? "question" : "prompt", r->prompts[i].text);
    return rc;
}

static int print_embeddings(const struct recipe *r, struct buf *ret)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < r->n_embeddings; i++)
        rc = buf_appendf(ret, "embed = %s:%s%s\n", msg_embedding_name(r->embeddings[i].kind),
                         dtype_word(r->embeddings[i].dtype), r->embeddings[i].first_row ? ":first" : "");
    return rc;
}

/* With the fewest digits that give the same float. */
static int print_real(struct buf *ret, const char *name, float value)
{
    char text[32];

    for (int digits = 1; digits < 10; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return buf_appendf(ret, "%s = %s\n", name, text);
}

static int print_key(const struct recipe *r, const struct recipe_key *k, struct buf *ret)
{
    const void *field = (const char *)r + k->offset;
    int rc = 0;

    switch (k->type) {
    case KEY_TEXT:
        return *(const char *)field ? recipe_print_text(ret, k->name, field) : 0;
    case KEY_COUNT:
        return buf_appendf(ret, "%s = %d\n", k->name, *(const int *)field);
    case KEY_REAL:
    case KEY_POSITIVE:
        return print_real(ret, k->name, *(const float *)field);
    case KEY_SEED:
        return buf_appendf(ret, "%s = %llu\n", k->name, (unsigned long long)r->decode.seed);
    case KEY_YES:
        return buf_appendf(ret, "%s = %s\n", k->name, *(const bool *)field ? "yes" : "no");
    case KEY_EITHER: {
        size_t first = strcspn(k->value, "|");

        return *(const bool *)field ? buf_appendf(ret, "%s = %s\n", k->name, k->value + first + 1)
                                    : buf_appendf(ret, "%s = %.*s\n", k->name, (int)first, k->value);
    }
    case KEY_EARLY:
        return buf_appendf(ret, "%s = %s\n", k->name, early_stopping_name(r->decode.early_stopping));
    case KEY_PROMPT:
        return print_prompts(r, ret);
    case KEY_SCORE:
        return buf_appendf(ret, "%s = %s\n", k->name,
                           r->itc && r->itm ? "itc,itm"
                           : r->itc         ? "itc"
                           : r->itm         ? "itm"
                                            : "none");
    case KEY_FIELD:
        for (uint32_t i = 0; rc == 0 && i < r->n_text_fields; i++)
            rc = recipe_print_text(ret, k->name, r->text_fields[i]);
        return rc;
    case KEY_EMBED:
        return print_embeddings(r, ret);
    case KEY_DTYPE:
        return buf_appendf(ret, "%s = %s\n", k->name,
                           *(const enum dtype *)field ? dtype_word(*(const enum dtype *)field) : "auto");
    case KEY_QUESTION: /* with the prompts, in their order */
    case KEY_DTYPES:   /* one by one */
        return 0;
    }
    return 0;
}

int recipe_print(const struct recipe *r, struct buf *ret)
{
    int rc = 0;

    for (int s = 0; rc == 0 && s < RECIPE_N_SECTIONS; s++) {
        if (recipe_sections[s].stage && !(r->stages & recipe_sections[s].stage))
            continue;
        if (recipe_sections[s].name[0])
            rc = buf_appendf(ret, "\n[%s]\n", recipe_sections[s].name);
        for (int i = 0; rc == 0 && i < RECIPE_N_KEYS; i++)
            if (strcmp(recipe_keys[i].section, recipe_sections[s].name) == 0)
                rc = print_key(r, &recipe_keys[i], ret);
    }
    return rc;
}

/* -- help -- */

/* "(from 1 to 64; default 1)" */
static void range_words(const struct recipe_key *k, char *ret, size_t size)
{
    struct recipe defaults;
    struct buf b;
    const char *equals;
    char range[64] = "";

    ret[0] = '\0';
    if (k->type == KEY_TEXT || k->type == KEY_SCORE || recipe_key_is_list((int)(k - recipe_keys)))
        return;
    recipe_init(&defaults);
    buf_init(&b, 0);
    if (k->max > 0)
        (void)snprintf(range, sizeof(range),
                       k->type == KEY_POSITIVE ? "above %.10g, up to %.10g; " : "from %.10g to %.10g; ", k->min,
                       k->max);
    if (print_key(&defaults, k, &b) == 0 && buf_append(&b, "", 1) == 0 && (equals = strstr((char *)b.data, " = ")))
        (void)snprintf(ret, size, "(%sdefault %.*s)", range, (int)strcspn(equals + 3, "\n"), equals + 3);
    buf_release(&b);
}

/* "beams = N" and its meaning below. */
static void print_key_help(const struct recipe_key *k, FILE *out)
{
    char range[96];

    range_words(k, range, sizeof(range));
    fprintf(out, "    %s = %s\n", k->name, k->value);
    page_item("", 8, k->help, out);
    if (range[0])
        page_item("", 8, range, out);
}

void recipe_print_help(FILE *out)
{
    page_text("RECIPE\n\n"
              "A recipe says what is computed. It is a text file of sections and keys:\n\n"
              "    [caption]\n"
              "    prompt = a photo of\n"
              "    beams = 5\n\n"
              "Each section [caption], [score] and [embed] adds what it is about. A line that begins with # or ; is a "
              "comment; so is the rest of a line after a space and a semicolon (not a #). Double quotes around a "
              "value keep spaces at its ends. A line that begins with spaces continues the value above. blipline "
              "caption, score and embed take a file or the name of a built-in recipe with --recipe. Each key is also "
              "an option (--beams 5), which overrides the recipe. The recipe is stored with the results, and a store "
              "can only be continued with the same one.\n\n"
              "Built-in recipes (blipline help recipe NAME prints one, to start your own from):\n\n",
              out);
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++) {
        char name[64];
        struct recipe r;

        (void)snprintf(name, sizeof(name), "    %s", b->name);
        if (recipe_parse(b->text, strlen(b->text), b->name, b->name, &r, NULL) == 0)
            page_item(name, 20, r.about, out);
    }
    for (int s = 0; s < RECIPE_N_SECTIONS; s++) {
        if (recipe_sections[s].name[0])
            fprintf(out, "\n[%s]\n    %s\n", recipe_sections[s].name, recipe_sections[s].what);
        else
            fputs("\nAbove the first section:\n", out);
        for (int i = 0; i < RECIPE_N_KEYS; i++)
            if (strcmp(recipe_keys[i].section, recipe_sections[s].name) == 0)
                print_key_help(&recipe_keys[i], out);
    }
}

bool recipe_option(unsigned stages, size_t i, size_t offset, struct cli_option *ret)
{
    for (int k = 0; k < RECIPE_N_KEYS; k++) {
        const struct recipe_key *key = &recipe_keys[k];
        unsigned stage = recipe_stage_of(key->section);

        if (!key->section[0] || (stage && !(stages & stage)))
            continue;
        if (i-- > 0)
            continue;
        *ret = (struct cli_option){.name = key->name,
                                   .letter = key->type == KEY_PROMPT ? 'p' : '\0',
                                   .type = CLI_SETTING,
                                   .offset = offset,
                                   .value = key->value,
                                   .help = key->help,
                                   .choices = key->implied};
        return true;
    }
    return false;
}
