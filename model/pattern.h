/* pattern.h - the regular expression that cuts a text into GPT-2's words; the owner of PCRE2 in model/.
 *
 * Who may call: model/ only. A pattern is immutable and may be shared; a search belongs to one thread.
 * Units: bytes.
 * Memory: freed with pattern_free and pattern_search_release.
 * Errors: -ENOMEM; -EINVAL: the expression cannot be compiled, nothing matches, or the search hit PCRE2's limits. */
#ifndef BLIPLINE_MODEL_PATTERN_H
#define BLIPLINE_MODEL_PATTERN_H

#include "base/err.h"

#include <stddef.h>

struct pattern;

/* GPT-2's words, which cover a text without gaps. */
int pattern_gpt2_words(const char *where, struct pattern **ret, struct err *err) CHECK_RESULT;
void pattern_free(struct pattern *p);

struct pattern_search {
    const struct pattern *pattern;
    void *match;
};

int pattern_search_init(struct pattern_search *s, const struct pattern *p) CHECK_RESULT;
void pattern_search_release(struct pattern_search *s);
/* The end of the match that begins at `at`, in valid UTF-8. -EINVAL: no match. */
int pattern_search_end(struct pattern_search *s, const char *text, size_t n, size_t at, size_t *ret_end) CHECK_RESULT;

#endif
