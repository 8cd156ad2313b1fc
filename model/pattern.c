#include "model/pattern.h"

#include "base/buf.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* White space is spelled out: PCRE2's \s counts U+180E, Unicode and the published tokenizers do not. */
#define SPACES "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* Possessive quantifiers change nothing here but keep the matcher from remembering places to go back to. */
static const char gpt2_words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}++| ?\\p{N}++| ?[^" SPACES "\\p{L}\\p{N}]++|[" SPACES
                                 "]+(?![^" SPACES "])|[" SPACES "]++";

struct pattern {
    pcre2_code *code;
};

static int compile(const char *regex, const char *where, struct pattern **ret, struct err *err)
{
    struct pattern *p = calloc(1, sizeof(*p));
    PCRE2_SIZE at;
    int why;

    if (!p)
        return -ENOMEM;
    p->code = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &why, &at, NULL);
    if (!p->code) {
        free(p);
        return err_set(err, why == PCRE2_ERROR_HEAP_FAILED ? -ENOMEM : -EINVAL,
                       "%s: PCRE2 cannot compile \"%.100s\": error %d at %zu", where, regex, why, (size_t)at);
    }
    (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
    *ret = p;
    return 0;
}

/* Copy what both languages read alike, with \s and \S spelled out. NULL: all of it was; else the place that was not. */
static const char *translate(const char *s, struct buf *ret, int *rc)
{
    bool in_class = false, repeated = true; /* nothing to repeat yet */

    for (; *s && *rc == 0; s++) {
        bool repeats = !in_class && strchr("*+?{", *s);
        size_t n = 1;

        if (strchr("^$.", *s) || (repeats && repeated) || (in_class && strchr("[&", *s)) ||
            (*s == '[' && (s[1] == '^' || s[1] == ']')))
            return s;
        if (*s == '(' && (s[1] == '?' || s[1] == '*') && !in_class)
            return s;
        if (*s == '{' && !in_class) { /* {2} {2,} {2,5} */
            n = 1 + strspn(s + 1, "0123456789,");
            if (!isdigit((unsigned char)s[1]) || s[n] != '}')
                return s;
            n++;
        } else if (*s == '\\') {
            if (!in_class && (s[1] == 's' || s[1] == 'S')) {
                *rc = s[1] == 's' ? buf_append(ret, "[" SPACES "]", sizeof("[" SPACES "]") - 1)
                                  : buf_append(ret, "[^" SPACES "]", sizeof("[^" SPACES "]") - 1);
                repeated = false;
                s++;
                continue;
            }
            if (!ispunct((unsigned char)s[1]))
                return s;
            n = 2;
        } else if (*s == '[' || *s == ']') {
            in_class = *s == '[';
        }
        repeated = repeats || *s == '(' || *s == '|'; /* "a**" and "a{2}+" are read differently */
        *rc = buf_append(ret, s, n);
        s += n - 1;
    }
    return NULL;
}

int pattern_from_file(const char *regex, const char *where, struct pattern **ret, struct err *err)
{
    struct pattern *p = NULL;
    struct buf text;
    const char *strange;
    uint32_t empty = 0;
    int rc = 0;

    buf_init(&text, 1 << 16);
    strange = translate(regex, &text, &rc);
    if (strange)
        rc = err_set(err, -EINVAL, "%s: \"%.20s\" in the regular expression \"%.100s\" is not supported", where,
                     strange, regex);
    if (rc == 0)
        rc = buf_append(&text, "", 1);
    if (rc == 0)
        rc = compile((const char *)text.data, where, &p, err);
    buf_release(&text);
    if (rc < 0)
        return rc == -EFBIG ? err_set(err, -EINVAL, "%s: a regular expression that long is not supported", where) : rc;
    assert(p); /* else compile() has failed */
    if (pcre2_pattern_info(p->code, PCRE2_INFO_MATCHEMPTY, &empty) != 0 || empty) {
        pattern_free(p);
        return err_set(err, -EINVAL, "%s: the regular expression \"%.100s\" may match nothing", where, regex);
    }
    *ret = p;
    return 0;
}

int pattern_gpt2_words(const char *where, struct pattern **ret, struct err *err)
{
    return compile(gpt2_words, where, ret, err);
}

void pattern_free(struct pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

int pattern_search_init(struct pattern_search *s, const struct pattern *p)
{
    *s = (struct pattern_search){.pattern = p, .match = pcre2_match_data_create(1, NULL)};
    return s->match ? 0 : -ENOMEM;
}

void pattern_search_release(struct pattern_search *s)
{
    pcre2_match_data_free(s->match);
    s->match = NULL;
}

int pattern_search_next(struct pattern_search *s, const char *text, size_t n, size_t at, bool anchored,
                        size_t *ret_begin, size_t *ret_end)
{
    /* The caller has checked the UTF-8; checking it again for every match would be quadratic. */
    uint32_t options = PCRE2_NO_UTF_CHECK | (anchored ? PCRE2_ANCHORED : 0);
    int found = pcre2_match(s->pattern->code, (PCRE2_SPTR)text, n, at, options, s->match, NULL);
    const PCRE2_SIZE *where;

    if (found == PCRE2_ERROR_NOMATCH)
        return 0;
    if (found < 0)
        return found == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EINVAL;
    where = pcre2_get_ovector_pointer(s->match);
    *ret_begin = where[0];
    *ret_end = where[1];
    return 1;
}
