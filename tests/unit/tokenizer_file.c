#include "tests/unit/tokenizer_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *tokenizer_file_text(const struct tokenizer_file *f)
{
    char *text = NULL;

    assert_true(asprintf(&text,
                         "{'version':'1.0','truncation':null,'padding':null,'added_tokens':%s,'normalizer':%s,"
                         "'pre_tokenizer':%s,'post_processor':%s,'decoder':%s,'model':%s}",
                         f->added ? f->added : "[]", f->normalizer ? f->normalizer : "null", f->pre ? f->pre : "null",
                         f->post ? f->post : "null", f->decoder ? f->decoder : TOKENIZER_FILE_METASPACE,
                         f->model ? f->model : TOKENIZER_FILE_UNIGRAM) > 0);
    for (char *p = text; *p; p++)
        if (*p == '\'')
            *p = '"';
    return text;
}

struct tokenizer *tokenizer_file_load(const struct tokenizer_file *f)
{
    struct tokenizer *t = NULL;
    struct err err = {""};
    char *text = tokenizer_file_text(f);

    if (tokenizer_parse(text, strlen(text), "tokenizer.json", &t, &err) < 0)
        fail_msg("%s in %s", err.text, text);
    free(text);
    return t;
}

void tokenizer_file_assert_encodes(const struct tokenizer *t, const char *what, const char *text, bool special,
                                   const char *want)
{
    struct token_ids got = {0};
    struct err err = {""};
    char ids[512] = "[";
    size_t n = 1;

    if (tokenizer_encode(t, text, strlen(text), special, &got, &err) < 0)
        fail_msg("%s: \"%s\": %s", what, text, err.text);
    for (size_t i = 0; i < got.n && n < sizeof(ids) - 16; i++)
        n += (size_t)sprintf(ids + n, "%s%d", i ? "," : "", got.ids[i]);
    ids[n++] = ']';
    ids[n] = '\0';
    if (strcmp(ids, want) != 0)
        fail_msg("%s: \"%s\" gives %s, not %s", what, text, ids, want);
    token_ids_release(&got);
}

void tokenizer_file_assert_decodes(const struct tokenizer *t, const char *what, const char *ids, bool skip,
                                   const char *want)
{
    json_t *list = json_loads(ids, 0, NULL);
    struct buf text = {0};
    int32_t id[32];

    assert_true(json_is_array(list) && json_array_size(list) <= 32);
    for (size_t i = 0; i < json_array_size(list); i++)
        id[i] = (int32_t)json_integer_value(json_array_get(list, i));
    assert_int_equal(tokenizer_decode(t, id, json_array_size(list), skip, &text, NULL), 0);
    if (text.size_bytes != strlen(want) || memcmp(text.data, want, text.size_bytes) != 0)
        fail_msg("%s: %s gives \"%.*s\", not \"%s\"", what, ids, (int)text.size_bytes, (char *)text.data, want);
    buf_release(&text);
    json_decref(list);
}
