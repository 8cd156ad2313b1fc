#include "model/pretokenizer.h"

#include "model/metaspace.h"
#include "model/pattern.h"
#include "model/tokenizer_part.h"
#include "model/unicode.h"
#include "model/utf8.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct step {
    const struct kind *kind;
    struct metaspace metaspace;
    bool add_prefix_space;   /* ByteLevel */
    struct pattern *pattern; /* ByteLevel */
};

/* apply() adds the words of each piece to `out`. */
struct kind {
    const char *type;
    int (*parse)(struct step *s, const struct tokenizer_part *part);
    int (*apply)(const struct step *s, const struct pieces *in, struct pieces *out);
};

struct pretokenizer {
    struct step steps[TOKENIZER_PART_MAX_STEPS];
    size_t n_steps;
};

/* -- white space and punctuation */

static int parse_plain(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {NULL};

    (void)s;
    return tokenizer_part_check_keys(part, known);
}

static bool is_bert_punctuation(uint32_t cp)
{
    if (cp < 0x80)
        return cp > ' ' && cp < 0x7f && !(cp >= '0' && cp <= '9') && !((cp | 32) >= 'a' && (cp | 32) <= 'z');
    return unicode_is_punctuation(cp);
}

/* Splits at white space; with `punctuation` each punctuation character is a separate word. */
static int cut_words(struct token_text t, bool punctuation, struct pieces *out)
{
    size_t begin = 0;
    int rc = 0;

    for (size_t i = 0, k; i < t.size_bytes && rc == 0; i += k) {
        bool space, alone;
        uint32_t cp;

        k = utf8_step(t.text + i, t.size_bytes - i, &cp);
        space = utf8_is_space(cp);
        alone = punctuation && is_bert_punctuation(cp);
        if (!space && !alone)
            continue;
        if (begin < i)
            rc = pieces_add(out, t.text + begin, i - begin);
        if (rc == 0 && alone)
            rc = pieces_add(out, t.text + i, k);
        begin = i + k;
    }
    if (rc == 0 && begin < t.size_bytes)
        rc = pieces_add(out, t.text + begin, t.size_bytes - begin);
    return rc;
}

static int apply_words(const struct step *s, const struct pieces *in, struct pieces *out)
{
    bool punctuation = strcmp(s->kind->type, "BertPreTokenizer") == 0;
    int rc = 0;

    for (size_t i = 0; i < in->n && rc == 0; i++)
        rc = cut_words(pieces_at(in, i), punctuation, out);
    return rc;
}

/* -- Metaspace */

static int parse_metaspace(struct step *s, const struct tokenizer_part *part)
{
    return metaspace_parse(part, &s->metaspace);
}

/* Appends the text with spaces replaced; with `prepend`, adds a leading space if there is none. */
static int append_replaced(const struct metaspace *m, struct token_text t, bool prepend, struct buf *ret)
{
    int rc = 0;

    if (prepend && t.text[0] != ' ' && !metaspace_begins(m, t))
        rc = buf_append(ret, m->replacement, m->replacement_size);
    for (size_t i = 0; i < t.size_bytes && rc == 0;) {
        const char *space = memchr(t.text + i, ' ', t.size_bytes - i);
        size_t end = space ? (size_t)(space - t.text) : t.size_bytes;

        rc = buf_append(ret, t.text + i, end - i);
        if (rc == 0 && space)
            rc = buf_append(ret, m->replacement, m->replacement_size);
        i = end + (space ? 1 : 0);
    }
    return rc;
}

static int apply_metaspace(const struct step *s, const struct pieces *in, struct pieces *out)
{
    const struct metaspace *m = &s->metaspace;
    int rc = 0;

    for (size_t i = 0; i < in->n && rc == 0; i++) {
        bool prepend = m->prepend == METASPACE_ALWAYS || (m->prepend == METASPACE_FIRST && i == 0 && in->at_start);
        size_t begin = out->text.size_bytes, end;

        rc = append_replaced(m, pieces_at(in, i), prepend, &out->text);
        end = out->text.size_bytes;
        while (rc == 0 && begin < end) { /* a word ends where the next replacement begins */
            const char *text = (const char *)out->text.data;
            const char *next = memmem(text + begin + 1, end - begin - 1, m->replacement, m->replacement_size);
            size_t stop = next ? (size_t)(next - text) : end;

            rc = pieces_mark(out, begin, stop - begin);
            begin = stop;
        }
    }
    return rc;
}

/* -- ByteLevel */

static int parse_byte_level(struct step *s, const struct tokenizer_part *part)
{
    static const char *const known[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};
    struct json_reader r = tokenizer_part_reader(part, "pre_tokenizer.");
    int rc = tokenizer_part_check_keys(part, known);

    if (!json_read_bool(&r, "use_regex", true))
        json_reader_fail(&r, "use_regex", "false is not supported");
    s->add_prefix_space = json_read_bool(&r, "add_prefix_space", true);
    if (rc == 0)
        rc = r.rc;
    return rc == 0 ? pattern_gpt2_words(part->file, &s->pattern, part->err) : rc;
}

/* Marks the words of out's text from `at` on. */
static int mark_words(struct pattern_search *search, struct pieces *out, size_t at)
{
    int rc = 0;

    while (rc == 0 && at < out->text.size_bytes) {
        const char *text = (const char *)out->text.data;
        size_t end = 0;

        rc = pattern_search_end(search, text, out->text.size_bytes, at, &end); /* every character belongs to a word */
        if (rc == 0)
            rc = pieces_mark(out, at, end - at);
        at = end;
    }
    return rc;
}

static int apply_byte_level(const struct step *s, const struct pieces *in, struct pieces *out)
{
    struct pattern_search search = {0};
    int rc = pattern_search_init(&search, s->pattern);

    for (size_t i = 0; i < in->n && rc == 0; i++) {
        struct token_text t = pieces_at(in, i);
        size_t begin = out->text.size_bytes;

        if (s->add_prefix_space && t.text[0] != ' ')
            rc = buf_append(&out->text, " ", 1);
        if (rc == 0)
            rc = buf_append(&out->text, t.text, t.size_bytes);
        if (rc == 0)
            rc = mark_words(&search, out, begin);
    }
    pattern_search_release(&search);
    return rc;
}

/* -- all of them */

static const struct kind kinds[] = {
    {"WhitespaceSplit", parse_plain, apply_words},
    {"BertPreTokenizer", parse_plain, apply_words},
    {"Metaspace", parse_metaspace, apply_metaspace},
    {"ByteLevel", parse_byte_level, apply_byte_level},
};

static int add_step(void *owner, const struct tokenizer_part *part)
{
    struct pretokenizer *p = owner;
    const char *type = tokenizer_part_type(part->json);

    if (pretokenizer_is_byte_level(p))
        return err_set(part->err, -EINVAL, "%s: pre_tokenizer: \"%.60s\" after ByteLevel is not supported", part->file,
                       type);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) {
            struct step *s = &p->steps[p->n_steps];
            int rc;

            assert(p->n_steps < TOKENIZER_PART_MAX_STEPS);
            s->kind = &kinds[i];
            p->n_steps++;
            rc = kinds[i].parse(s, part);
            if (rc == 0 && p->n_steps > 1 && kinds[i].apply == apply_metaspace &&
                s->metaspace.prepend == METASPACE_FIRST) /* a word has lost its position in the text */
                return err_set(part->err, -EINVAL,
                               "%s: pre_tokenizer: prepend_scheme \"first\" after another step is not supported",
                               part->file);
            return rc;
        }
    return err_set(part->err, -EINVAL, "%s: pre_tokenizer: \"%.60s\" is not supported", part->file, type);
}

int pretokenizer_parse(const char *file, const json_t *json, struct pretokenizer **ret, struct err *err)
{
    struct tokenizer_part part = {.file = file, .place = "pre_tokenizer", .json = json, .err = err};
    struct pretokenizer *p = calloc(1, sizeof(*p));
    int rc = p ? tokenizer_part_each(&part, "pretokenizers", add_step, p) : -ENOMEM;

    if (rc < 0)
        pretokenizer_free(p);
    else
        *ret = p;
    return rc;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_steps; i++)
        pattern_free(p->steps[i].pattern);
    free(p);
}

bool pretokenizer_is_byte_level(const struct pretokenizer *p)
{
    return p->n_steps && p->steps[p->n_steps - 1].kind->apply == apply_byte_level;
}

int pretokenizer_apply(const struct pretokenizer *p, struct pieces work[2], const struct pieces **ret)
{
    for (size_t i = 0; i < p->n_steps; i++) {
        const struct pieces *in = &work[i & 1];
        struct pieces *out = &work[!(i & 1)];
        int rc;

        pieces_clear(out);
        rc = p->steps[i].kind->apply(&p->steps[i], in, out);
        if (rc < 0)
            return rc;
    }
    *ret = &work[p->n_steps & 1];
    return 0;
}
