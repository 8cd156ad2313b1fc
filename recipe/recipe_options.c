/* recipe_options.c - the options that reproduce the recipe of a store. */
#include "recipe/recipe.h"
#include "console/shell.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Prompts; stored questions are prompts too. */
static void of_stored(const struct msg_recipe *from, struct recipe *to)
{
    recipe_init(to);
    memcpy(to->name, from->name, sizeof(to->name));
    to->stages = (from->decode.max_new_tokens ? RECIPE_CAPTION : 0u) |
                 (from->itc || from->itm || from->n_text_fields ? RECIPE_SCORE : 0u) |
                 (from->n_embeddings ? RECIPE_EMBED : 0u);
    to->n_prompts = from->n_prompts;
    for (uint32_t i = 0; i < from->n_prompts; i++)
        memcpy(to->prompts[i].text, from->prompts[i], sizeof(to->prompts[i].text));
    if (from->decode.max_new_tokens)
        to->decode = from->decode;
    to->dtype_encode = from->dtype_encode;
    to->dtype_qformer = from->dtype_qformer;
    to->dtype_llm = from->dtype_llm;
    to->itc = from->itc;
    to->itm = from->itm;
    to->n_text_fields = from->n_text_fields;
    memcpy(to->text_fields, from->text_fields, sizeof(to->text_fields));
    to->n_embeddings = from->n_embeddings;
    memcpy(to->embeddings, from->embeddings, sizeof(to->embeddings));
    to->exif_orientation = from->exif_orientation;
    to->grey16_high_byte = from->grey16_high_byte;
}

static int add(struct buf *ret, const char *name, const char *value)
{
    char word[SHELL_SIZE], option[SHELL_SIZE];

    (void)snprintf(option, sizeof(option), "--%s=%s", name, value);
    return buf_appendf(ret, "%s%s", ret->size_bytes ? " " : "", shell_word(option, word, sizeof(word)));
}

/* The recipe as a file without lists and names: one key per line. */
static int print_values(const struct recipe *r, struct buf *ret)
{
    struct recipe *values = malloc(sizeof(*values));
    int rc;

    if (!values)
        return -ENOMEM;
    *values = *r;
    values->name[0] = values->about[0] = '\0';
    values->n_prompts = values->n_text_fields = values->n_embeddings = 0;
    rc = recipe_print(values, ret);
    if (rc == 0)
        rc = buf_append(ret, "", 1);
    free(values);
    return rc;
}

static bool has_line(const char *text, const char *line, size_t n)
{
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, line, n) == 0 && at[n] == '\n')
            return true;
    }
    return false;
}

/* Adds --key=value for each "key = value" that differs in the other recipe. */
static int add_values(const struct recipe *r, const struct recipe *than, struct buf *ret)
{
    struct buf texts[2];
    int rc;

    buf_init(&texts[0], 0);
    buf_init(&texts[1], 0);
    rc = print_values(r, &texts[0]);
    if (rc == 0)
        rc = print_values(than, &texts[1]);
    for (char *line = rc == 0 ? (char *)texts[0].data : NULL; line && *line && rc == 0;) {
        const size_t n = strcspn(line, "\n");
        char *equals = strstr(line, " = ");
        const bool is_new = equals && equals < line + n && !has_line((const char *)texts[1].data, line, n);
        char *next = line[n] ? line + n + 1 : NULL;

        line[n] = '\0';
        if (is_new) {
            *equals = '\0';
            rc = add(ret, line, equals + 3);
        }
        line = next;
    }
    buf_release(&texts[0]);
    buf_release(&texts[1]);
    return rc;
}

static int add_lists(const struct recipe *r, const struct recipe *than, struct buf *ret)
{
    bool prompts = r->n_prompts != than->n_prompts, fields = r->n_text_fields != than->n_text_fields;
    int rc = 0;

    for (uint32_t i = 0; i < r->n_prompts && !prompts; i++)
        prompts = than->prompts[i].is_question || strcmp(r->prompts[i].text, than->prompts[i].text) != 0;
    for (uint32_t i = 0; prompts && rc == 0 && i < r->n_prompts; i++)
        rc = add(ret, "prompt", r->prompts[i].text);
    for (uint32_t i = 0; i < r->n_text_fields && !fields; i++)
        fields = strcmp(r->text_fields[i], than->text_fields[i]) != 0;
    for (uint32_t i = 0; fields && rc == 0 && i < r->n_text_fields; i++)
        rc = add(ret, "text-field", r->text_fields[i]);
    if (r->n_embeddings == than->n_embeddings &&
        memcmp(r->embeddings, than->embeddings, r->n_embeddings * sizeof(r->embeddings[0])) == 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < r->n_embeddings; i++) {
        const struct msg_embedding_spec *e = &r->embeddings[i];
        char value[48];

        (void)snprintf(value, sizeof(value), "%s:%s%s", msg_embedding_name(e->kind), dtype_word(e->dtype),
                       e->first_row ? ":first" : "");
        rc = add(ret, "embed", value);
    }
    return rc;
}

static bool is_builtin(const char *name)
{
    const struct recipe_builtin *b = recipe_builtins;

    while (b->name && strcmp(b->name, name) != 0)
        b++;
    return b->name;
}

int recipe_options(const struct msg_recipe *stored, const struct msg_recipe *asked, struct buf *ret)
{
    const bool other = strcmp(stored->name, asked->name) != 0;
    struct recipe *r, *than;
    char file[MSG_NAME_SIZE + 8];
    int rc;

    (void)snprintf(file, sizeof(file), "%s%s", stored->name, is_builtin(stored->name) ? "" : ".conf");
    rc = other ? add(ret, "recipe", file) : 0;
    if (rc < 0 || (other && !is_builtin(stored->name)))
        return rc; /* what the file says, it says */
    r = malloc(sizeof(*r));
    than = malloc(sizeof(*than));
    rc = r && than ? 0 : -ENOMEM;
    if (rc == 0) {
        of_stored(stored, r);
        of_stored(asked, than);
    }
    if (rc == 0 && other)
        rc = recipe_load(stored->name, than, NULL);
    if (rc == 0) {
        than->dtype_encode = asked->dtype_encode;
        than->dtype_qformer = asked->dtype_qformer;
        than->dtype_llm = asked->dtype_llm;
        rc = add_values(r, than, ret);
    }
    if (rc == 0)
        rc = add_lists(r, than, ret);
    free(r);
    free(than);
    return rc;
}
