#include "model/normalizer.h"

#include "model/charsmap.h"
#include "model/pattern.h"
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
    enum unicode_form form;
    struct charsmap *charsmap;
    struct pattern *pattern; /* Replace: NULL: the text `from` */
    char *from, *to;         /* Replace, Prepend (to) */
    size_t from_size, to_size;
    bool left, right;                          /* Strip */
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

/* -- forms, case, accents */

static int parse_plain(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {NULL};
    static const char *const forms[] = {[UNICODE_NFC] = "NFC", "NFD", "NFKC", "NFKD"};

    for (unsigned i = 0; i < 4; i++)
        if (strcmp(s->kind->type, forms[i]) == 0)
            s->form = (enum unicode_form)i;
    return tokenizer_part_check_keys(part, known);
}

static int apply_form(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    (void)at_start;
    return unicode_normalize(s->form, t.text, t.size_bytes, ret);
}

static int apply_lowercase(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    int rc = 0;

    (void)s;
    (void)at_start;
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

/* Keep the characters for which `map` gives a code point. */
static int filter(struct token_text t, uint32_t (*map)(uint32_t cp), struct buf *ret, bool *at_start)
{
    int rc = 0;

    for (size_t i = 0, k; i < t.size_bytes && rc == 0; i += k) {
        uint32_t cp, mapped;

        k = utf8_step(t.text + i, t.size_bytes - i, &cp);
        mapped = map(cp);
        if (mapped != UTF8_BROKEN)
            rc = mapped == cp ? buf_append(ret, t.text + i, k) : append_point(ret, mapped);
        else if (i == 0)
            *at_start = false;
    }
    return rc;
}

static uint32_t without_mark(uint32_t cp)
{
    return cp >= 0x300 && unicode_is_mark(cp) ? UTF8_BROKEN : cp;
}

static int apply_strip_accents(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    (void)s;
    return filter(t, without_mark, ret, at_start);
}

/* SentencePiece's cleaning for machine translation. */
static uint32_t nmt(uint32_t cp)
{
    if ((cp >= 1 && cp <= 8) || cp == 0xb || (cp >= 0xe && cp <= 0x1f) || cp == 0x7f || cp == 0x8f || cp == 0x9f)
        return UTF8_BROKEN;
    if (cp == 9 || cp == 0xa || cp == 0xc || cp == 0xd || cp == 0x1680 || (cp >= 0x200b && cp <= 0x200f) ||
        cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xfeff || cp == 0xfffd)
        return ' ';
    return cp;
}

static int apply_nmt(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    (void)s;
    return filter(t, nmt, ret, at_start);
}

/* -- BertNormalizer */

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

/* Each stage reads what the one before has left and appends to the other buffer; the last one lands in `ret`. */
static int apply_bert(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    struct buf mine[2];
    int rc = 0, at = 0;

    buf_init(&mine[0], PIECES_MAX_BYTES);
    buf_init(&mine[1], PIECES_MAX_BYTES);
    for (int stage = 0; stage < 5 && rc == 0; stage++) {
        const bool wanted[5] = {s->clean, s->chinese, s->strip_accents, s->strip_accents, s->lower};
        struct buf *to = &mine[at];

        if (!wanted[stage])
            continue;
        buf_clear(to);
        rc = stage == 0   ? filter(t, clean, to, at_start)
             : stage == 1 ? space_chinese(t, to)
             : stage == 2 ? unicode_normalize(UNICODE_NFD, t.text, t.size_bytes, to)
             : stage == 3 ? filter(t, without_nonspacing, to, at_start)
                          : apply_lowercase(s, t, to, at_start);
        t = text_of(to);
        at = !at;
    }
    if (rc == 0)
        rc = buf_append(ret, t.text, t.size_bytes);
    buf_release(&mine[0]);
    buf_release(&mine[1]);
    return rc;
}

/* -- Strip, Prepend, Precompiled */

static int parse_strip(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"strip_left", "strip_right", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    int rc = tokenizer_part_check_keys(part, known);

    if (!json_read_any(&r, "strip_left") || !json_read_any(&r, "strip_right"))
        json_reader_fail(&r, "strip_left", "or strip_right of Strip is missing");
    s->left = json_read_bool(&r, "strip_left", true);
    s->right = json_read_bool(&r, "strip_right", true);
    return rc < 0 ? rc : r.rc;
}

static int apply_strip(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    size_t begin = s->left ? utf8_spaces_after(t.text, 0, t.size_bytes) : 0;
    size_t end = s->right ? utf8_spaces_before(t.text, begin, t.size_bytes) : t.size_bytes;

    if (begin > 0)
        *at_start = false;
    return buf_append(ret, t.text + begin, end - begin);
}

static int copy_text(struct json_reader *r, const char *key, char **ret, size_t *ret_n)
{
    const char *text = json_read_text(r, key, NULL);

    if (!text) {
        json_reader_fail(r, key, "is missing");
        return r->rc;
    }
    *ret = strdup(text);
    *ret_n = strlen(text);
    return *ret ? 0 : -ENOMEM;
}

static int parse_prepend(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"prepend", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    int rc = tokenizer_part_check_keys(part, known);

    return rc < 0 ? rc : copy_text(&r, "prepend", &s->to, &s->to_size);
}

static int apply_prepend(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    int rc = t.size_bytes ? buf_append(ret, s->to, s->to_size) : 0;

    (void)at_start;
    return rc < 0 ? rc : buf_append(ret, t.text, t.size_bytes);
}

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

/* -- Replace */

static int parse_replace(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"pattern", "content", NULL};
    struct json_reader r = tokenizer_part_reader(part, "normalizer.");
    const json_t *pattern = json_read_any(&r, "pattern");
    const char *text = json_string_value(json_object_get(pattern, "String")),
               *regex = json_string_value(json_object_get(pattern, "Regex"));
    char where[512];
    int rc = tokenizer_part_check_keys(part, known);

    if (rc == 0)
        rc = copy_text(&r, "content", &s->to, &s->to_size);
    if (rc < 0)
        return rc;
    if (json_object_size(pattern) != 1 || (!regex && (!text || !text[0]))) {
        json_reader_fail(&r, "pattern", "is neither a {\"String\": text} nor a {\"Regex\": expression}");
        return r.rc;
    }
    if (regex) {
        (void)snprintf(where, sizeof(where), "%s: normalizer.pattern", part->file);
        return pattern_from_file(regex, where, &s->pattern, part->err);
    }
    s->from = strdup(text);
    s->from_size = strlen(text);
    return s->from ? 0 : -ENOMEM;
}

/* The next match from `at` on: 1, 0 if there is none. */
static int next_match(const struct step *s, struct pattern_search *search, struct token_text t, size_t at,
                      size_t *begin, size_t *end)
{
    const char *found;

    if (s->pattern)
        return pattern_search_next(search, t.text, t.size_bytes, at, false, begin, end);
    found = memmem(t.text + at, t.size_bytes - at, s->from, s->from_size);
    if (!found)
        return 0;
    *begin = (size_t)(found - t.text);
    *end = *begin + s->from_size;
    return 1;
}

static int apply_replace(const struct step *s, struct token_text t, struct buf *ret, bool *at_start)
{
    struct pattern_search search = {0};
    size_t at = 0, begin = 0, end = 0;
    uint32_t cp;
    int rc = s->pattern ? pattern_search_init(&search, s->pattern) : 0;

    while (rc == 0 && at < t.size_bytes && (rc = next_match(s, &search, t, at, &begin, &end)) > 0) {
        /* What replaces several characters counts as being where the last of them was. */
        if (begin == 0 && (s->to_size == 0 || end > utf8_step(t.text, end, &cp)))
            *at_start = false;
        rc = buf_append(ret, t.text + at, begin - at);
        if (rc == 0)
            rc = buf_append(ret, s->to, s->to_size);
        at = end;
    }
    if (rc == 0)
        rc = buf_append(ret, t.text + at, t.size_bytes - at);
    pattern_search_release(&search);
    return rc;
}

/* -- all of them */

static const struct kind kinds[] = {
    {"Precompiled", parse_precompiled, apply_precompiled},
    {"NFC", parse_plain, apply_form},
    {"NFD", parse_plain, apply_form},
    {"NFKC", parse_plain, apply_form},
    {"NFKD", parse_plain, apply_form},
    {"Nmt", parse_plain, apply_nmt},
    {"Lowercase", parse_plain, apply_lowercase},
    {"StripAccents", parse_plain, apply_strip_accents},
    {"Strip", parse_strip, apply_strip},
    {"Prepend", parse_prepend, apply_prepend},
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
        pattern_free(n->steps[i].pattern);
        free(n->steps[i].from);
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
