#include "model/tokenizer.h"

#include "base/file.h"
#include "model/json.h"
#include "model/tokenizer_type.h"
#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20, MAX_ADDED = 16384, MAX_AROUND = 64 };

/* A token that is cut out of the text before anything else sees it. */
struct added {
    char *text;
    size_t size_bytes;
    int32_t id;
    bool lstrip, rstrip; /* white space before, after it belongs to it */
    bool normalized;     /* looked for after all those that are not */
    bool special;
};

struct tokenizer {
    const struct tokenizer_type *type;
    void *model;
    struct added *added; /* by first byte, then longest first */
    size_t first[257];   /* added[first[c] .. first[c + 1]) begin with byte c */
    const struct added **by_id;
    size_t n_added;
    struct token_ids before, after; /* what the post-processor puts around a text */
    int32_t n_ids;
};

static const struct tokenizer_type *const types[] = {&tokenizer_bpe};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

int token_ids_append(struct token_ids *t, int32_t id)
{
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        int32_t *ids = reallocarray(t->ids, capacity, sizeof(*ids));

        if (!ids)
            return -ENOMEM;
        t->ids = ids;
        t->capacity = capacity;
    }
    t->ids[t->n++] = id;
    return 0;
}

void token_ids_release(struct token_ids *t)
{
    free(t->ids);
    *t = (struct token_ids){0};
}

/* -- for the kinds
 * ------------------------------------------------------------------------------------------------------------ */

const char *tokenizer_part_type(const json_t *part)
{
    const char *type = json_string_value(json_object_get(part, "type"));

    if (!part || json_is_null(part))
        return "null";
    return type ? type : "(no type)";
}

int tokenizer_want_part(const char *file, const json_t *root, const char *key, const char *type, struct err *err)
{
    const char *found = tokenizer_part_type(json_object_get(root, key));

    if (strcmp(found, type) == 0)
        return 0;
    return err_set(err, -EINVAL, "%s: %s: \"%.60s\" is not supported with this model, only \"%s\"", file, key, found,
                   type);
}

int tokenizer_read_vocab(const char *file, const json_t *vocab, struct vocab *ret, struct err *err)
{
    json_int_t last = -1;
    const char *token;
    json_t *v;
    int rc;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return err_set(err, -EINVAL, "%s: model.vocab: is %s, an object with tokens is wanted", file,
                       json_is_object(vocab) ? "empty" : json_type_text(vocab));
    json_object_foreach((json_t *)(uintptr_t)vocab, token, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id > TOKENIZER_MAX_ID)
            return err_set(err, -EINVAL, "%s: model.vocab: \"%.60s\" has no id from 0 to %d", file, token,
                           TOKENIZER_MAX_ID);
        if (id > last)
            last = id;
    }
    rc = vocab_init(ret, (int32_t)last + 1);
    if (rc < 0)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)vocab, token, v)
    {
        rc = vocab_add(ret, token, strlen(token), (int32_t)json_integer_value(v));
        if (rc == -EEXIST)
            return err_set(err, -EINVAL, "%s: model.vocab: \"%.60s\" has the id of another token, %d", file, token,
                           (int)json_integer_value(v));
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* -- added tokens
 * --------------------------------------------------------------------------------------------------------------- */

static int read_added(const struct tokenizer *t, const char *file, const json_t *v, struct added *ret, struct err *err)
{
    const struct vocab *vocab = t->type->vocab(t->model);
    struct json_reader r = {.file = file, .section = "added_tokens.", .object = v, .err = err};
    const char *text = json_read_text(&r, "content", NULL), *same;
    int32_t known;
    size_t n;

    if (!text || !text[0])
        json_reader_fail(&r, "content", "is empty or missing");
    ret->id = (int32_t)json_read_int(&r, "id", -1, 0, TOKENIZER_MAX_ID);
    if (json_read_bool(&r, "single_word", false))
        json_reader_fail(&r, "single_word", "true (\"%.60s\") is not supported", text ? text : "");
    ret->lstrip = json_read_bool(&r, "lstrip", false);
    ret->rstrip = json_read_bool(&r, "rstrip", false);
    ret->normalized = json_read_bool(&r, "normalized", true);
    ret->special = json_read_bool(&r, "special", false);
    if (r.rc < 0)
        return r.rc;
    assert(text); /* else the reader has failed above */
    ret->size_bytes = strlen(text);
    known = vocab_find(vocab, text, ret->size_bytes);
    if (ret->id < 0)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has no id", file, text);
    if (known >= 0 && known != ret->id)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has id %d, but %d in model.vocab", file, text,
                       (int)ret->id, (int)known);
    same = known < 0 ? vocab_text(vocab, ret->id, &n) : NULL;
    if (same)
        return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" has id %d, which is \"%.*s\" in model.vocab", file,
                       text, (int)ret->id, (int)(n < 60 ? n : 60), same);
    ret->text = strdup(text);
    return ret->text ? 0 : -ENOMEM;
}

static int for_search(const void *a, const void *b)
{
    const struct added *x = a, *y = b;
    int cx = (unsigned char)x->text[0], cy = (unsigned char)y->text[0];

    if (cx != cy)
        return cx - cy;
    if (x->size_bytes != y->size_bytes)
        return x->size_bytes > y->size_bytes ? -1 : 1;
    return strcmp(x->text, y->text);
}

static int by_id(const void *a, const void *b)
{
    const struct added *const *x = a, *const *y = b;

    return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

static int index_added(struct tokenizer *t, const char *file, struct err *err)
{
    qsort(t->added, t->n_added, sizeof(*t->added), for_search);
    for (size_t i = 0, c = 0; c <= 256; c++) {
        while (c > 0 && i < t->n_added && (unsigned char)t->added[i].text[0] < c)
            i++;
        t->first[c] = i;
    }
    for (size_t i = 0; i < t->n_added; i++)
        t->by_id[i] = &t->added[i];
    qsort(t->by_id, t->n_added, sizeof(struct added *), by_id);
    for (size_t i = 1; i < t->n_added; i++) {
        if (for_search(&t->added[i - 1], &t->added[i]) == 0)
            return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" is there twice", file, t->added[i].text);
        if (t->by_id[i - 1]->id == t->by_id[i]->id)
            return err_set(err, -EINVAL, "%s: added_tokens: \"%.60s\" and \"%.60s\" have the same id", file,
                           t->by_id[i - 1]->text, t->by_id[i]->text);
    }
    return 0;
}

static int read_all_added(struct tokenizer *t, const char *file, const json_t *list, struct err *err)
{
    size_t n = json_array_size(list);

    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(err, -EINVAL, "%s: added_tokens: is %s, an array is wanted", file, json_type_text(list));
    if (n > MAX_ADDED)
        return err_set(err, -EINVAL, "%s: added_tokens: %zu of them, the limit is %d", file, n, MAX_ADDED);
    t->added = calloc(n + 1, sizeof(*t->added));
    t->by_id = calloc(n + 1, sizeof(struct added *));
    if (!t->added || !t->by_id)
        return -ENOMEM;
    for (; t->n_added < n; t->n_added++) {
        int rc = read_added(t, file, json_array_get(list, t->n_added), &t->added[t->n_added], err);

        if (rc < 0)
            return rc;
        if (t->added[t->n_added].id >= t->n_ids)
            t->n_ids = t->added[t->n_added].id + 1;
    }
    return index_added(t, file, err);
}

static const struct added *find_added(const struct tokenizer *t, int32_t id)
{
    struct added key = {.id = id};
    const struct added *p = &key;
    const struct added **found = t->n_added ? bsearch(&p, t->by_id, t->n_added, sizeof(p), by_id) : NULL;

    return found ? *found : NULL;
}

/* -- post-processor
 * --------------------------------------------------------------------------------------------------------- */

static int append_template_ids(const struct tokenizer *t, const char *file, const json_t *specials, const json_t *part,
                               struct token_ids *ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(part, "id"));
    const json_t *ids = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
    size_t n = json_array_size(ids);

    if (n == 0 || ret->n + n > MAX_AROUND)
        return err_set(err, -EINVAL, "%s: post_processor.special_tokens: \"%.60s\" has no ids, or too many", file,
                       name ? name : "?");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t id = json_integer_value(v);
        int rc;

        if (!json_is_integer(v) || id < 0 || id >= t->n_ids)
            return err_set(err, -EINVAL, "%s: post_processor.special_tokens: \"%.60s\" has an id out of range", file,
                           name);
        rc = token_ids_append(ret, (int32_t)id);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_template(struct tokenizer *t, const char *file, const json_t *post, struct err *err)
{
    const json_t *single = json_object_get(post, "single"), *part;
    bool seen = false;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)single, i, part)
    {
        const json_t *special = json_object_get(part, "SpecialToken"), *text = json_object_get(part, "Sequence");
        const char *which = json_string_value(json_object_get(text, "id"));
        int rc;

        if (special) {
            rc = append_template_ids(t, file, json_object_get(post, "special_tokens"), special,
                                     seen ? &t->after : &t->before, err);
            if (rc < 0)
                return rc;
        } else if (which && strcmp(which, "A") == 0 && !seen) {
            seen = true;
        } else {
            return err_set(err, -EINVAL, "%s: post_processor.single: entry %zu is not supported", file, i);
        }
    }
    if (!seen)
        return err_set(err, -EINVAL, "%s: post_processor.single: has no place for the text", file);
    return 0;
}

static int read_post_processor(struct tokenizer *t, const char *file, const json_t *post, struct err *err)
{
    const char *type = tokenizer_part_type(post);

    if (strcmp(type, "null") == 0 || strcmp(type, "ByteLevel") == 0) /* ByteLevel moves offsets only */
        return 0;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, file, post, err);
    return err_set(err, -EINVAL, "%s: post_processor: \"%.60s\" is not supported", file, type);
}

/* -- loading
 * ----------------------------------------------------------------------------------------------------------------- */

static int find_type(const char *file, const json_t *model, const struct tokenizer_type **ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(model, "type"));

    if (!json_is_object(model))
        return err_set(err, -EINVAL, "%s: model: is %s, an object is wanted", file, json_type_text(model));
    if (!name) /* the first published files carry no type */
        name = json_object_get(model, "merges") ? "BPE" : "(no type)";
    for (size_t i = 0; i < N_TYPES; i++)
        if (strcmp(types[i]->name, name) == 0) {
            *ret = types[i];
            return 0;
        }
    return err_set(err, -EINVAL, "%s: model.type: \"%.60s\" is not supported", file, name);
}

static int read_root(struct tokenizer *t, const char *file, const json_t *root, struct err *err)
{
    int rc = find_type(file, json_object_get(root, "model"), &t->type, err);

    if (rc == 0)
        rc = t->type->parse(file, root, &t->model, err);
    if (rc < 0)
        return rc;
    t->n_ids = t->type->vocab(t->model)->n_ids;
    rc = read_all_added(t, file, json_object_get(root, "added_tokens"), err);
    return rc < 0 ? rc : read_post_processor(t, file, json_object_get(root, "post_processor"), err);
}

int tokenizer_parse(const void *json, size_t size_bytes, const char *name, struct tokenizer **ret, struct err *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    json_t *root = NULL;
    int rc = -ENOMEM;

    if (t)
        rc = json_parse_text(json, size_bytes, MAX_FILE_BYTES, name, &root, err);
    if (rc == 0)
        rc = read_root(t, name, root, err);
    json_decref(root);
    if (rc == -ENOMEM)
        rc = err_set(err, rc, "%s: not enough memory for a tokenizer", name);
    if (rc < 0)
        tokenizer_free(t);
    else
        *ret = t;
    return rc;
}

int tokenizer_load(const char *path, struct tokenizer **ret, struct err *err)
{
    struct buf text;
    int rc;

    buf_init(&text, 0);
    rc = file_read(path, MAX_FILE_BYTES, &text, err);
    if (rc == -ENOENT)
        rc = err_set(err, rc,
                     "%s: is missing; fetch it with the checkpoint (the slow tokenizers' vocab files are not read)",
                     path);
    if (rc == 0)
        rc = tokenizer_parse(text.data, text.size_bytes, path, ret, err);
    buf_release(&text);
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    if (t->type)
        t->type->free(t->model);
    for (size_t i = 0; t->added && i < t->n_added; i++)
        free(t->added[i].text);
    free(t->added);
    free(t->by_id);
    token_ids_release(&t->before);
    token_ids_release(&t->after);
    free(t);
}

/* -- encoding
 * ----------------------------------------------------------------------------------------------------------------- */

static const struct added *match_at(const struct tokenizer *t, const char *p, size_t n, bool normalized)
{
    unsigned char c = (unsigned char)*p;

    for (size_t i = t->first[c]; i < t->first[c + 1]; i++) {
        const struct added *a = &t->added[i];

        if (a->normalized == normalized && a->size_bytes <= n && memcmp(a->text, p, a->size_bytes) == 0)
            return a;
    }
    return NULL;
}

static size_t spaces_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        size_t k = at - 1;
        uint32_t cp;

        while (k > from && ((unsigned char)text[k] & 0xc0) == 0x80)
            k--;
        (void)utf8_step(text + k, at - k, &cp);
        if (!utf8_is_space(cp))
            break;
        at = k;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t at, size_t n)
{
    while (at < n) {
        uint32_t cp;
        size_t k = utf8_step(text + at, n - at, &cp);

        if (!utf8_is_space(cp))
            break;
        at += k;
    }
    return at;
}

/* Cut out the added tokens of pass 0 (not normalized), then in what is left those of pass 1, then encode the rest. */
static int encode_pass(const struct tokenizer *t, const char *text, size_t n, int pass, struct token_ids *ret,
                       struct err *err)
{
    size_t plain = 0, at = 0;
    int rc = 0;

    if (n == 0)
        return 0;
    if (pass == 2)
        return t->type->encode(t->model, text, n, ret, err);
    while (at < n && rc == 0) {
        const struct added *a = match_at(t, text + at, n - at, pass == 1);
        size_t begin = at, end;

        if (!a) {
            at++;
            continue;
        }
        end = at + a->size_bytes;
        if (a->lstrip)
            begin = spaces_before(text, plain, begin);
        if (a->rstrip)
            end = spaces_after(text, end, n);
        rc = encode_pass(t, text + plain, begin - plain, pass + 1, ret, err);
        if (rc == 0)
            rc = token_ids_append(ret, a->id);
        plain = at = end;
    }
    return rc < 0 ? rc : encode_pass(t, text + plain, n - plain, pass + 1, ret, err);
}

static int append_all(struct token_ids *ret, const struct token_ids *ids)
{
    int rc = 0;

    for (size_t i = 0; i < ids->n && rc == 0; i++)
        rc = token_ids_append(ret, ids->ids[i]);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t size_bytes, bool add_special,
                     struct token_ids *ret, struct err *err)
{
    size_t before = ret->n;
    int rc = 0;

    if (size_bytes > TOKENIZER_MAX_TEXT_BYTES)
        return err_set(err, -EFBIG, "a text of %zu bytes, the limit is %u", size_bytes, TOKENIZER_MAX_TEXT_BYTES);
    if (!utf8_is_valid(text, size_bytes))
        return err_set(err, -EINVAL, "the text is not valid UTF-8");
    if (add_special)
        rc = append_all(ret, &t->before);
    if (rc == 0)
        rc = encode_pass(t, text, size_bytes, 0, ret, err);
    if (rc == 0 && add_special)
        rc = append_all(ret, &t->after);
    if (rc == -ENOMEM)
        rc = err_set(err, rc, "not enough memory for the ids of %zu bytes of text", size_bytes);
    if (rc < 0)
        ret->n = before;
    return rc;
}

/* -- decoding
 * ----------------------------------------------------------------------------------------------------------------- */

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *ret,
                     struct err *err)
{
    const struct vocab *vocab = t->type->vocab(t->model);
    struct token_text *tokens = calloc(n + 1, sizeof(*tokens));
    size_t k = 0, before = ret->size_bytes;
    int rc = tokens ? 0 : -ENOMEM;

    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct added *a = find_added(t, ids[i]);

        if (a && skip_special && a->special)
            continue;
        tokens[k].text = a ? a->text : vocab_text(vocab, ids[i], &tokens[k].size_bytes);
        if (a)
            tokens[k].size_bytes = a->size_bytes;
        if (tokens[k].text)
            k++;
    }
    if (rc == 0)
        rc = t->type->decode(t->model, tokens, k, ret);
    free(tokens);
    if (rc < 0) {
        ret->size_bytes = before;
        rc = err_set(err, rc, "cannot hold the text of %zu tokens: %s", n, strerror(-rc));
    }
    return rc;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    const struct added *a = find_added(t, id);

    return a && a->special;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].text, token) == 0)
            return t->added[i].id;
    return vocab_find(t->type->vocab(t->model), token, strlen(token));
}

int32_t tokenizer_n_ids(const struct tokenizer *t)
{
    return t->n_ids;
}
