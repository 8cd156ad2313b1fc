#include "model/token_decoder.h"

#include "model/byte_alphabet.h"
#include "model/metaspace.h"
#include "model/tokenizer_part.h"
#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct step {
    const struct kind *kind;
    struct metaspace metaspace;
    char *prefix; /* WordPiece */
    size_t prefix_size;
    bool cleanup;
};

struct kind {
    const char *type;
    int (*parse)(struct step *s, const struct tokenizer_part *part);
    int (*apply)(const struct step *s, const struct pieces *in, struct pieces *out);
};

struct token_decoder {
    struct step steps[TOKENIZER_PART_MAX_STEPS];
    size_t n_steps;
};

/* -- ByteLevel and Fuse */

static int parse_byte_level(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};

    (void)s;
    return tokenizer_part_check_keys(part, known);
}

/* A token's bytes; one with a character outside the alphabet stands for itself. */
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

static int apply_byte_level(const struct step *s, const struct pieces *in, struct pieces *out)
{
    struct buf bytes;
    int rc = 0;

    (void)s;
    buf_init(&bytes, PIECES_MAX_BYTES);
    for (size_t i = 0; i < in->n && rc == 0; i++)
        rc = append_bytes(pieces_at(in, i), &bytes);
    if (rc == 0) /* a character may span tokens: only now */
        rc = utf8_append_lossy(&out->text, bytes.data, bytes.size_bytes);
    if (rc == 0)
        rc = pieces_mark(out, 0, out->text.size_bytes);
    buf_release(&bytes);
    return rc;
}

static int parse_fuse(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {NULL};

    (void)s;
    return tokenizer_part_check_keys(part, known);
}

static int append_all(const struct pieces *in, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0; i < in->n && rc == 0; i++) {
        struct token_text t = pieces_at(in, i);

        rc = buf_append(ret, t.text, t.size_bytes);
    }
    return rc;
}

static int apply_fuse(const struct step *s, const struct pieces *in, struct pieces *out)
{
    int rc = append_all(in, &out->text);

    (void)s;
    return rc < 0 ? rc : pieces_mark(out, 0, out->text.size_bytes);
}

/* -- Metaspace */

static int parse_metaspace(struct step *s, const struct tokenizer_part *part)
{
    return metaspace_parse(part, &s->metaspace);
}

/* Spaces for the replacement; in the first token nothing for it, unless none was put in front of a text. */
static int apply_metaspace(const struct step *s, const struct pieces *in, struct pieces *out)
{
    const struct metaspace *m = &s->metaspace;
    int rc = 0;

    for (size_t i = 0; i < in->n && rc == 0; i++) {
        size_t space = i == 0 && m->prepend != METASPACE_NEVER ? 0 : 1, begin = out->text.size_bytes;
        struct token_text t = pieces_at(in, i);

        while (t.size_bytes && rc == 0) {
            const char *found = memmem(t.text, t.size_bytes, m->replacement, m->replacement_size);
            size_t n = found ? (size_t)(found - t.text) : t.size_bytes, skip = found ? n + m->replacement_size : n;

            rc = buf_append(&out->text, t.text, n);
            if (rc == 0 && found)
                rc = buf_append(&out->text, " ", space);
            t.text += skip;
            t.size_bytes -= skip;
        }
        if (rc == 0)
            rc = pieces_mark(out, begin, out->text.size_bytes - begin);
    }
    return rc;
}

/* -- WordPiece */

static int parse_wordpiece(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"prefix", "cleanup", NULL};
    struct json_reader r = tokenizer_part_reader(part, "decoder.");
    int rc = tokenizer_part_check_keys(part, known);

    s->prefix = strdup(json_read_text(&r, "prefix", "##"));
    s->cleanup = json_read_bool(&r, "cleanup", true);
    if (rc < 0 || r.rc < 0)
        return rc < 0 ? rc : r.rc;
    if (!s->prefix)
        return -ENOMEM;
    s->prefix_size = strlen(s->prefix);
    return 0;
}

/* Replace in the text from `begin` on; no replacement is longer than what it replaces. */
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

static int apply_wordpiece(const struct step *s, const struct pieces *in, struct pieces *out)
{
    int rc = 0;

    for (size_t i = 0; i < in->n && rc == 0; i++) {
        struct token_text t = pieces_at(in, i);
        bool inside = t.size_bytes >= s->prefix_size && memcmp(t.text, s->prefix, s->prefix_size) == 0;
        size_t begin = out->text.size_bytes, skip = i > 0 && inside ? s->prefix_size : 0;

        if (i > 0 && !inside)
            rc = buf_append(&out->text, " ", 1);
        if (rc == 0)
            rc = buf_append(&out->text, t.text + skip, t.size_bytes - skip);
        if (rc == 0 && s->cleanup)
            clean_up(&out->text, begin);
        if (rc == 0)
            rc = pieces_mark(out, begin, out->text.size_bytes - begin);
    }
    return rc;
}

/* -- all of them */

static const struct kind kinds[] = {
    {"ByteLevel", parse_byte_level, apply_byte_level},
    {"Metaspace", parse_metaspace, apply_metaspace},
    {"WordPiece", parse_wordpiece, apply_wordpiece},
    {"Fuse", parse_fuse, apply_fuse},
};

static int add_step(void *owner, const struct tokenizer_part *part)
{
    struct token_decoder *d = owner;
    const char *type = tokenizer_part_type(part->json);

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) {
            assert(d->n_steps < TOKENIZER_PART_MAX_STEPS);
            d->steps[d->n_steps].kind = &kinds[i];
            return kinds[i].parse(&d->steps[d->n_steps++], part);
        }
    return err_set(part->err, -EINVAL, "%s: decoder: \"%.60s\" is not supported", part->file, type);
}

int token_decoder_parse(const char *file, const json_t *json, struct token_decoder **ret, struct err *err)
{
    struct tokenizer_part part = {.file = file, .place = "decoder", .json = json, .err = err};
    struct token_decoder *d = calloc(1, sizeof(*d));
    int rc = d ? tokenizer_part_each(&part, "decoders", add_step, d) : -ENOMEM;

    if (rc == 0 && d->n_steps == 0)
        rc = err_set(err, -EINVAL, "%s: decoder: \"%.60s\" is not supported", file, tokenizer_part_type(json));
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
    for (size_t i = 0; i < d->n_steps; i++)
        free(d->steps[i].prefix);
    free(d);
}

bool token_decoder_is_byte_level(const struct token_decoder *d)
{
    return d->steps[0].kind->apply == apply_byte_level;
}

int token_decoder_apply(const struct token_decoder *d, struct pieces work[2], struct buf *ret)
{
    for (size_t i = 0; i < d->n_steps; i++) {
        struct pieces *out = &work[!(i & 1)];
        int rc;

        pieces_clear(out);
        rc = d->steps[i].kind->apply(&d->steps[i], &work[i & 1], out);
        if (rc < 0)
            return rc;
    }
    return append_all(&work[d->n_steps & 1], ret);
}
