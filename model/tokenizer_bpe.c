/* Byte-level BPE (GPT-2, OPT): the bytes of a word are spelled with 256 printable characters, and neighbours are merged
 * in the order of the file's merge list. */
#include "model/tokenizer_type.h"

#include "model/byte_alphabet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct merge {
    uint64_t pair; /* left id << 32 | right id; EMPTY_PAIR: free slot */
    int32_t rank, id;
};
#define EMPTY_PAIR UINT64_MAX

struct bpe {
    struct vocab vocab;
    struct merge *merges; /* hash table, a power of two, at most half full */
    size_t n_slots;
    int32_t byte_ids[256]; /* -1: the vocabulary lacks that byte, which is left out */
};

/* -- merges */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct merge *merge_slot(const struct bpe *b, uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    size_t mask = b->n_slots - 1, i = (size_t)(h ^ h >> 32) & mask;

    while (b->merges[i].pair != EMPTY_PAIR && b->merges[i].pair != pair)
        i = (i + 1) & mask;
    return &b->merges[i];
}

static const struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    const struct merge *m = merge_slot(b, pair_of(left, right));

    return m->pair == EMPTY_PAIR ? NULL : m;
}

/* "a b" or ["a", "b"] */
static int split_merge(const json_t *v, struct token_text ret[2])
{
    const char *s = json_string_value(v), *space;

    if (s) {
        space = memchr(s, ' ', json_string_length(v));
        if (!space || strchr(space + 1, ' '))
            return -EINVAL;
        ret[0] = (struct token_text){s, (size_t)(space - s)};
        ret[1] = (struct token_text){space + 1, strlen(space + 1)};
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *part = json_array_get(v, i);

        if (!json_is_string(part))
            return -EINVAL;
        ret[i] = (struct token_text){json_string_value(part), json_string_length(part)};
    }
    return json_array_size(v) == 2 ? 0 : -EINVAL;
}

static int add_merge(struct bpe *b, const char *file, size_t rank, const json_t *v, struct buf *joined, struct err *err)
{
    struct token_text part[2];
    int32_t left, right, id;
    struct merge *m;

    if (split_merge(v, part) < 0)
        return err_set(err, -EINVAL, "%s: model.merges: entry %zu is not a pair of tokens", file, rank);
    buf_clear(joined);
    if (buf_append(joined, part[0].text, part[0].size_bytes) < 0 ||
        buf_append(joined, part[1].text, part[1].size_bytes) < 0)
        return -ENOMEM;
    left = vocab_find(&b->vocab, part[0].text, part[0].size_bytes);
    right = vocab_find(&b->vocab, part[1].text, part[1].size_bytes);
    id = vocab_find(&b->vocab, joined->data, joined->size_bytes);
    if (left < 0 || right < 0 || id < 0)
        return err_set(err, -EINVAL, "%s: model.merges: entry %zu: \"%.*s\" is not in model.vocab", file, rank,
                       (int)(joined->size_bytes < 80 ? joined->size_bytes : 80), (const char *)joined->data);
    m = merge_slot(b, pair_of(left, right));
    *m = (struct merge){pair_of(left, right), (int32_t)rank, id};
    return 0;
}

static int read_merges(struct bpe *b, const char *file, const json_t *merges, struct err *err)
{
    struct buf joined;
    size_t i;
    const json_t *v;
    int rc = 0;

    if (!json_is_array(merges))
        return err_set(err, -EINVAL, "%s: model.merges: is %s, expected an array", file, json_type_text(merges));
    b->n_slots = 16;
    while (b->n_slots < 2 * json_array_size(merges))
        b->n_slots *= 2;
    b->merges = malloc(b->n_slots * sizeof(*b->merges));
    if (!b->merges)
        return -ENOMEM;
    for (i = 0; i < b->n_slots; i++)
        b->merges[i].pair = EMPTY_PAIR;
    buf_init(&joined, 0);
    rc = buf_reserve(&joined, 64); /* never a NULL base */
    json_array_foreach((json_t *)(uintptr_t)merges, i, v)
    {
        if (rc == 0)
            rc = add_merge(b, file, i, v, &joined, err);
    }
    buf_release(&joined);
    return rc;
}

/* -- the file */

static int check_options(const struct bpe *b, const char *file, const json_t *model, struct err *err)
{
    struct json_reader m = {.file = file, .section = "model.", .object = model, .err = err};
    const char *unknown = json_read_text(&m, "unk_token", "");

    if (json_read_real(&m, "dropout", 0, 0, 1) > 0)
        json_reader_fail(&m, "dropout", "is not supported");
    if (json_read_text(&m, "continuing_subword_prefix", "")[0])
        json_reader_fail(&m, "continuing_subword_prefix", "is not supported");
    if (json_read_text(&m, "end_of_word_suffix", "")[0])
        json_reader_fail(&m, "end_of_word_suffix", "is not supported");
    if (json_read_bool(&m, "byte_fallback", false))
        json_reader_fail(&m, "byte_fallback", "is not supported");
    if (json_read_bool(&m, "ignore_merges", false))
        json_reader_fail(&m, "ignore_merges", "is not supported");
    for (int i = 0; unknown[0] && i < 256; i++)
        if (b->byte_ids[i] < 0)
            json_reader_fail(&m, "unk_token", "\"%.60s\" is not supported where model.vocab lacks bytes", unknown);
    return m.rc;
}

static void bpe_free(void *model)
{
    struct bpe *b = model;

    if (!b)
        return;
    vocab_release(&b->vocab);
    free(b->merges);
    free(b);
}

static int bpe_parse(const char *file, const json_t *model, void **ret_model, struct err *err)
{
    struct bpe *b = calloc(1, sizeof(*b));
    int rc = b ? tokenizer_read_vocab(file, json_object_get(model, "vocab"), &b->vocab, err) : -ENOMEM;

    if (rc == 0)
        rc = read_merges(b, file, json_object_get(model, "merges"), err);
    for (int i = 0; rc == 0 && i < 256; i++) {
        char spelling[4];
        size_t n = byte_alphabet_spell((uint8_t)i, spelling);

        b->byte_ids[i] = vocab_find(&b->vocab, spelling, n);
    }
    if (rc == 0)
        rc = check_options(b, file, model, err);
    if (rc < 0) {
        bpe_free(b);
        return rc;
    }
    *ret_model = b;
    return 0;
}

/* -- encoding */

struct symbol {
    int32_t id;
    int32_t prev, next; /* -1: none */
    bool gone;          /* swallowed by the one before it */
};

/* A merge that may be done at `pos`; smallest rank first, then leftmost. */
struct candidate {
    int32_t rank, pos, id;
};

/* Grown to the longest word of a piece. */
struct scratch {
    struct symbol *symbols;
    struct candidate *heap; /* a word of n bytes puts at most 3n candidates in */
    size_t n_heap, capacity;
};

static int scratch_reserve(struct scratch *s, size_t n)
{
    if (n <= s->capacity)
        return 0;
    free(s->symbols);
    free(s->heap);
    s->capacity = n < 64 ? 64 : n;
    s->symbols = calloc(s->capacity, sizeof(*s->symbols));
    s->heap = calloc(3 * s->capacity, sizeof(*s->heap));
    if (s->symbols && s->heap)
        return 0;
    s->capacity = 0;
    return -ENOMEM;
}

static void scratch_release(struct scratch *s)
{
    free(s->symbols);
    free(s->heap);
}

static bool goes_before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static void heap_push(struct scratch *s, struct candidate c)
{
    size_t i = s->n_heap++;

    for (size_t up; i > 0 && goes_before(&c, &s->heap[up = (i - 1) / 2]); i = up)
        s->heap[i] = s->heap[up];
    s->heap[i] = c;
}

static struct candidate heap_pop(struct scratch *s)
{
    struct candidate top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && goes_before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!goes_before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static void consider(const struct bpe *b, struct scratch *s, int32_t pos)
{
    const struct merge *m;

    if (pos < 0 || s->symbols[pos].next < 0)
        return;
    m = find_merge(b, s->symbols[pos].id, s->symbols[s->symbols[pos].next].id);
    if (m)
        heap_push(s, (struct candidate){m->rank, pos, m->id});
}

/* Do the best candidate unless its pair has changed meanwhile. */
static void merge_best(const struct bpe *b, struct scratch *s)
{
    struct candidate c = heap_pop(s);
    struct symbol *left = &s->symbols[c.pos], *right;
    const struct merge *m;

    if (left->gone || left->next < 0)
        return;
    right = &s->symbols[left->next];
    m = find_merge(b, left->id, right->id);
    if (!m || m->id != c.id)
        return;
    left->id = c.id;
    left->next = right->next;
    right->gone = true;
    if (right->next >= 0)
        s->symbols[right->next].prev = c.pos;
    consider(b, s, left->prev);
    consider(b, s, c.pos);
}

/* The word's bytes as symbols; returns how many. */
static int32_t start_symbols(const struct bpe *b, struct scratch *s, const uint8_t *word, size_t n)
{
    int32_t k = 0;

    for (size_t i = 0; i < n; i++)
        if (b->byte_ids[word[i]] >= 0) {
            s->symbols[k] = (struct symbol){.id = b->byte_ids[word[i]], .prev = k - 1, .next = k + 1};
            k++;
        }
    if (k)
        s->symbols[k - 1].next = -1;
    return k;
}

static int encode_word(const struct bpe *b, struct scratch *s, const uint8_t *word, size_t n, struct token_ids *ret)
{
    int rc = scratch_reserve(s, n);
    int32_t k;

    if (rc < 0)
        return rc;
    k = start_symbols(b, s, word, n);
    s->n_heap = 0;
    for (int32_t i = 0; i < k; i++)
        consider(b, s, i);
    while (s->n_heap)
        merge_best(b, s);
    for (int32_t i = k ? 0 : -1; i >= 0 && rc == 0; i = s->symbols[i].next)
        rc = token_ids_append(ret, s->symbols[i].id);
    return rc;
}

static int bpe_encode(const void *model, const struct pieces *words, struct token_ids *ret)
{
    struct scratch s = {0};
    int rc = 0;

    for (size_t i = 0; i < words->n && rc == 0; i++) {
        struct token_text w = pieces_at(words, i);

        rc = encode_word(model, &s, (const uint8_t *)w.text, w.size_bytes, ret);
    }
    scratch_release(&s);
    return rc;
}

static const struct vocab *bpe_vocab(const void *model)
{
    return &((const struct bpe *)model)->vocab;
}

const struct tokenizer_type tokenizer_bpe = {
    .name = "BPE",
    .byte_level = true,
    .parse = bpe_parse,
    .free = bpe_free,
    .encode = bpe_encode,
    .vocab = bpe_vocab,
};
