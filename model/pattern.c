#include "model/pattern.h"

#include <errno.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* White space is listed because PCRE2's \s includes U+180E; Unicode and the tokenizers library do not. */
#define SPACES "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* Possessive quantifiers do not change the result here; they avoid backtracking. */
static const char gpt2_words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}++| ?\\p{N}++| ?[^" SPACES "\\p{L}\\p{N}]++|[" SPACES
                                 "]+(?![^" SPACES "])|[" SPACES "]++";

struct pattern {
    pcre2_code *code;
};

int pattern_gpt2_words(const char *where, struct pattern **ret, struct err *err)
{
    struct pattern *p = calloc(1, sizeof(*p));
    PCRE2_SIZE at;
    int why;

    if (!p)
        return -ENOMEM;
    p->code = pcre2_compile((PCRE2_SPTR)gpt2_words, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &why, &at, NULL);
    if (!p->code) {
        free(p);
        return err_set(err, why == PCRE2_ERROR_HEAP_FAILED ? -ENOMEM : -EINVAL,
                       "%s: PCRE2 cannot compile \"%.100s\": error %d at %zu", where, gpt2_words, why, (size_t)at);
    }
    (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* if it fails, matching is only slower */
    *ret = p;
    return 0;
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

int pattern_search_end(struct pattern_search *s, const char *text, size_t n, size_t at, size_t *ret_end)
{
    /* The caller has checked the UTF-8; checking it again for every match would be quadratic. */
    int found =
        pcre2_match(s->pattern->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, s->match, NULL);

    if (found < 0)
        return found == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EINVAL;
    *ret_end = pcre2_get_ovector_pointer(s->match)[1];
    return 0;
}
