/* WordPiece (BERT, the Q-Former's texts): takes the longest token at the start of a word, then repeatedly the
 * longest continuation token ("##"); a word that cannot be split this way is unknown. */
#include "model/tokenizer_type.h"

#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct wordpiece {
    struct vocab vocab;
    struct trie trie;
    uint32_t continuing; /* the trie node of the prefix */
    bool continues;      /* the node exists */
    int32_t unknown;
    int64_t max_word_chars;
};

static void wordpiece_free(void *model)
{
    struct wordpiece *w = model;

    if (!w)
        return;
    vocab_release(&w->vocab);
    trie_release(&w->trie);
    free(w);
}

static int read_options(struct wordpiece *w, const char *file, const json_t *model, struct err *err)
{
    struct json_reader r = {.file = file, .section = "model.", .object = model, .err = err};
    const char *unknown = json_read_text(&r, "unk_token", NULL),
               *prefix = json_read_text(&r, "continuing_subword_prefix", NULL);

    w->max_word_chars = json_read_int(&r, "max_input_chars_per_word", -1, 0, INT32_MAX);
    if (!unknown)
        json_reader_fail(&r, "unk_token", "is missing");
    else if ((w->unknown = vocab_find(&w->vocab, unknown, strlen(unknown))) < 0)
        json_reader_fail(&r, "unk_token", "\"%.60s\" is not in model.vocab", unknown);
    if (!prefix)
        json_reader_fail(&r, "continuing_subword_prefix", "is missing");
    if (w->max_word_chars < 0)
        json_reader_fail(&r, "max_input_chars_per_word", "is missing");
    if (r.rc < 0)
        return r.rc;
    assert(prefix); /* otherwise the reader has failed above */
    w->continuing = TRIE_ROOT;
    w->continues = true;
    for (; *prefix && w->continues; prefix++) {
        w->continuing = trie_step(&w->trie, w->continuing, (uint8_t)*prefix);
        w->continues = w->continuing != TRIE_NONE;
    }
    return 0;
}

static int wordpiece_parse(const char *file, const json_t *model, void **ret_model, struct err *err)
{
    struct wordpiece *w = calloc(1, sizeof(*w));
    int rc = w ? tokenizer_read_vocab(file, json_object_get(model, "vocab"), &w->vocab, err) : -ENOMEM;

    if (rc == 0)
        rc = tokenizer_vocab_trie(file, &w->vocab, &w->trie, err);
    if (rc == 0)
        rc = read_options(w, file, model, err);
    if (rc < 0)
        wordpiece_free(w);
    else
        *ret_model = w;
    return rc;
}

static int64_t count_chars(struct token_text t)
{
    int64_t n = 0;

    for (size_t i = 0; i < t.size_bytes; i++)
        n += ((unsigned char)t.text[i] & 0xc0) != 0x80;
    return n;
}

/* The longest token at `at`, or -1. */
static int32_t longest(const struct wordpiece *w, struct token_text word, size_t at, size_t *ret_end)
{
    uint32_t node = at == 0 ? (uint32_t)TRIE_ROOT : w->continuing;
    int32_t found = -1;

    if (at > 0 && !w->continues)
        return -1;
    for (size_t i = at; i < word.size_bytes; i++) {
        node = trie_step(&w->trie, node, (uint8_t)word.text[i]);
        if (node == TRIE_NONE)
            break;
        if (w->trie.values[node] >= 0) {
            found = w->trie.values[node];
            *ret_end = i + 1;
        }
    }
    return found;
}

static int encode_word(const struct wordpiece *w, struct token_text word, struct token_ids *ret)
{
    size_t before = ret->n, at = 0;
    bool spelled = count_chars(word) <= w->max_word_chars;
    int rc = 0;

    while (spelled && at < word.size_bytes && rc == 0) {
        int32_t id = longest(w, word, at, &at);

        if (id < 0)
            spelled = false;
        else
            rc = token_ids_append(ret, id);
    }
    if (spelled || rc < 0)
        return rc;
    ret->n = before;
    return token_ids_append(ret, w->unknown);
}

static int wordpiece_encode(const void *model, const struct pieces *words, struct token_ids *ret)
{
    int rc = 0;

    for (size_t i = 0; i < words->n && rc == 0; i++)
        rc = encode_word(model, pieces_at(words, i), ret);
    return rc;
}

static const struct vocab *wordpiece_vocab(const void *model)
{
    return &((const struct wordpiece *)model)->vocab;
}

const struct tokenizer_type tokenizer_wordpiece = {
    .name = "WordPiece",
    .parse = wordpiece_parse,
    .free = wordpiece_free,
    .encode = wordpiece_encode,
    .vocab = wordpiece_vocab,
};
