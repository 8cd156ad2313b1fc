#include "model/added_tokens.h"

#include "model/tokenizer_type.h"
#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ADDED = 16384 };

/* -- loading */

/* The tokenizers library numbers tokens outside the vocabulary consecutively from its size, whatever the file says.
 * If the two differ, the checkpoint may have been trained with either, so that is an error. */
static int check_id(const char *file, const struct added_token *t, const struct vocab *vocab, int32_t *next_id,
                    struct err *err)
{
    int32_t known = vocab_find(vocab, t->text, strlen(t->text));
    const char *same;
    size_t n;

    if (t->id < 0)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has no id", file, t->text);
    if (known >= 0 && known != t->id)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has id %d, but %d in model.vocab", file, t->text,
                       (int)t->id, (int)known);
    same = known < 0 ? vocab_text(vocab, t->id, &n) : NULL;
    if (same)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has id %d, which is \"%.*s\" in model.vocab", file,
                       t->text, (int)t->id, (int)(n < 60 ? n : 60), same);
    if (known < 0 && t->id != (*next_id)++)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has id %d, but the tokenizers library gives it %d",
                       file, t->text, (int)t->id, (int)(*next_id - 1));
    return 0;
}

static int read_one(const char *file, const json_t *v, const struct vocab *vocab, int32_t *next_id,
                    struct added_token *ret, struct err *err)
{
    struct json_reader r = {.file = file, .section = "added_tokens.", .object = v, .err = err};
    const char *text = json_read_text(&r, "content", NULL);

    if (!text || !text[0])
        json_reader_fail(&r, "content", "is empty or missing");
    else if (strlen(text) > TOKENIZER_MAX_TOKEN_BYTES)
        json_reader_fail(&r, "content", "\"%.60s\" is over %d bytes", text, TOKENIZER_MAX_TOKEN_BYTES);
    ret->id = (int32_t)json_read_int(&r, "id", -1, 0, TOKENIZER_MAX_ID);
    if (json_read_bool(&r, "single_word", false))
        json_reader_fail(&r, "single_word", "true is not supported");
    ret->lstrip = json_read_bool(&r, "lstrip", false);
    ret->rstrip = json_read_bool(&r, "rstrip", false);
    ret->normalized = json_read_bool(&r, "normalized", true);
    ret->special = json_read_bool(&r, "special", false);
    if (r.rc < 0)
        return r.rc;
    assert(text); /* otherwise the reader has failed above */
    ret->text = strdup(text);
    return ret->text ? check_id(file, ret, vocab, next_id, err) : -ENOMEM;
}

/* Sets the spelling of a token in normalised text. */
static int spell(const char *file, const struct normalizer *normalizer, struct buf work[2], struct added_token *t,
                 struct err *err)
{
    struct token_text wanted = {t->text, strlen(t->text)};
    bool at_start = true;
    int rc = t->normalized ? normalizer_apply(normalizer, wanted, work, &at_start, &wanted) : 0;

    if (rc == 0 && (wanted.size_bytes == 0 || wanted.size_bytes > TOKENIZER_MAX_TOKEN_BYTES))
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" is normalised to %zu bytes", file, t->text,
                       wanted.size_bytes);
    if (rc < 0)
        return rc;
    t->wanted = strndup(wanted.text, wanted.size_bytes);
    t->wanted_size = wanted.size_bytes;
    return t->wanted ? 0 : -ENOMEM;
}

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static int by_spelling(const void *a, const void *b)
{
    const struct added_token *const *x = a, *const *y = b;

    if ((*x)->normalized != (*y)->normalized)
        return (*x)->normalized - (*y)->normalized;
    return strcmp((*x)->wanted, (*y)->wanted);
}

static int make_tries(struct added_tokens *a, const char *file, struct err *err)
{
    const struct added_token **sorted = calloc(a->n + 1, sizeof(struct added_token *));
    struct token_text *keys = calloc(a->n + 1, sizeof(*keys));
    int32_t *values = calloc(a->n + 1, sizeof(*values));
    size_t n_plain = 0;
    int rc = sorted && keys && values ? 0 : -ENOMEM;

    for (size_t i = 0; i < a->n && rc == 0; i++)
        sorted[i] = &a->list[i];
    if (rc == 0)
        qsort(sorted, a->n, sizeof(struct added_token *), by_spelling);
    for (size_t i = 0; i < a->n && rc == 0; i++) {
        keys[i] = (struct token_text){sorted[i]->wanted, sorted[i]->wanted_size};
        values[i] = (int32_t)(sorted[i] - a->list);
        n_plain += !sorted[i]->normalized;
        if (i > 0 && by_spelling(&sorted[i - 1], &sorted[i]) == 0)
            rc = err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" occurs twice", file, sorted[i]->wanted);
    }
    if (rc == 0)
        rc = trie_init(&a->tries[0], keys, values, n_plain);
    if (rc == 0)
        rc = trie_init(&a->tries[1], keys + n_plain, values + n_plain, a->n - n_plain);
    free(sorted);
    free(keys);
    free(values);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    const struct added_token *const *x = a, *const *y = b;

    return strcmp((*x)->text, (*y)->text);
}

static int check_unique(const struct added_tokens *a, const char *file, struct err *err)
{
    const struct added_token **sorted = calloc(a->n + 1, sizeof(struct added_token *));
    int rc = sorted ? 0 : -ENOMEM;

    for (size_t i = 0; i < a->n && rc == 0; i++) {
        sorted[i] = &a->list[i];
        if (i > 0 && a->list[i - 1].id == a->list[i].id)
            rc = err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" and \"%.60s\" have the same id", file,
                         a->list[i - 1].text, a->list[i].text);
    }
    if (rc == 0)
        qsort(sorted, a->n, sizeof(struct added_token *), by_text);
    for (size_t i = 1; i < a->n && rc == 0; i++)
        if (by_text(&sorted[i - 1], &sorted[i]) == 0)
            rc = err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" occurs twice", file, sorted[i]->text);
    free(sorted);
    return rc;
}

int added_tokens_parse(struct added_tokens *a, const char *file, const json_t *list, const struct vocab *vocab,
                       const struct normalizer *normalizer, struct err *err)
{
    int32_t next_id = vocab->n_tokens;
    size_t n = json_array_size(list);
    struct buf work[2];
    int rc = 0;

    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(err, -EINVAL, "%s: added_tokens: is %s, expected an array", file, json_type_text(list));
    if (n > MAX_ADDED)
        return err_set(err, -EINVAL, "%s: added_tokens: %zu of them, the limit is %d", file, n, MAX_ADDED);
    a->list = calloc(n + 1, sizeof(*a->list));
    if (!a->list)
        return -ENOMEM;
    buf_init(&work[0], PIECES_MAX_BYTES);
    buf_init(&work[1], PIECES_MAX_BYTES);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = read_one(file, json_array_get(list, i), vocab, &next_id, &a->list[a->n++], err);
        if (rc == 0)
            rc = spell(file, normalizer, work, &a->list[i], err);
    }
    buf_release(&work[0]);
    buf_release(&work[1]);
    if (rc < 0)
        return rc;
    qsort(a->list, a->n, sizeof(*a->list), by_id);
    rc = check_unique(a, file, err);
    return rc < 0 ? rc : make_tries(a, file, err);
}

void added_tokens_release(struct added_tokens *a)
{
    for (size_t i = 0; a->list && i < a->n; i++) {
        free(a->list[i].text);
        free(a->list[i].wanted);
    }
    free(a->list);
    trie_release(&a->tries[0]);
    trie_release(&a->tries[1]);
    *a = (struct added_tokens){0};
}

const struct added_token *added_tokens_find(const struct added_tokens *a, int32_t id)
{
    struct added_token key = {.id = id};

    return a->n ? bsearch(&key, a->list, a->n, sizeof(key), by_id) : NULL;
}

/* -- cutting */

int added_tokens_cut(const struct added_tokens *a, bool normalized, struct token_text text,
                     const struct added_tokens_cut *cut)
{
    const struct trie *trie = &a->tries[normalized];
    size_t n = trie->n_nodes ? text.size_bytes : 0, done = 0, spaces_end = 0, size = 0;
    int rc = 0;

    for (size_t at = 0; at < n && rc == 0;) {
        int32_t found = trie_longest(trie, text.text + at, n - at, &size);
        const struct added_token *t = found >= 0 ? &a->list[found] : NULL;
        size_t begin = at, end = at + size;

        at = t ? end : at + 1;
        if (!t)
            continue;
        if (t->lstrip) /* white space taken by the previous token stays with it */
            begin = begin > done ? utf8_spaces_before(text.text, done, begin) : done;
        if (t->rstrip) /* tokens may be white space themselves: visit each space once */
            end = spaces_end = end < spaces_end ? spaces_end : utf8_spaces_after(text.text, end, n);
        if (begin >= end) /* white space that the previous token has taken */
            continue;
        if (done < begin)
            rc = cut->plain(cut->owner, (struct token_text){text.text + done, begin - done}, done == 0);
        if (rc == 0)
            rc = cut->token(cut->owner, t->id);
        done = end;
    }
    if (rc == 0 && done < text.size_bytes)
        rc = cut->plain(cut->owner, (struct token_text){text.text + done, text.size_bytes - done}, done == 0);
    return rc;
}
