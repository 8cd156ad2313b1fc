/* Files that are broken or ask for what is not there, and texts that are meant to take long. */
#include "model/tokenizer.h"

#include "tests/unit/tokenizer_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUSED "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',100],['pq',95],['a',110]]}"

/* -- charsmap */

/* A darts double array in one block: "a" and "\r" and "q" have values, so have "\xc3\xa9" and "e\xcc\x81". */
struct charsmap {
    uint32_t trie_bytes;
    uint32_t units[256];
    char values[10]; /* 0 "xyz", 4 "", 5 "abc", 6 "bc" */
};

enum { HAS_VALUE = 1 << 8, LETTERS = 28 };
#define IS_VALUE (1u << 31)

static struct charsmap make_charsmap(void)
{
    struct charsmap m = {.trie_bytes = 1024, .values = "xyz\0\0abc"};
    uint32_t *u = m.units;

    u['a'] = 'a' | HAS_VALUE | ('a' ^ 1) << 10;
    u[1] = IS_VALUE | 0;
    u['q'] = 'q' | HAS_VALUE | ('q' ^ 2) << 10;
    u[2] = IS_VALUE | 4;
    u['\r'] = '\r' | HAS_VALUE | ('\r' ^ 3) << 10;
    u[3] = IS_VALUE | 6;
    u[0xc3] = 0xc3 | (0xc3 ^ 0x40) << 10;
    u[0x40 ^ 0xa9] = 0xa9 | HAS_VALUE | (0x40 ^ 0xa9 ^ 4) << 10;
    u[4] = IS_VALUE | 5;
    u['e'] = 'e' | ('e' ^ 0x20) << 10;
    u[0x20 ^ 0xcc] = 0xcc | (0x20 ^ 0xcc ^ 0x90) << 10;
    u[0x90 ^ 0x81] = 0x81 | HAS_VALUE | (0x90 ^ 0x81 ^ 5) << 10;
    u[5] = IS_VALUE | 6;
    return m;
}

/* A file whose charsmap are these bytes; letters are tokens 1 to 26, U+0301 is 27. The caller frees it. */
static char *charsmap_file(const void *bytes, size_t n)
{
    char *base64 = malloc(sodium_base64_ENCODED_LEN(n, sodium_base64_VARIANT_ORIGINAL)), *part = NULL, *text;
    char model[1024] = "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',-1]";

    assert_non_null(base64);
    (void)sodium_bin2base64(base64, sodium_base64_ENCODED_LEN(n, sodium_base64_VARIANT_ORIGINAL), bytes, n,
                            sodium_base64_VARIANT_ORIGINAL);
    assert_true(asprintf(&part, "{'type':'Precompiled','precompiled_charsmap':'%s'}", base64) > 0);
    for (char c = 'a'; c <= 'z'; c++)
        (void)sprintf(model + strlen(model), ",['%c',-1]", c);
    strcat(model, ",['\\u0301',-1]]}");
    text = tokenizer_file_text(&(struct tokenizer_file){.model = model, .normalizer = part});
    free(base64);
    free(part);
    return text;
}

static const struct {
    const char *text, *normal;
} charsmap[] = {
    {"bab", "bxyzb"},
    {"q", ""},
    {"aq", "xyz"},
    {"\xc3\xa9", "abc"},
    {"e\xcc\x81", "bc"},
    {"ef", "ef"},
    {"a\xcc\x81", "xyz"},
    {"a\xcc\x81\xcc\x81", "xyz"},                        /* 5 bytes: all of it */
    {"\xc3\xa9\xcc\x81\xcc\x81", "abc\xcc\x81\xcc\x81"}, /* 6 bytes: each character */
    {"a\xcc\x81\xcc\x81\xcc\x81", "xyz\xcc\x81\xcc\x81\xcc\x81"},
    {"\r\n", "bc"},
    {"\r", "bc"},
    {"\rb", "bcb"},
    {"b\xcc\x81"
     "a",
     "b\xcc\x81xyz"},
    {"q\xc3\xa9", "abc"},
    {"", ""},
};

static void test_tokenizer_hostile_charsmap(void **state)
{
    struct charsmap m = make_charsmap();
    char *text = charsmap_file(&m, offsetof(struct charsmap, values) + sizeof(m.values));
    struct tokenizer *t = NULL;

    (void)state;
    assert_int_equal(tokenizer_parse(text, strlen(text), "tokenizer.json", &t, NULL), 0);
    for (size_t i = 0; i < sizeof(charsmap) / sizeof(charsmap[0]); i++) {
        char want[256] = "[";
        size_t n = 1;

        for (const char *p = charsmap[i].normal; *p; p++) {
            n += (size_t)sprintf(want + n, "%s%d", n > 1 ? "," : "", *p == '\xcc' ? 27 : *p - 'a' + 1);
            p += *p == '\xcc';
        }
        strcpy(want + n, "]");
        tokenizer_file_assert_encodes(t, "charsmap", charsmap[i].text, false, want);
    }
    tokenizer_free(t);
    free(text);
}

static void assert_charsmap_refused(const struct charsmap *m, size_t n, const char *why)
{
    char *text = charsmap_file(m, n);
    struct tokenizer *t = NULL;
    struct err err = {""};

    if (tokenizer_parse(text, strlen(text), "tokenizer.json", &t, &err) == 0)
        fail_msg("a charsmap is accepted: %s", why);
    if (!strstr(err.text, "tokenizer.json: normalizer.precompiled_charsmap") || !strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    free(text);
}

static void test_tokenizer_hostile_charsmap_that_leads_outside_is_refused(void **state)
{
    const size_t whole = offsetof(struct charsmap, values) + sizeof(((struct charsmap *)0)->values);
    struct charsmap m = make_charsmap();

    (void)state;
    assert_charsmap_refused(&m, 3, "too few");
    assert_charsmap_refused(&m, 1000, "a trie of 1024 bytes in 1000");
    m.trie_bytes = 1022;
    assert_charsmap_refused(&m, whole, "a trie of 1022");
    m.trie_bytes = 0;
    assert_charsmap_refused(&m, whole, "a trie of 0");
    m.trie_bytes = 1020; /* the last block is not whole */
    assert_charsmap_refused(&m, whole, "leads to unit 255 of 255");
    m.trie_bytes = UINT32_MAX - 3;
    assert_charsmap_refused(&m, whole, "a trie of 4294967292");
    m = make_charsmap();
    m.units['b'] = 'b' | 256u << 10;
    assert_charsmap_refused(&m, whole, "unit 98 of the trie leads to");
    m.units['b'] = 'b' | 1u << 9 | 1u << 10; /* the other form of offsets: times 256 */
    assert_charsmap_refused(&m, whole, "unit 98 of the trie leads to");
    m = make_charsmap();
    m.units[0] = IS_VALUE;
    assert_charsmap_refused(&m, whole, "no root");
    m = make_charsmap();
    m.units[1] = IS_VALUE | 11;
    assert_charsmap_refused(&m, whole, "value at byte 11 of 10");
    m = make_charsmap();
    m.values[0] = '\xff';
    assert_charsmap_refused(&m, whole, "UTF-8");
    memcpy(m.values, "\xc3\xa9", 2);
    m.units[1] = IS_VALUE | 1; /* inside a character */
    assert_charsmap_refused(&m, whole, "value at byte 1");
}

/* Units may lead in circles: a search is no longer than the text. */
static void test_tokenizer_hostile_charsmap_with_circles_ends(void **state)
{
    struct charsmap m = make_charsmap();
    struct token_ids ids = {0};
    struct tokenizer *t = NULL;
    char *text;

    (void)state;
    m.units['e'] = 'e' | (uint32_t)'e' << 10; /* base 0: "e" again and again */
    text = charsmap_file(&m, sizeof(m));
    assert_int_equal(tokenizer_parse(text, strlen(text), "tokenizer.json", &t, NULL), 0);
    assert_int_equal(tokenizer_encode(t, "eeee\xcc\x81", 6, false, &ids, NULL), 0);
    assert_int_equal(ids.n, 5);
    token_ids_release(&ids);
    tokenizer_free(t);
    free(text);
}

#define FOUR(text) text text text text
#define SIXTEEN(text) FOUR(FOUR(text))

/* A map may turn each letter into a novel: the text has a limit on its way. */
static void test_tokenizer_hostile_text_that_grows_too_much_is_refused(void **state)
{
    struct token_ids ids = {0};
    struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){
        .normalizer = "{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'" SIXTEEN(SIXTEEN("aa")) "'}"});
    char *text = malloc(1 << 18);
    struct err err = {""};

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < 1 << 18; i++)
        text[i] = i % 3 == 2 ? 'a' : ' ';
    assert_int_equal(tokenizer_encode(t, text, 1 << 18, false, &ids, &err), -EFBIG);
    assert_non_null(strstr(err.text, "grows over"));
    assert_int_equal(ids.n, 0);
    free(text);
    token_ids_release(&ids);
    tokenizer_free(t);
}

/* -- what is refused */

struct refused {
    struct tokenizer_file file;
    const char *name;
};

static const struct refused refused_parts[] = {
    {{.normalizer = "{'type':'ByteLevel'}"}, "\"ByteLevel\""},
    {{.normalizer = "{'type':'Sequence','normalizers':[{'type':'BertNormalizer'},{'type':'NFC'}]}"}, "\"NFC\""},
    {{.normalizer = "{'type':'NFKC'}"}, "\"NFKC\""},
    {{.normalizer = "{'type':'Lowercase'}"}, "\"Lowercase\""},
    {{.normalizer = "{'type':'Nmt'}"}, "\"Nmt\""},
    {{.normalizer = "{'type':'StripAccents'}"}, "\"StripAccents\""},
    {{.normalizer = "{'type':'Sequence','normalizers':{}}"}, "normalizers"},
    {{.normalizer = "{'type':'Sequence'}"}, "normalizers"},
    {{.normalizer = "{}"}, "(no type)"},
    {{.normalizer = "7"}, "(no type)"},
    {{.normalizer = "{'type':'BertNormalizer','strength':3}"}, "\"strength\""},
    {{.normalizer = "{'type':'Precompiled'}"}, "precompiled_charsmap"},
    {{.normalizer = "{'type':'Precompiled','precompiled_charsmap':'AA*A'}"}, "base64"},
    {{.normalizer = "{'type':'Precompiled','precompiled_charsmap':'AAA'}"}, "base64"},
    {{.normalizer = "{'type':'Precompiled','precompiled_charsmap':''}"}, "too few"},
    {{.normalizer = "{'type':'Strip'}"}, "strip_left"},
    {{.normalizer = "{'type':'Strip','strip_left':1,'strip_right':true}"}, "strip_left"},
    {{.normalizer = "{'type':'Strip','strip_left':true,'strip_right':true}"}, "strip_left"},
    {{.normalizer = "{'type':'Strip','strip_left':false,'strip_right':false}"}, "strip_right"},
    {{.normalizer = "{'type':'Prepend','prepend':'x'}"}, "\"Prepend\""},
    {{.normalizer = "{'type':'Replace','pattern':{'Regex':' {2,}'}}"}, "content"},
    {{.normalizer = "{'type':'Replace','pattern':{'String':' '},'content':'a'}"}, "pattern"},
    {{.normalizer = "{'type':'Replace','content':'a'}"}, "pattern"},
    {{.normalizer = "{'type':'Replace','pattern':{'Regex':'a'},'content':'a'}"}, "pattern"},
    {{.normalizer = "{'type':'BertNormalizer','lowercase':'yes'}"}, "lowercase"},
    {{.pre = "{'type':'Whitespace'}"}, "\"Whitespace\""},
    {{.pre = "{'type':'Digits','individual_digits':true}"}, "\"Digits\""},
    {{.pre = "{'type':'ByteLevel'}"}, "with model.type \"Unigram\""},
    {{.pre = "{'type':'Sequence','pretokenizers':[{'type':'ByteLevel'},{'type':'WhitespaceSplit'}]}"},
     "after ByteLevel"},
    {{.pre = "{'type':'Metaspace','replacement':'ab'}"}, "replacement"},
    {{.pre = "{'type':'Metaspace','replacement':''}"}, "replacement"},
    {{.pre = "{'type':'Metaspace','replacement':'_','split':false}"}, "split"},
    {{.pre = "{'type':'Metaspace','replacement':'_','prepend_scheme':'last'}"}, "\"last\""},
    {{.pre = "{'type':'Metaspace','replacement':'_','prepend_scheme':'always','add_prefix_space':false}"},
     "add_prefix_space"},
    {{.pre = "{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},"
             "{'type':'Metaspace','replacement':'_','prepend_scheme':'first'}]}"},
     "\"first\""},
    {{.decoder = "null"}, "decoder"},
    {{.decoder = "{'type':'ByteFallback'}"}, "\"ByteFallback\""},
    {{.decoder = "{'type':'ByteLevel'}"}, "decoder"},
    {{.decoder = "{'type':'CTC'}"}, "\"CTC\""},
    {{.decoder = "{'type':'Fuse'}"}, "\"Fuse\""},
    {{.decoder = "{'type':'Sequence','decoders':[]}"}, "\"Sequence\""},
    {{.decoder = "{'type':'WordPiece','prefix':7}"}, "prefix"},
    {{.post = "{'type':'BertProcessing','sep':['</s>',1],'cls':['<pad>',0]}"}, "\"BertProcessing\""},
    {{.post = "{'type':'RobertaProcessing','sep':['</s>',1],'cls':['<pad>',0]}"}, "\"RobertaProcessing\""},
    {{.post = "{'type':'Sequence','processors':[]}"}, "\"Sequence\""},
    {{.added = "[{'id':21,'content':'<q>','single_word':true}]"}, "single_word"},
    {{.added = "[{'id':20,'content':' x'},{'id':21,'content':'<q>'},{'id':22,'content':'<q>'}]"}, "\"fi\""},
    {{.added = "[{'id':21,'content':'A'}]"}, "id 21, but 18"},
    {{.added = "[{'id':21,'content':'<q>'},{'id':23,'content':'<r>'}]"}, "gives it 22"},
    {{.added = "[{'id':1,'content':'</s>'},{'id':1,'content':'</s>'}]"}, "same id"},
    {{.added = "[{'id':21,'content':'Q'},{'id':22,'content':'q'}]", .normalizer = "{'type':'BertNormalizer'}"},
     "twice"},
    {{.added = "[{'id':3,'content':'\\u0301'}]", .model = FUSED, .normalizer = "{'type':'BertNormalizer'}"}, "0 bytes"},
};

static const struct refused refused_models[] = {
    {{.model = "{'type':'WordLevel'}"}, "\"WordLevel\""},
    {{.model = "{'type':'Unigram'}"}, "model.vocab"},
    {{.model = "{'type':'Unigram','vocab':[]}"}, "empty"},
    {{.model = "{'type':'Unigram','vocab':{}}"}, "an object"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]]}"}, "unk_id"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]],'unk_id':null}"}, "unk_id"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]],'unk_id':1}"}, "unk_id"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]],'unk_id':-1}"}, "unk_id"},
    {{.model = "{'type':'Unigram','vocab':[['a','0']],'unk_id':0}"}, "entry 0"},
    {{.model = "{'type':'Unigram','vocab':[['a']],'unk_id':0}"}, "entry 0"},
    {{.model = "{'type':'Unigram','vocab':['a'],'unk_id':0}"}, "entry 0"},
    {{.model = "{'type':'Unigram','vocab':[[0,'a']],'unk_id':0}"}, "entry 0"},
    {{.model = "{'type':'Unigram','vocab':[['a',0],['b',1],['a',0]],'unk_id':0}"}, "entry 2"},
    {{.model = "{'type':'Unigram','vocab':[['a',1e999]],'unk_id':0}"}, "JSON"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]],'unk_id':0,'byte_fallback':true}"}, "byte_fallback"},
    {{.model = "{'type':'Unigram','vocab':[['a',0]],'unk_id':0,'alpha':0.1}"}, "alpha"},
    {{.model = "{'type':'WordPiece','vocab':['a']}"}, "model.vocab"},
    {{.model = "{'type':'WordPiece','vocab':{'a':0},'continuing_subword_prefix':'#','max_input_chars_per_word':9}"},
     "unk_token"},
    {{.model = "{'type':'WordPiece','vocab':{'a':0},'unk_token':'b','continuing_subword_prefix':'#',"
               "'max_input_chars_per_word':9}"},
     "\"b\""},
    {{.model = "{'type':'WordPiece','vocab':{'a':0},'unk_token':'a','max_input_chars_per_word':9}"},
     "continuing_subword_prefix"},
    {{.model = "{'type':'WordPiece','vocab':{'a':0},'unk_token':'a','continuing_subword_prefix':'#'}"},
     "max_input_chars_per_word"},
};

static void assert_refused(const struct refused *r)
{
    struct tokenizer *t = NULL;
    struct err err = {""};
    char *text = tokenizer_file_text(&r->file);

    if (tokenizer_parse(text, strlen(text), "tokenizer.json", &t, &err) == 0)
        fail_msg("accepted: %s", text);
    assert_null(t);
    if (!strstr(err.text, r->name) || !strstr(err.text, "tokenizer.json"))
        fail_msg("\"%s\" does not name %s", err.text, r->name);
    free(text);
}

static void test_tokenizer_hostile_refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused_parts) / sizeof(refused_parts[0]); i++)
        assert_refused(&refused_parts[i]);
    for (size_t i = 0; i < sizeof(refused_models) / sizeof(refused_models[0]); i++)
        assert_refused(&refused_models[i]);
}

static void test_tokenizer_hostile_limits(void **state)
{
    char token[1100], *added = NULL, *steps = malloc(1 << 14);

    (void)state;
    memset(token, 'x', sizeof(token));
    token[1025] = '\0';
    assert_true(asprintf(&added, "[{'id':21,'content':'%s'}]", token) > 0);
    assert_refused(&(struct refused){{.added = added}, "1024"});
    free(added);
    assert_true(asprintf(&added, "{'type':'Unigram','unk_id':0,'vocab':[['%s',0]]}", token) > 0);
    assert_refused(&(struct refused){{.model = added}, "1024"});
    free(added);
    assert_non_null(steps);
    strcpy(steps, "{'type':'Sequence','normalizers':[{'type':'BertNormalizer'}");
    for (int i = 0; i < 64; i++)
        strcat(steps, ",{'type':'BertNormalizer'}");
    strcat(steps, "]}");
    assert_refused(&(struct refused){{.normalizer = steps}, "more than 64"});
    free(steps);
}

/* -- time */

static void test_tokenizer_hostile_long_texts_take_no_quadratic_time(void **state)
{
    static const char *const files[] = {"tests/golden/t5_a/tokenizer.json", "tests/golden/itm_c/tokenizer.json"};
    static const char *const units[] = {"a",
                                        " ",
                                        "!",
                                        "<",
                                        "\xcc\x81",
                                        "\xcc\x81\xcc\xa3",
                                        "\xe2\x96\x81",
                                        "\xe4\xb8\xad",
                                        "\r\n",
                                        "\xf0\x9f\x91\xa9\xe2\x80\x8d",
                                        "\xf0\x9f\x87\xa9",
                                        "a b "};
    enum { N = 1 << 20 };
    char *text = malloc(N);
    const clock_t start = clock(); /* of this process alone */

    (void)state;
    assert_non_null(text);
    for (size_t f = 0; f < 2; f++) {
        struct tokenizer *t = NULL;

        assert_int_equal(tokenizer_load(files[f], &t, NULL), 0);
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            size_t k = strlen(units[u]), n = N / k * k;
            struct token_ids ids = {0};

            for (size_t i = 0; i < n; i += k)
                memcpy(text + i, units[u], k);
            assert_int_equal(tokenizer_encode(t, text, n, true, &ids, NULL), 0);
            token_ids_release(&ids);
        }
        tokenizer_free(t);
    }
    assert_true((clock() - start) / CLOCKS_PER_SEC < 60); /* a quadratic one takes hours */
    free(text);
}

/* Each token takes the white space behind it, which is made of tokens too. */
static void test_tokenizer_hostile_white_space_of_tokens_is_looked_at_once(void **state)
{
    struct tokenizer *t = tokenizer_file_load(
        &(struct tokenizer_file){.added = "[{'id':21,'content':'\\t','rstrip':true,'normalized':false}]"});
    enum { N = 1 << 20 };
    struct token_ids ids = {0};
    const clock_t start = clock(); /* of this process alone */
    char *text = malloc(N);

    (void)state;
    assert_non_null(text);
    memset(text, '\t', N);
    assert_int_equal(tokenizer_encode(t, text, N, false, &ids, NULL), 0);
    assert_int_equal(ids.n, N);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 20);
    free(text);
    token_ids_release(&ids);
    tokenizer_free(t);
}

/* utf8proc alone would move half a million marks past each other. */
static void test_tokenizer_hostile_long_runs_of_marks_are_ordered_fast(void **state)
{
    struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.normalizer = "{'type':'BertNormalizer'}",
                                                                       .model = "{'unk_id':0,'vocab':[['<unk>',0],"
                                                                                "['\\u0301',-1],['\\u0323',-1]]}"});
    enum { N = 1 << 18 };
    struct token_ids ids = {0};
    const clock_t start = clock(); /* of this process alone */
    char *text = malloc(4 * N);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < N; i++)
        memcpy(text + 4 * i, "\xcc\x81\xcc\xa3", 4);
    assert_int_equal(tokenizer_encode(t, text, 4 * N, false, &ids, NULL), 0);
    assert_int_equal(ids.n, 0); /* accents are stripped */
    assert_true((clock() - start) / CLOCKS_PER_SEC < 20);
    free(text);
    token_ids_release(&ids);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_hostile_charsmap),
        cmocka_unit_test(test_tokenizer_hostile_charsmap_that_leads_outside_is_refused),
        cmocka_unit_test(test_tokenizer_hostile_charsmap_with_circles_ends),
        cmocka_unit_test(test_tokenizer_hostile_text_that_grows_too_much_is_refused),
        cmocka_unit_test(test_tokenizer_hostile_refuses_by_name),
        cmocka_unit_test(test_tokenizer_hostile_limits),
        cmocka_unit_test(test_tokenizer_hostile_long_texts_take_no_quadratic_time),
        cmocka_unit_test(test_tokenizer_hostile_white_space_of_tokens_is_looked_at_once),
        cmocka_unit_test(test_tokenizer_hostile_long_runs_of_marks_are_ordered_fast),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
