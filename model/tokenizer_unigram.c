/* Unigram (T5): every token has a score; a word becomes the token sequence with the largest sum of scores. */
#include "model/tokenizer_type.h"

#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0

struct unigram {
    struct vocab vocab;
    struct trie trie;
    double *scores; /* by id */
    double unknown_score;
    int32_t unknown;
};

/* -- the file */

static int read_token(struct unigram *u, const char *file, size_t i, const json_t *entry, struct err *err)
{
    const json_t *text = json_array_get(entry, 0), *score = json_array_get(entry, 1);
    int rc;

    if (json_array_size(entry) != 2 || !json_is_string(text) || !json_is_number(score))
        return err_set(err, -EINVAL, "%s: model.vocab: entry %zu is not a token and its score", file, i);
    u->scores[i] = json_number_value(score);
    if (i == 0 || u->scores[i] < u->unknown_score)
        u->unknown_score = u->scores[i];
    rc = vocab_add(&u->vocab, json_string_value(text), json_string_length(text), (int32_t)i);
    if (rc == -EEXIST)
        return err_set(err, -EINVAL, "%s: model.vocab: entry %zu, \"%.60s\", occurs twice", file, i,
                       json_string_value(text));
    return rc;
}

static int read_tokens(struct unigram *u, const char *file, const json_t *list, struct err *err)
{
    size_t n = json_array_size(list), i;
    const json_t *entry;
    int rc;

    if (n == 0 || n > TOKENIZER_MAX_ID)
        return err_set(err, -EINVAL, "%s: model.vocab: is %s, expected an array of 1 to %d tokens", file,
                       json_is_array(list) ? (n ? "longer" : "empty") : json_type_text(list), TOKENIZER_MAX_ID);
    u->scores = calloc(n, sizeof(*u->scores));
    rc = u->scores ? vocab_init(&u->vocab, (int32_t)n) : -ENOMEM;
    if (rc < 0)
        return rc;
    json_array_foreach((json_t *)(uintptr_t)list, i, entry)
    {
        rc = read_token(u, file, i, entry, err);
        if (rc < 0)
            return rc;
    }
    u->unknown_score -= UNKNOWN_PENALTY;
    return tokenizer_vocab_trie(file, &u->vocab, &u->trie, err);
}

static int read_options(struct unigram *u, const char *file, const json_t *model, struct err *err)
{
    struct json_reader r = {.file = file, .section = "model.", .object = model, .err = err};

    u->unknown = (int32_t)json_read_int(&r, "unk_id", -1, 0, u->vocab.n_ids - 1);
    if (r.rc == 0 && u->unknown < 0)
        json_reader_fail(&r, "unk_id", "is missing");
    if (json_read_bool(&r, "byte_fallback", false))
        json_reader_fail(&r, "byte_fallback", "is not supported");
    if (json_read_any(&r, "alpha"))
        json_reader_fail(&r, "alpha", "(sampling) is not supported");
    if (json_read_any(&r, "nbest_size"))
        json_reader_fail(&r, "nbest_size", "(sampling) is not supported");
    return r.rc;
}

static void unigram_free(void *model)
{
    struct unigram *u = model;

    if (!u)
        return;
    vocab_release(&u->vocab);
    trie_release(&u->trie);
    free(u->scores);
    free(u);
}

static int unigram_parse(const char *file, const json_t *model, void **ret_model, struct err *err)
{
    struct unigram *u = calloc(1, sizeof(*u));
    int rc = u ? read_tokens(u, file, json_object_get(model, "vocab"), err) : -ENOMEM;

    if (rc == 0)
        rc = read_options(u, file, model, err);
    if (rc < 0)
        unigram_free(u);
    else
        *ret_model = u;
    return rc;
}

/* -- encoding */

/* The best token sequence for the word up to a byte. */
struct node {
    double score;
    int32_t id;    /* of its last token */
    int32_t start; /* where that token begins; -1: no token ends here */
};

struct scratch {
    struct node *nodes;
    int32_t *ids; /* the word's tokens, last one first */
    size_t capacity;
};

static int scratch_reserve(struct scratch *s, size_t n)
{
    size_t capacity = n < 256 ? 256 : n;

    if (n <= s->capacity)
        return 0;
    free(s->nodes);
    free(s->ids);
    s->nodes = calloc(capacity, sizeof(*s->nodes));
    s->ids = calloc(capacity, sizeof(*s->ids));
    s->capacity = s->nodes && s->ids ? capacity : 0;
    return s->capacity ? 0 : -ENOMEM;
}

/* On equal scores the first stays: the one with the longer last token. */
static void offer(struct node *node, double score, int32_t id, size_t start)
{
    if (node->start < 0 || score > node->score)
        *node = (struct node){score, id, (int32_t)start};
}

static void find_best(const struct unigram *u, struct node *nodes, struct token_text w)
{
    for (size_t i = 1; i <= w.size_bytes; i++)
        nodes[i].start = -1;
    nodes[0].score = 0;
    for (size_t at = 0, k; at < w.size_bytes; at += k) {
        double here = nodes[at].score;
        uint32_t node = TRIE_ROOT, cp;
        bool known = false; /* the character alone is a token */

        k = utf8_step(w.text + at, w.size_bytes - at, &cp);
        for (size_t i = at; i < w.size_bytes; i++) {
            int32_t id;

            node = trie_step(&u->trie, node, (uint8_t)w.text[i]);
            if (node == TRIE_NONE)
                break;
            id = u->trie.values[node];
            if (id < 0)
                continue;
            offer(&nodes[i + 1], here + u->scores[id], id, at);
            known = known || i + 1 - at == k;
        }
        if (!known)
            offer(&nodes[at + k], here + u->unknown_score, u->unknown, at);
    }
}

/* Walks back; merges adjacent unknown characters and looks the result up as a token. */
static size_t collect(const struct unigram *u, struct token_text w, const struct node *nodes, int32_t *ids)
{
    size_t n = 0;

    for (size_t end = w.size_bytes; end > 0;) {
        size_t start = (size_t)nodes[end].start;
        int32_t id = nodes[end].id;

        while (id == u->unknown && start > 0 && nodes[start].id == u->unknown)
            start = (size_t)nodes[start].start;
        if (id == u->unknown) {
            id = vocab_find(&u->vocab, w.text + start, end - start);
            id = id < 0 ? u->unknown : id;
        }
        ids[n++] = id;
        end = start;
    }
    return n;
}

static int unigram_encode(const void *model, const struct pieces *words, struct token_ids *ret)
{
    struct scratch s = {0};
    int rc = 0;

    for (size_t i = 0; i < words->n && rc == 0; i++) {
        struct token_text w = pieces_at(words, i);
        size_t n;

        rc = scratch_reserve(&s, w.size_bytes + 1);
        if (rc < 0)
            break;
        assert(s.nodes && s.ids); /* a word is never empty, so there is room */
        find_best(model, s.nodes, w);
        n = collect(model, w, s.nodes, s.ids);
        while (n > 0 && rc == 0)
            rc = token_ids_append(ret, s.ids[--n]);
    }
    free(s.nodes);
    free(s.ids);
    return rc;
}

static const struct vocab *unigram_vocab(const void *model)
{
    return &((const struct unigram *)model)->vocab;
}

const struct tokenizer_type tokenizer_unigram = {
    .name = "Unigram",
    .parse = unigram_parse,
    .free = unigram_free,
    .encode = unigram_encode,
    .vocab = unigram_vocab,
};
