#include "model/normalizer.h"

#include "model/charsmap.h"
#include "model/tokenizer_part.h"
#include "model/unicode.h"
#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct step {
    const struct kind *kind;
    struct charsmap *charsmap;
    char *to; /* Replace */
    size_t to_size;
    bool clean, chinese, strip_accents, lower; /* BertNormalizer */
};

/* apply() appends the text's new form; *at_start as in the header. */
struct kind {
    const char *type;
    int (*parse)(struct step *s, const struct tokenizer_part *part);
    int (*apply)(const struct step *s, struct token_text t, struct buf *ret, bool *at_start);
};

struct normalizer {
    struct step steps[TOKENIZER_PART_MAX_STEPS];
    size_t n_steps;
};

static struct token_text text_of(const struct buf *b)
{
    return (struct token_text){b->data ? (const char *)b->data : "", b->size_bytes};
}

static int append_point(struct buf *ret, uint32_t cp)
{
    int rc = buf_reserve(ret, 4);

    if (rc == 0)
        ret->size_bytes += utf8_encode(cp, (char *)ret->data + ret->size_bytes);
    return rc;
}

/* -- BertNormalizer */

static int lowercase(struct token_text t, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0; i < t.size_bytes && rc == 0;) {
        uint32_t cp, lower[2];
        char c = t.text[i];
        size_t n;

        if ((unsigned char)c < 0x80) {
            c = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            rc = buf_append(ret, &c, 1);
            i++;
            continue;
        }
        i += utf8_step(t.text + i, t.size_bytes - i, &cp);
        n = unicode_lower(cp, lower);
        for (size_t k = 0; k < n && rc == 0; k++)
            rc = append_point(ret, lower[k]);
    }
    return rc;
}

/* Keeps the characters for which `map` gives a code point. */
static int filter(struct token_text t, uint32_t (*map)(uint32_t cp), struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0, k; i < t.size_bytes && rc == 0; i += k) {
        uint32_t cp, mapped;

        k = utf8_step(t.text + i, t.size_bytes - i, &cp);
        mapped = map(cp);
        if (mapped != UTF8_BROKEN)
            rc = mapped == cp ? buf_append(ret, t.text + i, k) : append_point(ret, mapped);
    }
    return rc;
}

static int parse_bert(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    int rc = tokenizer_part_check_keys(part, known);

    s->clean = json_read_bool(&r, "clean_text", true);
    s->chinese = json_read_bool(&r, "handle_chinese_chars", true);
    s->lower = json_read_bool(&r, "lowercase", true);
    s->strip_accents = json_read_bool(&r, "strip_accents", s->lower); /* null: as lowercase */
    return rc < 0 ? rc : r.rc;
}

static uint32_t clean(uint32_t cp)
{
    if (cp == '\t' || cp == '\n' || cp == '\r')
        return ' ';
    if (cp >= ' ' && cp < 0x7f)
        return cp;
    if (cp == 0 || cp == 0xfffd || unicode_is_control(cp))
        return UTF8_BROKEN;
    return utf8_is_space(cp) ? ' ' : cp;
}

static uint32_t without_nonspacing(uint32_t cp)
{
    return cp >= 0x300 && unicode_is_nonspacing(cp) ? UTF8_BROKEN : cp;
}

static bool is_chinese(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) || (cp >= 0x20000 && cp <= 0x2a6df) ||
           (cp >= 0x2a700 && cp <= 0x2b73f) || (cp >= 0x2b740 && cp <= 0x2b81f) || (cp >= 0x2b920 && cp <= 0x2ceaf) ||
           (cp >= 0xf900 && cp <= 0xfaff) || (cp >= 0x2f800 && cp <= 0x2fa1f);
}

static int space_chinese(struct token_text t, struct buf *ret)
{
    int rc = 0;

    for (size_t i = 0, k; i < t.size_bytes && rc == 0; i += k) {
        bool spaced;
        uint32_t cp;

        k = utf8_step(t.text + i, t.size_bytes - i, &cp);
        spaced = is_chinese(cp);
        if (spaced)
            rc = buf_append(ret, " ", 1);
        if (rc == 0)
            rc = buf_append(ret, t.text + i, k);
        if (rc == 0 && spaced)
            rc = buf_append(ret, " ", 1);
    }
    return rc;
}

/* Each step reads the result of the one before and appends to the other buffer; the last one appends to `ret`. */
static int apply_bert(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    struct buf mine[2];
    int rc = 0, at = 0;

    (void)at_start;
    buf_init(&mine[0], PIECES_MAX_BYTES);
    buf_init(&mine[1], PIECES_MAX_BYTES);
    for (int stage = 0; stage < 5 && rc == 0; stage++) {
        const bool wanted[5] = {s->clean, s->chinese, s->strip_accents, s->strip_accents, s->lower};
        struct buf *to = &mine[at];

        if (!wanted[stage])
            continue;
        buf_clear(to);
        rc = stage == 0   ? filter(t, clean, to)
             : stage == 1 ? space_chinese(t, to)
             : stage == 2 ? unicode_decompose(t.text, t.size_bytes, to)
             : stage == 3 ? filter(t, without_nonspacing, to)
                          : lowercase(t, to);
        t = text_of(to);
        at = !at;
    }
    if (rc == 0)
        rc = buf_append(ret, t.text, t.size_bytes);
    buf_release(&mine[0]);
    buf_release(&mine[1]);
    return rc;
}

/* -- Precompiled */

static int parse_precompiled(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"precompiled_charsmap", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    const char *base64 = json_read_text(&r, "precompiled_charsmap", NULL);
    int rc = tokenizer_part_check_keys(part, known);
    char where[512];

    if (rc < 0)
        return rc;
    if (!base64) {
        json_reader_fail(&r, "precompiled_charsmap", "is missing");
        return r.rc;
    }
    (void)snprintf(where, sizeof(where), "%s: normalizer.precompiled_charsmap", part->file);
    return charsmap_parse(base64, strlen(base64), where, &s->charsmap, part->err);
}

static int apply_precompiled(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    (void)at_start;
    return charsmap_apply(s->charsmap, t.text, t.size_bytes, ret);
}

/* -- what transformers makes of a SentencePiece model beside the charsmap */

static int parse_strip(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"strip_left", "strip_right", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    int rc = tokenizer_part_check_keys(part, known);

    (void)s;
    if (json_read_bool(&r, "strip_left", true) || !json_read_bool(&r, "strip_right", false))
        json_reader_fail(&r, "strip_left", "or strip_right is not supported: only the right side is stripped");
    return rc < 0 ? rc : r.rc;
}

static int apply_strip(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    (void)s;
    (void)at_start;
    return buf_append(ret, t.text, utf8_spaces_before(t.text, 0, t.size_bytes));
}

static int parse_replace(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"pattern", "content", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    const json_t *pattern = json_read_any(&r, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex")), *to = json_read_text(&r, "content", NULL);
    int rc = tokenizer_part_check_keys(part, known);

    if (json_object_size(pattern) != 1 || !regex || strcmp(regex, " {2,}") != 0)
        json_reader_fail(&r, "pattern", "is not supported: only {\"Regex\": \" {2,}\"}, two spaces or more, is");
    else if (!to)
        json_reader_fail(&r, "content", "is missing");
    if (rc < 0 || r.rc < 0)
        return rc < 0 ? rc : r.rc;
    assert(to); /* otherwise the reader has failed above */
    s->to = strdup(to);
    s->to_size = strlen(to);
    return s->to ? 0 : -ENOMEM;
}

static int apply_replace(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    int rc = 0;

    for (size_t at = 0, n = 0; at < t.size_bytes && rc == 0; at += n) {
        bool space = t.text[at] == ' ';

        for (n = 1; at + n < t.size_bytes && (t.text[at + n] == ' ') == space;)
            n++;
        if (space && n > 1) {
            rc = buf_append(ret, s->to, s->to_size);
            *at_start = *at_start && at > 0; /* the replacement counts as standing where the last of them was */
        } else {
            rc = buf_append(ret, t.text + at, n);
        }
    }
    return rc;
}

/* -- all of them */

static const struct kind kinds[] = {
    {"Precompiled", parse_precompiled, apply_precompiled},
    {"Strip", parse_strip, apply_strip},
    {"Replace", parse_replace, apply_replace},
    {"BertNormalizer", parse_bert, apply_bert},
};

static int add_step(void *owner, const struct tokenizer_part *part)
{
    struct normalizer *n = owner;
    const char *type = tokenizer_part_type(part->json);

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) {
            assert(n->n_steps < TOKENIZER_PART_MAX_STEPS);
            n->steps[n->n_steps].kind = &kinds[i];
            return kinds[i].parse(&n->steps[n->n_steps++], part);
        }
    return err_set(part->err, -EINVAL, "%s: normalizer: \"%.60s\" is not supported", part->file, type);
}

int normalizer_parse(const char *file, const json_t *json, struct normalizer **ret, struct err *err)
{
    struct tokenizer_part part = {.file = file, .place = "normalizer", .json = json, .err = err};
    struct normalizer *n = calloc(1, sizeof(*n));
    int rc = n ? tokenizer_part_each(&part, "normalizers", add_step, n) : -ENOMEM;

    if (rc < 0)
        normalizer_free(n);
    else
        *ret = n;
    return rc;
}

void normalizer_free(struct normalizer *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->n_steps; i++) {
        charsmap_free(n->steps[i].charsmap);
        free(n->steps[i].to);
    }
    free(n);
}

int normalizer_apply(const struct normalizer *n, struct token_text text, struct buf work[2], bool *at_start,
                     struct token_text *ret)
{
    for (size_t i = 0; i < n->n_steps; i++) {
        struct buf *to = &work[i & 1];
        int rc;

        buf_clear(to);
        rc = n->steps[i].kind->apply(&n->steps[i], text, to, at_start);
        if (rc < 0)
            return rc;
        text = text_of(to);
    }
    *ret = text;
    return 0;
}
