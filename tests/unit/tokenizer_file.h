/* tokenizer_file.h - small tokenizer.json files for tests.
 *
 * Who may call: tests. Units: none. Memory: see each. Errors: fails the running test. JSON is written with ' instead
 * of "; write \u0027 for an apostrophe. */
#ifndef BLIPLINE_TESTS_TOKENIZER_FILE_H
#define BLIPLINE_TESTS_TOKENIZER_FILE_H

#include "model/tokenizer.h"

#include <stdbool.h>

#define TOKENIZER_FILE_METASPACE "{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}"
#define TOKENIZER_FILE_UNIGRAM                                                                                        \
    "{'type':'Unigram','unk_id':2,'vocab':[['<pad>',0],['</s>',0],['<unk>',0],['▁',-2],['a',-3],['b',-3.5],"        \
    "['c',-3],['▁a',-3.25],['ab',-5],['abc',-6.5],['▁b',-4],['é',-5],['e',-3],['\\u0301',-4],[' ',-6],['_',-6]," \
    "['中',-5],['!',-4],['A',-5],['1',-5],['fi',-4]]}"

/* NULL: null, or TOKENIZER_FILE_METASPACE for the decoder and TOKENIZER_FILE_UNIGRAM for the model. */
struct tokenizer_file {
    const char *model, *normalizer, *pre, *decoder, *post, *added;
};

/* JSON with proper quotes; the caller frees it. */
char *tokenizer_file_text(const struct tokenizer_file *f);
struct tokenizer *tokenizer_file_load(const struct tokenizer_file *f);

/* `what` is named in messages; ids as in "[1,2]". */
void tokenizer_file_assert_encodes(const struct tokenizer *t, const char *what, const char *text, bool special,
                                   const char *want);
void tokenizer_file_assert_decodes(const struct tokenizer *t, const char *what, const char *ids, bool skip,
                                   const char *want);

#endif
