#include "model/token_decoder.h"

#include "model/byte_alphabet.h"
#include "model/metaspace.h"
#include "model/tokenizer_part.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct token_decoder {
    const struct kind *kind;
    struct metaspace metaspace;
    char *prefix; /* WordPiece */
    size_t prefix_size;
    bool cleanup;
};

struct kind {
    const char *type;
    int (*parse)(struct token_decoder *d, const struct tokenizer_part *part);
    int (*apply)(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret);
};

/* -- ByteLevel */

static int parse_byte_level(struct token_decoder *d, const struct tokenizer_part *part)
{
    static const char *const known[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};

    (void)d;
    return tokenizer_part_check_keys(part, known);
}

/* Appends a token's bytes; a token with a character outside the alphabet is appended unchanged. */
static int append_bytes(struct token_text t, struct buf *ret)
{
    size_t before = ret->size_bytes;
    int rc = buf_reserve(ret, t.size_bytes);

    for (size_t i = 0; i < t.size_bytes && rc == 0;) {
        uint32_t cp;
        size_t n = utf8_step(t.text + i, t.size_bytes - i, &cp);
        int byte = byte_alphabet_byte(cp);

        if (byte < 0) {
            ret->size_bytes = before;
            return buf_append(ret, t.text, t.size_bytes);
        }
        ret->data[ret->size_bytes++] = (uint8_t)byte;
        i += n;
    }
    return rc;
}

static int apply_byte_level(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret)
{
    struct buf bytes;
    int rc = 0;

    (void)d;
    buf_init(&bytes, PIECES_MAX_BYTES);
    for (size_t i = 0; i < tokens->n && rc == 0; i++)
        rc = append_bytes(pieces_at(tokens, i), &bytes);
    if (rc == 0) /* a character may span tokens, so validate at the end */
        rc = utf8_append_lossy(ret, bytes.data, bytes.size_bytes);
    buf_release(&bytes);
    return rc;
}

/* -- Metaspace */

static int parse_metaspace(struct token_decoder *d, const struct tokenizer_part *part)
{
    return metaspace_parse(part, &d->metaspace);
}

/* Turns replacements into spaces; drops a leading one in the first token unless encoding never prepends one. */
static int apply_metaspace(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret)
{
    const struct metaspace *m = &d->metaspace;
    int rc = 0;

    for (size_t i = 0; i < tokens->n && rc == 0; i++) {
        size_t space = i == 0 && m->prepend != METASPACE_NEVER ? 0 : 1;
        struct token_text t = pieces_at(tokens, i);

        while (t.size_bytes && rc == 0) {
            const char *found = memmem(t.text, t.size_bytes, m->replacement, m->replacement_size);
            size_t n = found ? (size_t)(found - t.text) : t.size_bytes, skip = found ? n + m->replacement_size : n;

            rc = buf_append(ret, t.text, n);
            if (rc == 0 && found)
                rc = buf_append(ret, " ", space);
            t.text += skip;
            t.size_bytes -= skip;
        }
    }
    return rc;
}

/* -- WordPiece */

static int parse_wordpiece(struct token_decoder *d, const struct tokenizer_part *part)
{
    static const char *const known[] = {"prefix", "cleanup", NULL};
    struct json_reader r = tokenizer_part_reader(part, "decoder.");
    int rc = tokenizer_part_check_keys(part, known);

    d->prefix = strdup(json_read_text(&r, "prefix", "##"));
    d->cleanup = json_read_bool(&r, "cleanup", true);
    if (rc < 0 || r.rc < 0)
        return rc < 0 ? rc : r.rc;
    if (!d->prefix)
        return -ENOMEM;
    d->prefix_size = strlen(d->prefix);
    return 0;
}

/* Replaces in the text from `begin` on; no replacement is longer than the original. */
static void replace_all(struct buf *b, size_t begin, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to), out = begin, at = begin;
    const char *found;

    if (!b->size_bytes || !memmem(b->data + begin, b->size_bytes - begin, from, n_from))
        return;
    while ((found = memmem(b->data + at, b->size_bytes - at, from, n_from)) != NULL) {
        size_t n = (size_t)(found - (const char *)b->data) - at;

        memmove(b->data + out, b->data + at, n);
        memcpy(b->data + out + n, to, n_to);
        out += n + n_to;
        at += n + n_from;
    }
    memmove(b->data + out, b->data + at, b->size_bytes - at);
    b->size_bytes = out + b->size_bytes - at;
}

static void clean_up(struct buf *b, size_t begin)
{
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        replace_all(b, begin, pairs[i][0], pairs[i][1]);
}

static int apply_wordpiece(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0; i < tokens->n && rc == 0; i++) {
        struct token_text t = pieces_at(tokens, i);
        bool inside = t.size_bytes >= d->prefix_size && memcmp(t.text, d->prefix, d->prefix_size) == 0;
        size_t begin = ret->size_bytes, skip = i > 0 && inside ? d->prefix_size : 0;

        if (i > 0 && !inside)
            rc = buf_append(ret, " ", 1);
        if (rc == 0)
            rc = buf_append(ret, t.text + skip, t.size_bytes - skip);
        if (rc == 0 && d->cleanup)
            clean_up(ret, begin);
    }
    return rc;
}

/* -- all of them */

static const struct kind kinds[] = {
    {"ByteLevel", parse_byte_level, apply_byte_level},
    {"Metaspace", parse_metaspace, apply_metaspace},
    {"WordPiece", parse_wordpiece, apply_wordpiece},
};

static int parse(struct token_decoder *d, const struct tokenizer_part *part)
{
    const char *type = tokenizer_part_type(part->json);

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) {
            d->kind = &kinds[i];
            return kinds[i].parse(d, part);
        }
    return err_set(part->err, -EINVAL, "%s: decoder: \"%.60s\" is not supported", part->file, type);
}

int token_decoder_parse(const char *file, const json_t *json, struct token_decoder **ret, struct err *err)
{
    struct tokenizer_part part = {.file = file, .place = "decoder", .json = json, .err = err};
    struct token_decoder *d = calloc(1, sizeof(*d));
    int rc = d ? parse(d, &part) : -ENOMEM;

    if (rc < 0)
        token_decoder_free(d);
    else
        *ret = d;
    return rc;
}

void token_decoder_free(struct token_decoder *d)
{
    if (!d)
        return;
    free(d->prefix);
    free(d);
}

bool token_decoder_is_byte_level(const struct token_decoder *d)
{
    return d->kind->apply == apply_byte_level;
}

int token_decoder_apply(const struct token_decoder *d, const struct pieces *tokens, struct buf *ret)
{
    return d->kind->apply(d, tokens, ret);
}
