#include "model/tokenizer.h"

#include "base/file.h"
#include "base/grow.h"
#include "model/added_tokens.h"
#include "model/json.h"
#include "model/normalizer.h"
#include "model/postprocessor.h"
#include "model/pretokenizer.h"
#include "model/token_decoder.h"
#include "model/tokenizer_part.h"
#include "model/tokenizer_type.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

struct tokenizer {
    const struct tokenizer_type *type;
    void *model;
    struct added_tokens added;
    struct normalizer *normalizer;
    struct pretokenizer *pretokenizer;
    struct postprocessor post;
    struct token_decoder *decoder;
    int32_t n_ids;
};

static const struct tokenizer_type *const types[] = {&tokenizer_bpe, &tokenizer_unigram, &tokenizer_wordpiece};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

int token_ids_append(struct token_ids *t, int32_t id)
{
    if (grow_array(&t->ids, &t->capacity, t->n, sizeof(*t->ids), 64) < 0)
        return -ENOMEM;
    t->ids[t->n++] = id;
    return 0;
}

void token_ids_release(struct token_ids *t)
{
    free(t->ids);
    *t = (struct token_ids){0};
}

/* -- loading */

static const char *name_type(const json_t *model)
{
    const char *name = json_string_value(json_object_get(model, "type"));

    if (name)
        return name;
    if (json_object_get(model, "merges")) /* the first published files carry no type */
        return "BPE";
    if (json_is_array(json_object_get(model, "vocab")))
        return "Unigram";
    return json_object_get(model, "max_input_chars_per_word") ? "WordPiece" : "(no type)";
}

static int find_type(const char *file, const json_t *model, const struct tokenizer_type **ret, struct err *err)
{
    const char *name = name_type(model);

    if (!json_is_object(model))
        return err_set(err, -EINVAL, "%s: model: is %s, expected an object", file, json_type_text(model));
    for (size_t i = 0; i < N_TYPES; i++)
        if (strcmp(types[i]->name, name) == 0) {
            *ret = types[i];
            return 0;
        }
    return err_set(err, -EINVAL, "%s: model.type: \"%.60s\" is not supported", file, name);
}

/* truncation and padding are settings that whoever saved the file last had used: transformers turns both off unless a
 * call asks for them, and so they are read over. */
static int check_settings(const char *file, const json_t *root, struct err *err)
{
    static const char *const keys[] = {"truncation", "padding"};
    const json_t *version = json_object_get(root, "version");

    if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
        return err_set(err, -EINVAL, "%s: version: is %s%.60s, expected \"1.0\"", file, json_type_text(version),
                       json_is_string(version) ? json_string_value(version) : "");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const json_t *v = json_object_get(root, keys[i]);

        if (v && !json_is_null(v) && !json_is_object(v))
            return err_set(err, -EINVAL, "%s: %s: is %s, expected an object or null", file, keys[i], json_type_text(v));
    }
    return 0;
}

/* A vocabulary of spelled bytes needs both ends to be ByteLevel, any other neither. */
static int check_byte_level(const struct tokenizer *t, const char *file, const json_t *root, struct err *err)
{
    const char *key = NULL;

    if (pretokenizer_is_byte_level(t->pretokenizer) != t->type->byte_level)
        key = "pre_tokenizer";
    else if (token_decoder_is_byte_level(t->decoder) != t->type->byte_level)
        key = "decoder";
    if (!key)
        return 0;
    return err_set(err, -EINVAL, "%s: %s: \"%.60s\" is not supported with model.type \"%s\"", file, key,
                   tokenizer_part_type(json_object_get(root, key)), t->type->name);
}

static int read_root(struct tokenizer *t, const char *file, const json_t *root, struct err *err)
{
    const json_t *model = json_object_get(root, "model");
    int rc = find_type(file, model, &t->type, err);

    if (rc == 0)
        rc = check_settings(file, root, err);
    if (rc == 0)
        rc = normalizer_parse(file, json_object_get(root, "normalizer"), &t->normalizer, err);
    if (rc == 0)
        rc = pretokenizer_parse(file, json_object_get(root, "pre_tokenizer"), &t->pretokenizer, err);
    if (rc == 0)
        rc = token_decoder_parse(file, json_object_get(root, "decoder"), &t->decoder, err);
    if (rc == 0)
        rc = check_byte_level(t, file, root, err);
    if (rc == 0)
        rc = t->type->parse(file, model, &t->model, err);
    if (rc == 0)
        rc = added_tokens_parse(&t->added, file, json_object_get(root, "added_tokens"), t->type->vocab(t->model),
                                t->normalizer, err);
    if (rc < 0)
        return rc;
    t->n_ids = t->type->vocab(t->model)->n_ids;
    if (t->added.n && t->added.list[t->added.n - 1].id >= t->n_ids)
        t->n_ids = t->added.list[t->added.n - 1].id + 1;
    t->post.n_ids = t->n_ids;
    return postprocessor_parse(&t->post, file, json_object_get(root, "post_processor"), err);
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
    added_tokens_release(&t->added);
    normalizer_free(t->normalizer);
    pretokenizer_free(t->pretokenizer);
    token_decoder_free(t->decoder);
    postprocessor_release(&t->post);
    free(t);
}

/* -- encoding */

/* One text on its way: added tokens are cut out, each piece between them is normalised, the normalized added tokens are
 * cut out, each piece between them is cut into words, and the model spells those. */
struct encoding {
    const struct tokenizer *t;
    struct token_ids *ret;
    struct buf normal[2];
    struct pieces words[2];
    bool at_start; /* the piece that was normalised begins where the text begins */
};

static int add_token(void *owner, int32_t id)
{
    struct encoding *e = owner;

    return token_ids_append(e->ret, id);
}

static int encode_normal(void *owner, struct token_text part, bool at_start)
{
    struct encoding *e = owner;
    const struct pieces *words = NULL;
    int rc;

    pieces_clear(&e->words[0]);
    e->words[0].at_start = e->at_start && at_start;
    rc = pieces_add(&e->words[0], part.text, part.size_bytes);
    if (rc == 0)
        rc = pretokenizer_apply(e->t->pretokenizer, e->words, &words);
    return rc < 0 ? rc : e->t->type->encode(e->t->model, words, e->ret);
}

static int encode_part(void *owner, struct token_text part, bool at_start)
{
    struct encoding *e = owner;
    struct added_tokens_cut cut = {.plain = encode_normal, .token = add_token, .owner = e};
    int rc;

    e->at_start = at_start;
    rc = normalizer_apply(e->t->normalizer, part, e->normal, &e->at_start, &part);
    return rc < 0 ? rc : added_tokens_cut(&e->t->added, true, part, &cut);
}

static int encode_text(const struct tokenizer *t, struct token_text text, struct token_ids *ret)
{
    struct encoding e = {.t = t, .ret = ret};
    struct added_tokens_cut cut = {.plain = encode_part, .token = add_token, .owner = &e};
    int rc;

    buf_init(&e.normal[0], PIECES_MAX_BYTES);
    buf_init(&e.normal[1], PIECES_MAX_BYTES);
    pieces_init(&e.words[0]);
    pieces_init(&e.words[1]);
    rc = added_tokens_cut(&t->added, false, text, &cut);
    buf_release(&e.normal[0]);
    buf_release(&e.normal[1]);
    pieces_release(&e.words[0]);
    pieces_release(&e.words[1]);
    return rc;
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
        rc = append_all(ret, &t->post.before);
    if (rc == 0)
        rc = encode_text(t, (struct token_text){text, size_bytes}, ret);
    if (rc == 0 && add_special)
        rc = append_all(ret, &t->post.after);
    if (rc < 0)
        ret->n = before;
    if (rc == -ENOMEM)
        return err_set(err, rc, "not enough memory for the ids of %zu bytes of text", size_bytes);
    if (rc == -EFBIG)
        return err_set(err, rc, "a text of %zu bytes grows over %u when it is normalised", size_bytes,
                       PIECES_MAX_BYTES);
    return rc < 0 ? err_set(err, rc, "the text cannot be normalised and cut into words: %s", strerror(-rc)) : 0;
}

/* -- decoding */

static int collect_tokens(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                          struct pieces *ret)
{
    const struct vocab *vocab = t->type->vocab(t->model);
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct added_token *a = added_tokens_find(&t->added, ids[i]);
        size_t size = a ? a->wanted_size : 0;
        const char *text = a ? a->wanted : vocab_text(vocab, ids[i], &size);

        if (text && !(a && a->special && skip_special))
            rc = pieces_add(ret, text, size);
    }
    return rc;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *ret,
                     struct err *err)
{
    size_t before = ret->size_bytes;
    struct pieces tokens;
    int rc;

    pieces_init(&tokens);
    rc = collect_tokens(t, ids, n, skip_special, &tokens);
    if (rc == 0)
        rc = token_decoder_apply(t->decoder, &tokens, ret);
    pieces_release(&tokens);
    if (rc < 0) {
        ret->size_bytes = before;
        rc = err_set(err, rc, "cannot hold the text of %zu tokens: %s", n, strerror(-rc));
    }
    return rc;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token)
{
    for (size_t i = 0; i < t->added.n; i++)
        if (strcmp(t->added.list[i].text, token) == 0)
            return t->added.list[i].id;
    return vocab_find(t->type->vocab(t->model), token, strlen(token));
}

const char *tokenizer_type(const struct tokenizer *t)
{
    return t->type->name;
}

int32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->type->vocab(t->model)->n_ids;
}
