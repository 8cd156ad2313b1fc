/* pattern.h - regular expressions over UTF-8; the owner of PCRE2 in model/.
 *
 * Who may call: model/ only. A pattern is immutable, threads may share it; a search belongs to one thread.
 * Units: bytes.
 * Memory: pattern_free, pattern_search_release.
 * Errors: -ENOMEM; -EINVAL: the expression cannot be compiled, or the search gave up. */
#ifndef BLIPLINE_MODEL_PATTERN_H
#define BLIPLINE_MODEL_PATTERN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct pattern;

/* A part of tokenizer.json with a regular expression of its own: only what means the same in PCRE2 as in Oniguruma,
 * whose language the file is in (characters, classes, groups, alternatives, repetition, \s, \S), and never matches
 * nothing. */
int pattern_from_file(const char *regex, const char *where, struct pattern **ret, struct err *err) CHECK_RESULT;
/* GPT-2's words: wherever one ends, the next begins. */
int pattern_gpt2_words(const char *where, struct pattern **ret, struct err *err) CHECK_RESULT;
void pattern_free(struct pattern *p);

struct pattern_search {
    const struct pattern *pattern;
    void *match;
};

int pattern_search_init(struct pattern_search *s, const struct pattern *p) CHECK_RESULT;
void pattern_search_release(struct pattern_search *s);
/* The first match from `at` on (`anchored`: exactly there) in valid UTF-8: 1, or 0 if there is none. */
int pattern_search_next(struct pattern_search *s, const char *text, size_t n, size_t at, bool anchored,
                        size_t *ret_begin, size_t *ret_end) CHECK_RESULT;

#endif
