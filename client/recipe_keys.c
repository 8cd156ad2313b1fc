/* recipe_keys.c - the keys of a recipe: one table that parses, prints and explains them. */
#include "client/recipe.h"

#include "base/nearest.h"
#include "base/page.h"
#include "client/recipe_private.h"
#include "proto/msg.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum key_type {
    KEY_TEXT,     /* char[], about the recipe */
    KEY_COUNT,    /* uint32_t */
    KEY_REAL,     /* float */
    KEY_POSITIVE, /* float above `min` */
    KEY_SEED,     /* uint64_t */
    KEY_YES,      /* bool */
    KEY_EITHER,   /* bool; `value` has the words of false and true */
    KEY_EARLY,    /* enum msg_early_stopping */
    KEY_PROMPT,   /* list */
    KEY_QUESTION, /* the same list */
    KEY_SCORE,    /* itc, itm */
    KEY_FIELD,    /* list */
    KEY_EMBED,    /* list */
    KEY_DTYPE,    /* enum msg_dtype, 0: auto */
    KEY_DTYPES,   /* all three of them */
};

/* Lists, of which an option replaces the recipe's values: bits of `begun`. */
enum { LIST_PROMPTS = 1, LIST_FIELDS = 2, LIST_EMBEDDINGS = 4 };

struct key {
    const char *section; /* "": above the first one */
    const char *name;
    enum key_type type;
    size_t offset, size; /* in struct recipe; of lists: 0 */
    double min, max;
    const char *value;   /* how the value is named */
    const char *implied; /* the value of an option without one; NULL: there is none */
    const char *help;
};

#define AT(field) offsetof(struct recipe, field), sizeof(((struct recipe *)0)->field)

static const struct key keys[] = {
    {"", "name", KEY_TEXT, AT(name), 1, 0, "NAME", NULL,
     "what stores and messages call it; without it, the file's name without .conf"},
    {"", "about", KEY_TEXT, AT(about), 0, 0, "TEXT", NULL, "one line for the list of recipes"},

    {"caption", "prompt", KEY_PROMPT, 0, 0, 0, 0, "TEXT", NULL,
     "the words that the caption continues; {NAME} is a column of the item's list row, {key} its key, {{ and }} are "
     "braces. May be given several times, at most 8 with the questions and of 2047 bytes each: each gives its "
     "captions, in "
     "one pass over the image. Without one the caption begins with the model's first token"},
    {"caption", "question", KEY_QUESTION, 0, 0, 0, 0, "TEXT", NULL,
     "a prompt in the words that the language model knows for questions: \"Question: TEXT Answer:\" for OPT, "
     "\"Question: "
     "TEXT Short answer:\" for FlanT5. {question} asks what the item's row asks, each value of a list by itself"},
    {"caption", "captions", KEY_COUNT, AT(decode.n_return), 1, MSG_MAX_RETURN, "N", NULL,
     "captions a prompt: the best N beams, or N samples. A picture has at most 32 captions and texts in all"},
    {"caption", "max-new-tokens", KEY_COUNT, AT(decode.max_new_tokens), 1, MSG_MAX_NEW_TOKENS, "N", NULL,
     "tokens of a caption at most, its end included"},
    {"caption", "min-new-tokens", KEY_COUNT, AT(decode.min_new_tokens), 0, MSG_MAX_NEW_TOKENS, "N", NULL,
     "a caption does not end before"},
    {"caption", "beams", KEY_COUNT, AT(decode.n_beams), 1, MSG_MAX_BEAMS, "N", NULL,
     "width of the beam search; 1 is greedy, or sampling"},
    {"caption", "length-penalty", KEY_REAL, AT(decode.length_penalty), -100, 100, "X", NULL,
     "beams: a caption's score is its log-probability / length^X; below 0 short ones are preferred"},
    {"caption", "early-stopping", KEY_EARLY, AT(decode.early_stopping), 0, 0, "WHEN", "true",
     "beams: true ends as soon as there are as many captions as beams; false when the best running one is unlikely to "
     "do better; never when it cannot"},
    {"caption", "repetition-penalty", KEY_POSITIVE, AT(decode.repetition_penalty), 0, 100, "X", NULL,
     "scores of tokens that were there before are divided by X (multiplied where negative); 1 is none"},
    {"caption", "no-repeat-ngram", KEY_COUNT, AT(decode.no_repeat_ngram), 0, MSG_MAX_NEW_TOKENS, "N", NULL,
     "no N tokens in a row come twice; 0 is no rule"},
    {"caption", "sample", KEY_YES, AT(decode.sample), 0, 0, "yes|no", "yes",
     "draw tokens at random instead of taking the most probable"},
    {"caption", "temperature", KEY_POSITIVE, AT(decode.temperature), 0, 1000, "X", NULL,
     "sampling: logits are divided by X"},
    {"caption", "top-k", KEY_COUNT, AT(decode.top_k), 0, 1 << 22, "N", NULL,
     "sampling: only among the N most probable; 0 is all"},
    {"caption", "top-p", KEY_POSITIVE, AT(decode.top_p), 0, 1, "X", NULL,
     "sampling: only among the most probable that together reach X (nucleus)"},
    {"caption", "seed", KEY_SEED, AT(decode.seed), 0, 0, "N", NULL,
     "sampling: the same seed gives the same captions, however the work is cut up"},

    {"score", "score", KEY_SCORE, 0, 0, 0, 0, "WHAT", "itc,itm",
     "how well each caption, and each text of text-field, fits the image: itc (similarity), itm (probability of a "
     "match, "
     "slower), itc,itm (default), or none. Needs a retrieval checkpoint"},
    {"score", "text-field", KEY_FIELD, 0, 0, 0, 0, "NAME", NULL,
     "a column of the item's list row with a text, or a list of texts, that is kept as a caption and scored like one. "
     "May be given several times, at most 4"},

    {"embed", "embed", KEY_EMBED, 0, 0, 0, 0, "KIND", NULL,
     "numbers to keep for an image: query (the Q-Former's outputs, Q x E), cls (the image encoder's class token), and "
     "with "
     "a retrieval checkpoint itc (image embeddings, Q x d; itc:first is the first row alone) and itc_text (one row a "
     "caption or text). A type may follow: query:fp16; fp32 is the default. May be given several times"},

    {"pixels", "exif-orientation", KEY_EITHER, AT(exif_orientation), 0, 0, "ignore|apply", NULL,
     "what to do with the orientation that a camera notes in EXIF data: ignore it, as the reference does, or turn the "
     "picture by it"},
    {"pixels", "grey16", KEY_EITHER, AT(grey16_high_byte), 0, 0, "clip|high-byte", NULL,
     "16-bit grey PNG: clip makes everything above 255 white, as Pillow and so the reference does; high-byte keeps the "
     "upper 8 bits, which is what such a picture looks like"},

    {"precision", "dtype", KEY_DTYPES, 0, 0, 0, 0, "TYPE", NULL,
     "of all stages: fp32; bf16, where the processor has it; on GPUs also fp16 and fp8; or auto, which is bf16 on GPUs "
     "and fp32 on the CPU. fp8 is that of the image encoder's and OPT's matrices, the rest is bf16 then (with FlanT5 "
     "set llm-dtype to bf16 too). A store keeps "
     "the types that it was begun with: to go on with it on the other kind of device, say them"},
    {"precision", "encoder-dtype", KEY_DTYPE, AT(dtype_encode), 0, 0, "TYPE", NULL, "of the image encoder"},
    {"precision", "qformer-dtype", KEY_DTYPE, AT(dtype_qformer), 0, 0, "TYPE", NULL, "of the Q-Former; not fp8"},
    {"precision", "llm-dtype", KEY_DTYPE, AT(dtype_llm), 0, 0, "TYPE", NULL,
     "of the language model; FlanT5 takes fp32 and bf16 alone"},
};

enum { N_KEYS = sizeof(keys) / sizeof(*keys) };

static const struct {
    const char *name;
    unsigned stage; /* 0: belongs to all */
    const char *what;
} sections[] = {
    {"", 0, NULL},
    {"caption", RECIPE_CAPTION, "Write captions, or answers. Needs a checkpoint with a language model."},
    {"score", RECIPE_SCORE, "Compare captions and texts with their image."},
    {"embed", RECIPE_EMBED, "Keep embeddings; blipline export writes them as .npy."},
    {"pixels", 0, "How picture files become pixels, where there is a choice."},
    {"precision", 0, "What numbers the stages compute in."},
};

enum { N_SECTIONS = sizeof(sections) / sizeof(*sections) };

static unsigned stage_of(const char *section)
{
    for (int i = 0; i < N_SECTIONS; i++)
        if (strcmp(sections[i].name, section) == 0)
            return sections[i].stage;
    return 0;
}

void recipe_init(struct recipe *r)
{
    struct msg_recipe defaults;

    msg_recipe_init(&defaults);
    memset(r, 0, sizeof(*r));
    r->decode = defaults.decode;
}

static const struct key *find_key(const char *name)
{
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

int recipe_key_number(const char *name)
{
    const struct key *k = find_key(name);

    return k ? (int)(k - keys) : -1;
}

bool recipe_key_is_list(int number)
{
    enum key_type t = keys[number].type;

    return t == KEY_PROMPT || t == KEY_QUESTION || t == KEY_FIELD || t == KEY_EMBED;
}

const char *recipe_key_section(int number)
{
    return keys[number].section;
}

bool recipe_begin_section(struct recipe *r, const char *section)
{
    for (int i = 0; i < N_SECTIONS; i++) {
        if (strcmp(sections[i].name, section) != 0)
            continue;
        if (sections[i].stage == RECIPE_SCORE && !(r->stages & RECIPE_SCORE))
            r->itc = r->itm = true;
        r->stages |= sections[i].stage;
        return true;
    }
    return false;
}

char *recipe_section_hint(const char *typed, char *ret, size_t ret_size)
{
    const char *names[N_SECTIONS]; /* without the first, which has none */

    for (int i = 1; i < N_SECTIONS; i++)
        names[i - 1] = sections[i].name;
    names[N_SECTIONS - 1] = NULL;
    return nearest_hint("", typed, names, ret, ret_size);
}

/* -- parsing values -------------------------------------------------------------------------------------------------
 */

/* What recipe_set works on. */
struct place {
    struct recipe *r;
    const struct key *key;
    const char *value, *where;
    unsigned *begun;
    struct err *err;
};

static int wanted(const struct place *p, const char *what)
{
    bool is_option = strncmp(p->where, "--", 2) == 0; /* it says its name itself */

    return err_set(p->err, -EINVAL, "%s%s%s%s%.100s: %s is wanted", p->where, is_option ? "" : ": ",
                   is_option ? "" : p->key->name, is_option ? " " : " = ", p->value, what);
}

/* A list is given again in another layer: its values replace those before. */
static uint32_t begin_list(const struct place *p, unsigned list, uint32_t *n)
{
    if (!(*p->begun & list))
        *n = 0;
    *p->begun |= list;
    return *n;
}

static int parse_number(const struct place *p, double *ret)
{
    const struct key *k = p->key;
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
        *(uint32_t *)field = (uint32_t)n;
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

/* The word's number in the NULL-ended list, or -1. */
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
    p->r->decode.early_stopping = (enum msg_early_stopping)i;
    return 0;
}

static int set_dtype(const struct place *p)
{
    static const char *const words[] = {"auto", "fp32", "bf16", "fp16", "fp8", NULL};
    static const enum msg_dtype dtypes[] = {0, MSG_DTYPE_F32, MSG_DTYPE_BF16, MSG_DTYPE_F16, MSG_DTYPE_F8_E4M3};
    enum msg_dtype *field = (enum msg_dtype *)((char *)p->r + p->key->offset);
    int i = find_word(words, p->value);
    struct recipe *r = p->r;

    if (i < 0)
        return wanted(p, "fp32, bf16, fp16, fp8 or auto");
    if (p->key->type == KEY_DTYPES) {
        r->dtype_encode = r->dtype_llm = dtypes[i];
        r->dtype_qformer = dtypes[i] == MSG_DTYPE_F8_E4M3 ? MSG_DTYPE_BF16 : dtypes[i];
        return 0;
    }
    if (field == &r->dtype_qformer && dtypes[i] == MSG_DTYPE_F8_E4M3)
        return wanted(p, "fp32, bf16, fp16 or auto (the Q-Former is not computed in fp8)");
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
    struct msg_embedding_spec e = {.dtype = MSG_DTYPE_F32};
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
            e.dtype = MSG_DTYPE_F16;
        else if (strcmp(word, "first") == 0 && e.kind == MSG_EMBEDDING_ITC)
            e.first_row = true;
        else if (strcmp(word, "fp32") != 0)
            return wanted(p, e.kind == MSG_EMBEDDING_ITC ? "fp16, fp32 or first behind the :"
                                                         : "fp16 or fp32 behind the :");
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
    for (uint32_t i = 0; i < n; i++) /* each kind once: so there are never too many */
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
    const char *names[N_KEYS + 1];
    char hint[96];
    const struct key *k = find_key(key);
    struct place p = {.r = r, .key = k, .value = value, .where = where, .begun = begun, .err = err};

    if (k)
        return set[k->type](&p);
    for (int i = 0; i < N_KEYS; i++)
        names[i] = keys[i].name;
    names[N_KEYS] = NULL;
    return err_set(err, -EINVAL, "%s: there is no key %.60s%s (blipline help recipe lists them)", where, key,
                   nearest_hint("", key, names, hint, sizeof(hint)));
}

/* Options that the others make pointless. */
static int check_effect(const struct recipe *r, const struct cli_settings *settings, struct err *err)
{
    static const char *const sampling[] = {"temperature", "top-k", "top-p", "seed", NULL};
    static const char *const beams[] = {"length-penalty", "early-stopping", NULL};

    for (int i = 0; i < settings->n; i++) {
        const char *name = settings->list[i].name;

        if (!r->decode.sample && find_word(sampling, name) >= 0)
            return err_set(err, -EINVAL, "--%s has no effect without sampling: add --sample, or leave it away", name);
        if (r->decode.n_beams < 2 && find_word(beams, name) >= 0)
            return err_set(err, -EINVAL, "--%s has no effect without beams: add --beams N, or leave it away", name);
    }
    return 0;
}

int recipe_override(struct recipe *r, const struct cli_settings *settings, struct err *err)
{
    unsigned begun = 0;

    for (int i = 0; i < settings->n; i++) {
        const struct cli_setting *s = &settings->list[i];
        const struct key *k = find_key(s->name);
        unsigned stage = k ? stage_of(k->section) : 0;
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

/* -- printing -------------------------------------------------------------------------------------------------------
 */

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
                         msg_dtype_word(r->embeddings[i].dtype), r->embeddings[i].first_row ? ":first" : "");
    return rc;
}

/* The fewest digits that give the same float back. */
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

static int print_key(const struct recipe *r, const struct key *k, struct buf *ret)
{
    const void *field = (const char *)r + k->offset;
    int rc = 0;

    switch (k->type) {
    case KEY_TEXT:
        return *(const char *)field ? recipe_print_text(ret, k->name, field) : 0;
    case KEY_COUNT:
        return buf_appendf(ret, "%s = %u\n", k->name, *(const uint32_t *)field);
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
        return buf_appendf(ret, "%s = %s\n", k->name, msg_early_stopping_name(r->decode.early_stopping));
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
                           *(const enum msg_dtype *)field ? msg_dtype_word(*(const enum msg_dtype *)field) : "auto");
    case KEY_QUESTION: /* with the prompts, in their order */
    case KEY_DTYPES:   /* one by one */
        return 0;
    }
    return 0;
}

int recipe_print(const struct recipe *r, struct buf *ret)
{
    int rc = 0;

    for (int s = 0; rc == 0 && s < N_SECTIONS; s++) {
        if (sections[s].stage && !(r->stages & sections[s].stage))
            continue;
        if (sections[s].name[0])
            rc = buf_appendf(ret, "\n[%s]\n", sections[s].name);
        for (int i = 0; rc == 0 && i < N_KEYS; i++)
            if (strcmp(keys[i].section, sections[s].name) == 0)
                rc = print_key(r, &keys[i], ret);
    }
    return rc;
}

/* -- help -----------------------------------------------------------------------------------------------------------
 */

/* "(from 1 to 64; default 1)" */
static void range_words(const struct key *k, char *ret, size_t size)
{
    struct recipe defaults;
    struct buf b;
    const char *equals;
    char range[64] = "";

    ret[0] = '\0';
    if (k->type == KEY_TEXT || k->type == KEY_SCORE || recipe_key_is_list((int)(k - keys)))
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

/* "beams = N", and below it what it means. */
static void print_key_help(const struct key *k, FILE *out)
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
              "A section that is there asks for what it is about. A line that begins with # or ; is a comment, and so "
              "is what follows a space and a semicolon (not a #) within a line. A value may be put in double quotes, "
              "to keep spaces at its ends; a line that begins with spaces continues the value of the one before. "
              "blipline caption, score and embed take a file, or the name of a built-in recipe, with --recipe; each "
              "key is an option of theirs too (--beams 5), and wins over the recipe. The recipe is stored with the "
              "results: a store goes on with the same one only.\n\n"
              "Built-in recipes (blipline help recipe NAME prints one, to begin a file of your own with):\n\n",
              out);
    for (const struct recipe_builtin *b = recipe_builtins; b->name; b++) {
        char name[64];
        struct recipe r;

        (void)snprintf(name, sizeof(name), "    %s", b->name);
        if (recipe_parse(b->text, strlen(b->text), b->name, b->name, &r, NULL) == 0)
            page_item(name, 20, r.about, out);
    }
    for (int s = 0; s < N_SECTIONS; s++) {
        if (sections[s].name[0])
            fprintf(out, "\n[%s]\n    %s\n", sections[s].name, sections[s].what);
        else
            fputs("\nAbove the first section:\n", out);
        for (int i = 0; i < N_KEYS; i++)
            if (strcmp(keys[i].section, sections[s].name) == 0)
                print_key_help(&keys[i], out);
    }
}

bool recipe_option(unsigned stages, size_t i, size_t offset, struct cli_option *ret)
{
    for (int k = 0; k < N_KEYS; k++) {
        const struct key *key = &keys[k];
        unsigned stage = stage_of(key->section);

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
