/* recipe_values.c - the values of a recipe's keys, from a file or the command line. */
#include "recipe/recipe.h"

#include "base/nearest.h"
#include "recipe/recipe_private.h"
#include "proto/msg.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Lists, whose values an option replaces: bits of `begun`. */
enum { LIST_PROMPTS = 1, LIST_FIELDS = 2, LIST_EMBEDDINGS = 4 };

/* A key being set. */
struct place {
    struct recipe *r;
    const struct recipe_key *key;
    const char *value, *where;
    unsigned *begun;
    struct err *err;
};

static int wanted(const struct place *p, const char *what)
{
    bool is_option = strncmp(p->where, "--", 2) == 0; /* `where` has the name */

    return err_set(p->err, -EINVAL, "%s%s%s%s%.100s: expected %s", p->where, is_option ? "" : ": ",
                   is_option ? "" : p->key->name, is_option ? " " : " = ", p->value, what);
}

/* Empties a list the first time that an option sets it. */
static uint32_t begin_list(const struct place *p, unsigned list, uint32_t *n)
{
    if (!(*p->begun & list))
        *n = 0;
    *p->begun |= list;
    return *n;
}

static int parse_number(const struct place *p, double *ret)
{
    const struct recipe_key *k = p->key;
    char *end, what[80];
    double n;

    errno = 0;
    n = strtod(p->value, &end);
    if (errno || end == p->value || *end || isspace((unsigned char)*p->value) || !isfinite(n) || n < k->min ||
        n > k->max || (k->type == KEY_COUNT && n != floor(n)) ||
        (k->type == KEY_POSITIVE && (double)(float)n <= k->min)) {
        (void)snprintf(what, sizeof(what),
                       k->type == KEY_POSITIVE ? "%s above %.10g, up to %.10g" : "%s from %.10g to %.10g",
                       k->type == KEY_COUNT ? "a whole number" : "a number", k->min, k->max);
        return wanted(p, what);
    }
    *ret = n;
    return 0;
}

static int set_number(const struct place *p)
{
    void *field = (char *)p->r + p->key->offset;
    double n = 0;
    int rc = parse_number(p, &n);

    if (rc < 0)
        return rc;
    if (p->key->type == KEY_COUNT)
        *(int *)field = (int)n;
    else
        *(float *)field = (float)n;
    return 0;
}

static int set_seed(const struct place *p)
{
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(p->value, &end, 10);
    if (errno || *end || !isdigit((unsigned char)*p->value))
        return wanted(p, "a whole number, 0 or more");
    p->r->decode.seed = n;
    return 0;
}

/* The index of the word in the NULL-terminated list, or -1. */
static int find_word(const char *const *words, const char *value)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], value) == 0)
            return i;
    return -1;
}

static int set_yes(const struct place *p)
{
    static const char *const words[] = {"no", "yes", "false", "true", NULL};
    int i = find_word(words, p->value);

    if (i < 0)
        return wanted(p, "yes or no");
    *(bool *)((char *)p->r + p->key->offset) = i & 1;
    return 0;
}

static int set_either(const struct place *p)
{
    size_t first = strcspn(p->key->value, "|");
    bool is_true = strcmp(p->value, p->key->value + first + 1) == 0;
    char what[64];

    if (!is_true && (strlen(p->value) != first || strncmp(p->value, p->key->value, first) != 0)) {
        (void)snprintf(what, sizeof(what), "%.*s or %s", (int)first, p->key->value, p->key->value + first + 1);
        return wanted(p, what);
    }
    *(bool *)((char *)p->r + p->key->offset) = is_true;
    return 0;
}

static int set_early(const struct place *p)
{
    static const char *const words[] = {"false", "true", "never", NULL};
    int i = find_word(words, p->value);

    if (i < 0)
        return wanted(p, "false, true or never");
    p->r->decode.early_stopping = (enum early_stopping)i;
    return 0;
}

static int set_dtype(const struct place *p)
{
    static const char *const words[] = {"auto", "fp32", "bf16", "fp16", "fp8", NULL};
    static const enum dtype dtypes[] = {0, DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3};
    enum dtype *field = (enum dtype *)((char *)p->r + p->key->offset);
    int i = find_word(words, p->value);
    struct recipe *r = p->r;

    if (i < 0)
        return wanted(p, "fp32, bf16, fp16, fp8 or auto");
    if (p->key->type == KEY_DTYPES) {
        r->dtype_encode = r->dtype_llm = dtypes[i];
        r->dtype_qformer = dtypes[i] == DTYPE_F8_E4M3 ? DTYPE_BF16 : dtypes[i];
        return 0;
    }
    if (field == &r->dtype_qformer && dtypes[i] == DTYPE_F8_E4M3)
        return wanted(p, "fp32, bf16, fp16 or auto (the Q-Former does not support fp8)");
    *field = dtypes[i];
    return 0;
}

static int add_prompt(const struct place *p)
{
    uint32_t n = p->r->n_prompts;
    struct recipe_prompt *to;

    if (strlen(p->value) >= MSG_PROMPT_SIZE)
        return err_set(p->err, -EINVAL, "%s: the %s is longer than %d bytes", p->where, p->key->name,
                       MSG_PROMPT_SIZE - 1);
    n = begin_list(p, LIST_PROMPTS, &n);
    if (n == MSG_MAX_PROMPTS)
        return err_set(p->err, -EINVAL, "%s: more than %d prompts and questions", p->where, MSG_MAX_PROMPTS);
    to = &p->r->prompts[n];
    (void)msg_text_set(to->text, sizeof(to->text), p->value);
    to->is_question = p->key->type == KEY_QUESTION;
    p->r->n_prompts = n + 1;
    return 0;
}

static int add_field(const struct place *p)
{
    uint32_t n = p->r->n_text_fields;

    if (!p->value[0] || strlen(p->value) >= MSG_NAME_SIZE)
        return wanted(p, "the name of a column");
    n = begin_list(p, LIST_FIELDS, &n);
    if (n == MSG_MAX_TEXT_FIELDS)
        return err_set(p->err, -EINVAL, "%s: more than %d text fields", p->where, MSG_MAX_TEXT_FIELDS);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(p->r->text_fields[i], p->value) == 0)
            return err_set(p->err, -EINVAL, "%s: text-field %s twice", p->where, p->value);
    (void)msg_text_set(p->r->text_fields[n], MSG_NAME_SIZE, p->value);
    p->r->n_text_fields = n + 1;
    return 0;
}

static int parse_embedding(const struct place *p, struct msg_embedding_spec *ret)
{
    struct msg_embedding_spec e = {.dtype = DTYPE_F32};
    char words[64], *rest = words, *word;

    if (!msg_text_set(words, sizeof(words), p->value))
        return wanted(p, "query, itc, itc_text or cls");
    word = strsep(&rest, ":");
    for (int k = MSG_EMBEDDING_QUERY; k <= MSG_EMBEDDING_CLS; k++)
        if (strcmp(word, msg_embedding_name((enum msg_embedding)k)) == 0)
            e.kind = (enum msg_embedding)k;
    if (!e.kind)
        return wanted(p, "query, itc, itc_text or cls");
    while ((word = strsep(&rest, ":"))) {
        if (strcmp(word, "fp16") == 0)
            e.dtype = DTYPE_F16;
        else if (strcmp(word, "first") == 0 && e.kind == MSG_EMBEDDING_ITC)
            e.first_row = true;
        else if (strcmp(word, "fp32") != 0)
            return wanted(p, e.kind == MSG_EMBEDDING_ITC ? "fp16, fp32 or first after the colon"
                                                         : "fp16 or fp32 after the colon");
    }
    *ret = e;
    return 0;
}

static int add_embedding(const struct place *p)
{
    struct msg_embedding_spec e;
    uint32_t n = p->r->n_embeddings;
    int rc = parse_embedding(p, &e);

    if (rc < 0)
        return rc;
    n = begin_list(p, LIST_EMBEDDINGS, &n);
    for (uint32_t i = 0; i < n; i++) /* each kind once, so there are never too many */
        if (p->r->embeddings[i].kind == e.kind)
            return err_set(p->err, -EINVAL, "%s: embed %s twice", p->where, msg_embedding_name(e.kind));
    p->r->embeddings[n] = e;
    p->r->n_embeddings = n + 1;
    return 0;
}

static int set_score(const struct place *p)
{
    static const char *const names[] = {"itc", "itm", NULL};
    char words[64], *rest = words, *word;
    bool has[2] = {false, false};

    if (!msg_text_set(words, sizeof(words), p->value))
        return wanted(p, "itc, itm, both with a comma between them, or none");
    while (strcmp(p->value, "none") != 0 && (word = strsep(&rest, ", "))) {
        int i = find_word(names, word);

        if (i < 0 && *word)
            return wanted(p, "itc, itm, both with a comma between them, or none");
        if (i >= 0)
            has[i] = true;
    }
    if (strcmp(p->value, "none") != 0 && !has[0] && !has[1])
        return wanted(p, "itc, itm, both with a comma between them, or none");
    p->r->itc = has[0];
    p->r->itm = has[1];
    return 0;
}

static int set_text(const struct place *p)
{
    if (strlen(p->value) >= p->key->size || (p->key->min > 0 && !*p->value))
        return err_set(p->err, -EINVAL, "%s: %s is %s", p->where, p->key->name, *p->value ? "too long" : "empty");
    (void)msg_text_set((char *)p->r + p->key->offset, p->key->size, p->value);
    return 0;
}

int recipe_set(struct recipe *r, const char *key, const char *value, const char *where, unsigned *begun,
               struct err *err)
{
    static int (*const set[])(const struct place *) = {
        [KEY_TEXT] = set_text,       [KEY_COUNT] = set_number, [KEY_REAL] = set_number,   [KEY_SEED] = set_seed,
        [KEY_POSITIVE] = set_number, [KEY_YES] = set_yes,      [KEY_EARLY] = set_early,   [KEY_PROMPT] = add_prompt,
        [KEY_QUESTION] = add_prompt, [KEY_SCORE] = set_score,  [KEY_FIELD] = add_field,   [KEY_EMBED] = add_embedding,
        [KEY_DTYPE] = set_dtype,     [KEY_DTYPES] = set_dtype, [KEY_EITHER] = set_either,
    };
    const char *names[RECIPE_N_KEYS + 1];
    char hint[96];
    const struct recipe_key *k = recipe_find_key(key);
    struct place p = {.r = r, .key = k, .value = value, .where = where, .begun = begun, .err = err};

    if (k)
        return set[k->type](&p);
    for (int i = 0; i < RECIPE_N_KEYS; i++)
        names[i] = recipe_keys[i].name;
    names[RECIPE_N_KEYS] = NULL;
    return err_set(err, -EINVAL, "%s: unknown key %.60s%s (blipline help recipe lists the keys)", where, key,
                   nearest_hint("", key, names, hint, sizeof(hint)));
}

/* Options that have no effect with the others. */
static int check_effect(const struct recipe *r, const struct cli_settings *settings, struct err *err)
{
    static const char *const sampling[] = {"temperature", "top-k", "top-p", "seed", NULL};
    static const char *const beams[] = {"length-penalty", "early-stopping", NULL};

    for (int i = 0; i < settings->n; i++) {
        const char *name = settings->list[i].name;

        if (!r->decode.sample && find_word(sampling, name) >= 0)
            return err_set(err, -EINVAL, "--%s has no effect without sampling: add --sample, or omit it", name);
        if (r->decode.n_beams < 2 && find_word(beams, name) >= 0)
            return err_set(err, -EINVAL, "--%s has no effect without beams: add --beams N, or omit it", name);
    }
    return 0;
}

int recipe_override(struct recipe *r, const struct cli_settings *settings, struct err *err)
{
    unsigned begun = 0;

    for (int i = 0; i < settings->n; i++) {
        const struct cli_setting *s = &settings->list[i];
        const struct recipe_key *k = recipe_find_key(s->name);
        unsigned stage = k ? recipe_stage_of(k->section) : 0;
        char where[64];
        int rc;

        (void)snprintf(where, sizeof(where), "--%s", s->name);
        if (k && (k->type == KEY_SCORE || k->type == KEY_FIELD || k->type == KEY_EMBED))
            r->stages |= stage;
        if (stage && !(r->stages & stage))
            return err_set(err, -EINVAL, "%s: the recipe %s writes no captions, so this has no effect", where, r->name);
        rc = recipe_set(r, s->name, s->value, where, &begun, err);
        if (rc < 0)
            return rc;
    }
    if (!r->itc && !r->itm && r->n_text_fields == 0)
        r->stages &= ~(unsigned)RECIPE_SCORE;
    return check_effect(r, settings, err);
}
