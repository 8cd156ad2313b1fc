#include "model/tokenizer.h"

#include "base/file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A whole file in small: bytes a b c space, "ab", "abc"; <s> special, <x> not, <nl> eats white space around it. */
#define VOCAB "{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"ab\":4,\"abc\":5,\"\\u0120a\":6,\"\\u00c3\":7,\"\\u00a9\":8}"
#define MERGES "[\"a b\",[\"ab\",\"c\"],\"\\u0120 a\"]"
#define MODEL "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":" MERGES "}"
#define PRE "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define POST                                                                                                           \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]," \
    "\"special_tokens\":{\"<s>\":{\"ids\":[9]}}}"
#define ADDED                                                                                                    \
    "[{\"id\":9,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"                                     \
    "{\"id\":10,\"content\":\"<x>\",\"normalized\":false},{\"id\":11,\"content\":\"<x>>\",\"normalized\":true}," \
    "{\"id\":12,\"content\":\"<nl>\",\"lstrip\":true,\"rstrip\":true},{\"id\":13,\"content\":\"ab<s\"}]"
#define FILE_OF(model, pre, norm, post, dec, added)                                                          \
    "{\"added_tokens\":" added ",\"normalizer\":" norm ",\"pre_tokenizer\":" pre ",\"post_processor\":" post \
    ",\"decoder\":" dec ",\"model\":" model "}"
#define DEC "{\"type\":\"ByteLevel\"}"

static struct tokenizer *parse(const char *json)
{
    struct tokenizer *t = NULL;
    struct err err = {""};

    if (tokenizer_parse(json, strlen(json), "tokenizer.json", &t, &err) < 0)
        fail_msg("%s", err.text);
    return t;
}

static void assert_ids(const struct tokenizer *t, const char *text, size_t n, bool special, const json_t *want)
{
    struct token_ids got = {0};
    struct err err = {""};

    if (tokenizer_encode(t, text, n, special, &got, &err) < 0)
        fail_msg("\"%s\": %s", text, err.text);
    if (got.n != json_array_size(want))
        fail_msg("\"%s\": %zu ids, wanted %zu", text, got.n, json_array_size(want));
    for (size_t i = 0; i < got.n; i++)
        if (got.ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("\"%s\": id %zu is %d", text, i, got.ids[i]);
    token_ids_release(&got);
}

static void assert_encodes(const struct tokenizer *t, const char *text, bool special, const char *want)
{
    json_t *ids = json_loads(want, 0, NULL);

    assert_non_null(ids);
    assert_ids(t, text, strlen(text), special, ids);
    json_decref(ids);
}

static void assert_decodes(const struct tokenizer *t, const json_t *ids, bool skip, const char *want, size_t n)
{
    int32_t list[4096];
    struct buf text = {0};

    assert_true(json_array_size(ids) <= 4096);
    for (size_t i = 0; i < json_array_size(ids); i++)
        list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    assert_int_equal(tokenizer_decode(t, list, json_array_size(ids), skip, &text, NULL), 0);
    assert_int_equal(text.size_bytes, n);
    if (n)
        assert_memory_equal(text.data, want, n);
    buf_release(&text);
}

/* Golden files hold texts with NUL bytes in them. */
static const char *text_of(const json_t *c, const char *key, size_t *ret_n)
{
    const json_t *v = json_object_get(c, key);

    assert_true(json_is_string(v));
    *ret_n = json_string_length(v);
    return json_string_value(v);
}

static size_t run_golden(const char *tokenizer, const char *cases, const char *key)
{
    json_t *root = json_load_file(cases, JSON_ALLOW_NUL, NULL), *c;
    const json_t *list = key ? json_object_get(root, key) : root;
    struct tokenizer *t;
    struct err err = {""};
    size_t i, n_text, n_decoded, n;

    assert_true(json_is_array(list));
    if (tokenizer_load(tokenizer, &t, &err) < 0)
        fail_msg("%s", err.text);
    json_array_foreach((json_t *)(uintptr_t)list, i, c)
    {
        const char *text = text_of(c, "text", &n_text), *decoded = text_of(c, "decoded", &n_decoded);
        const json_t *plain = json_object_get(c, "ids_no_special");

        assert_ids(t, text, n_text, true, json_object_get(c, "ids"));
        if (plain)
            assert_ids(t, text, n_text, false, plain);
        assert_decodes(t, json_object_get(c, "ids"), true, decoded, n_decoded);
    }
    n = json_array_size(list);
    tokenizer_free(t);
    json_decref(root);
    return n;
}

static void test_tokenizer_golden_gpt2(void **state)
{
    (void)state;
    assert_int_equal(run_golden("tests/golden/tokenizer/gpt2.json", "tests/golden/tokenizer/gpt2_cases.json", NULL),
                     27);
}

static void test_tokenizer_golden_checkpoints(void **state)
{
    static const char *const names[] = {"opt_a", "opt_c", "t5_a", "t5_c", "itm_c"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char tokenizer[64], expected[64];

        (void)snprintf(tokenizer, sizeof(tokenizer), "tests/golden/%s/tokenizer.json", names[i]);
        (void)snprintf(expected, sizeof(expected), "tests/golden/%s/expected.json", names[i]);
        assert_true(run_golden(tokenizer, expected, "tokenizer") >= 29);
    }
}

static void test_tokenizer_demo_knows_its_special_tokens(void **state)
{
    struct tokenizer *t = NULL;
    struct token_ids ids = {0};
    struct buf text = {0};

    (void)state;
    assert_int_equal(tokenizer_load("models/blip2-opt-demo/tokenizer.json", &t, NULL), 0);
    assert_int_equal(tokenizer_find(t, "<image>"), 1163);
    assert_int_equal(tokenizer_find(t, "</s>"), 2);
    assert_int_equal(tokenizer_find(t, "no such token"), -1);
    assert_int_equal(tokenizer_encode(t, "a red circle</s>", 16, true, &ids, NULL), 0);
    assert_int_equal(ids.ids[0], 2);
    assert_int_equal(ids.ids[ids.n - 1], 2);
    assert_int_equal(tokenizer_decode(t, ids.ids, ids.n, false, &text, NULL), 0);
    assert_int_equal(text.size_bytes, strlen("</s>a red circle</s>"));
    assert_memory_equal(text.data, "</s>a red circle</s>", text.size_bytes);
    buf_release(&text);
    token_ids_release(&ids);
    tokenizer_free(t);
}

static void test_tokenizer_added_tokens_are_cut_out_longest_first(void **state)
{
    struct tokenizer *t = parse(FILE_OF(MODEL, PRE, "null", POST, DEC, ADDED));

    (void)state;
    assert_encodes(t, "abc", true, "[9,5]");
    assert_encodes(t, "", true, "[9]");
    assert_encodes(t, "", false, "[]");
    assert_encodes(t, "abcab", false, "[5,4]");
    assert_encodes(t, "ab<s>c", false, "[4,9,2]"); /* not the normalized "ab<s", although it begins earlier */
    assert_encodes(t, "ab<sc", false, "[13,2]");
    assert_encodes(t, "a<x>>", false, "[0,10]"); /* '>' is not in the vocabulary and there is no unk token */
    assert_encodes(t, "a \n<nl>\t b", false, "[0,12,1]");
    assert_encodes(t, "a\xe2\x80\x83<nl>\xe3\x80\x80", false, "[0,12]");
    assert_encodes(t, "<s><s>", false, "[9,9]");
    tokenizer_free(t);
}

static void test_tokenizer_options_of_byte_level(void **state)
{
    struct tokenizer *t =
        parse(FILE_OF(MODEL, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "null", "null", DEC, "[]"));

    (void)state;
    assert_encodes(t, "a", true, "[6]");
    assert_encodes(t, " a", true, "[6]");
    tokenizer_free(t);
    t = parse(FILE_OF("{\"vocab\":{\"b\":0,\"\\u0120\":1,\"b\\u0120\":2},\"merges\":[\"b \\u0120\"]}", PRE, "null",
                      "null", DEC, "[]"));
    assert_encodes(t, "b b ", false, "[0,1,0,1]"); /* a word does not end in a space */
    tokenizer_free(t);
}

static void test_tokenizer_bytes_that_the_vocabulary_lacks_are_left_out(void **state)
{
    struct tokenizer *t = parse(FILE_OF("{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}", PRE, "null", "null", DEC, "[]"));

    (void)state;
    assert_encodes(t, "axyb", false, "[0,1]");
    tokenizer_free(t);
}

static void test_tokenizer_merges_follow_rank_then_position(void **state)
{
    /* "aaa": one merge of "aa", the left one; "abab": the better rank wins although it is further right */
    struct tokenizer *t = parse(FILE_OF("{\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"ba\":3,\"ab\":4},"
                                        "\"merges\":[\"a a\",\"b a\",\"a b\"]}",
                                        PRE, "null", "null", DEC, "[]"));

    (void)state;
    assert_encodes(t, "aaa", false, "[2,0]");
    assert_encodes(t, "abab", false, "[0,3,1]");
    assert_encodes(t, "aaaaab", false, "[2,2,4]");
    tokenizer_free(t);
}

/* The same merges done the slow, obvious way. */
static void test_tokenizer_heap_equals_repeated_search(void **state)
{
    struct tokenizer *t = NULL;
    unsigned seed = 77;
    char text[400];

    (void)state;
    print_message("seed %u\n", seed);
    t = parse(
        FILE_OF("{\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"ab\":3,\"aab\":4,\"ba\":5,\"abaa\":6,\"bb\":7,\"aaaa\":8},"
                "\"merges\":[\"b a\",\"a a\",\"a b\",\"aa b\",\"ab aa\",\"b b\",\"aa aa\"]}",
                PRE, "null", "null", DEC, "[]"));
    for (int round = 0; round < 300; round++) {
        static const int rules[7][3] = {{1, 0, 5}, {0, 0, 2}, {0, 1, 3}, {2, 1, 4}, {3, 2, 6}, {1, 1, 7}, {2, 2, 8}};
        int ids[400], n = 1 + rand_r(&seed) % 300, best;
        struct token_ids got = {0};

        for (int i = 0; i < n; i++) {
            ids[i] = rand_r(&seed) % 3 == 0;
            text[i] = (char)('a' + ids[i]);
        }
        assert_int_equal(tokenizer_encode(t, text, (size_t)n, false, &got, NULL), 0);
        do { /* the first place of the best rule */
            best = -1;
            for (int r = 0; r < 7 && best < 0; r++)
                for (int i = 0; i + 1 < n && best < 0; i++)
                    if (ids[i] == rules[r][0] && ids[i + 1] == rules[r][1]) {
                        best = i;
                        ids[i] = rules[r][2];
                        memmove(&ids[i + 1], &ids[i + 2], (size_t)(n - i - 2) * sizeof(ids[0]));
                        n--;
                    }
        } while (best >= 0);
        assert_int_equal(got.n, n);
        for (int i = 0; i < n; i++)
            assert_int_equal(got.ids[i], ids[i]);
        token_ids_release(&got);
    }
    tokenizer_free(t);
}

static void test_tokenizer_decode_replaces_broken_bytes(void **state)
{
    static const struct {
        const char *bytes;
        const char *text;
    } cases[] = {{"\x80", "\xef\xbf\xbd"},
                 {"a\xe6\x9d", "a\xef\xbf\xbd"},                           /* cut character: one mark */
                 {"\xf0\x9f\x98", "\xef\xbf\xbd"},                         /* as Python's errors="replace" */
                 {"\xf0\x9f\x41", "\xef\xbf\xbd\x41"},                     /**/
                 {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong: each byte */
                 {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate: each byte */
                 {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
                 {"\xc3\xc3\xa9\xff", "\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd"}};
    struct tokenizer *t = NULL;

    (void)state;
    assert_int_equal(tokenizer_load("tests/golden/tokenizer/gpt2.json", &t, NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text = {0};
        int32_t ids[8];
        size_t n = strlen(cases[i].bytes);

        for (size_t k = 0; k < n; k++) { /* GPT-2's ids of single bytes: 0.. for ! to ~, then a1-ac, ae-ff, the rest */
            unsigned b = (unsigned char)cases[i].bytes[k];

            ids[k] = (int32_t)(b >= 33 && b <= 126 ? b - 33
                               : b >= 174          ? b - 174 + 106
                               : b >= 161          ? b - 161 + 94
                               : b <= 32           ? b + 188
                                                   : b - 127 + 221);
        }
        assert_int_equal(tokenizer_decode(t, ids, n, true, &text, NULL), 0);
        if (text.size_bytes != strlen(cases[i].text) || memcmp(text.data, cases[i].text, text.size_bytes) != 0)
            fail_msg("case %zu gives \"%.*s\"", i, (int)text.size_bytes, (char *)text.data);
        buf_release(&text);
    }
    tokenizer_free(t);
}

static void test_tokenizer_decode_of_unknown_ids_and_added_tokens(void **state)
{
    struct tokenizer *t = parse(FILE_OF(MODEL, PRE, "null", POST, DEC, ADDED));
    json_t *ids = json_pack("[iiiiiii]", 9, 5, -3, 10, 99, 12, 6);

    (void)state;
    assert_decodes(t, ids, true, "abc<x><nl> a", 12);
    assert_decodes(t, ids, false, "<s>abc<x><nl> a", 15);
    assert_decodes(t, NULL, true, "", 0);
    json_decref(ids);
    tokenizer_free(t);
}

static void test_tokenizer_refuses_bad_text(void **state)
{
    struct tokenizer *t = parse(FILE_OF(MODEL, PRE, "null", POST, DEC, ADDED));
    struct token_ids ids = {0};
    struct err err = {""};
    char *big = malloc(TOKENIZER_MAX_TEXT_BYTES + 1);

    (void)state;
    assert_non_null(big);
    memset(big, 'a', TOKENIZER_MAX_TEXT_BYTES + 1);
    assert_int_equal(tokenizer_encode(t, "ab", 2, false, &ids, NULL), 0);
    assert_int_equal(tokenizer_encode(t, "ab\xff", 3, true, &ids, &err), -EINVAL);
    assert_non_null(strstr(err.text, "UTF-8"));
    assert_int_equal(tokenizer_encode(t, big, TOKENIZER_MAX_TEXT_BYTES + 1, true, &ids, &err), -EFBIG);
    assert_non_null(strstr(err.text, "1048576"));
    assert_int_equal(ids.n, 1); /* a call that fails leaves its output as it was */
    assert_int_equal(tokenizer_encode(t, big, TOKENIZER_MAX_TEXT_BYTES, false, &ids, NULL), 0);
    assert_int_equal(ids.n, 1 + TOKENIZER_MAX_TEXT_BYTES);
    token_ids_release(&ids);
    free(big);
    tokenizer_free(t);
}

static void test_tokenizer_long_words_take_no_quadratic_time(void **state)
{
    enum { N = 1 << 20 };
    struct tokenizer *t = NULL;
    struct token_ids ids = {0};
    char *text = malloc(N);
    const clock_t start = clock(); /* of this process alone */

    (void)state;
    assert_non_null(text);
    assert_int_equal(tokenizer_load("tests/golden/tokenizer/gpt2.json", &t, NULL), 0);
    memset(text, 'a', N);
    assert_int_equal(tokenizer_encode(t, text, N, false, &ids, NULL), 0);
    memset(text, ' ', N);
    assert_int_equal(tokenizer_encode(t, text, N, false, &ids, NULL), 0);
    for (int i = 0; i < N; i++)
        text[i] = i % 2 ? ' ' : '\'';
    assert_int_equal(tokenizer_encode(t, text, N, false, &ids, NULL), 0);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 20); /* a quadratic one takes hours */
    token_ids_release(&ids);
    free(text);
    tokenizer_free(t);
}

static void test_tokenizer_refuses_what_it_does_not_know_by_name(void **state)
{
#define BPE_WITH(extra) "{\"type\":\"BPE\"," extra ",\"vocab\":" VOCAB ",\"merges\":" MERGES "}"
#define WITH_MODEL(m) FILE_OF(m, PRE, "null", "null", DEC, "[]")
    static const struct {
        const char *json, *name;
    } cases[] = {
        {"", "not valid JSON"},
        {"[]", "model"},
        {"{}", "model"},
        {WITH_MODEL("{\"type\":\"Unigram\"}"), "Unigram"},
        {WITH_MODEL("{\"type\":\"WordPiece\"}"), "WordPiece"},
        {WITH_MODEL(BPE_WITH("\"dropout\":0.1")), "dropout"},
        {WITH_MODEL(BPE_WITH("\"byte_fallback\":true")), "byte_fallback"},
        {WITH_MODEL(BPE_WITH("\"end_of_word_suffix\":\"</w>\"")), "end_of_word_suffix"},
        {WITH_MODEL(BPE_WITH("\"continuing_subword_prefix\":\"##\"")), "continuing_subword_prefix"},
        {WITH_MODEL(BPE_WITH("\"unk_token\":\"zz\"")), "zz"},
        {WITH_MODEL(BPE_WITH("\"ignore_merges\":true")), "ignore_merges"},
        {WITH_MODEL(BPE_WITH("\"unk_token\":5")), "unk_token"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}"), "model.vocab"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"), "\"a\""},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}"), "\"a\""},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}"), "\"a\""},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"), "\"b\""},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}"), "duplicate"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a q\"]}"), "aq"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}"), "entry 0"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}"), "entry 0"},
        {WITH_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}"), "model.merges"},
        {FILE_OF(MODEL, "{\"type\":\"Whitespace\"}", "null", "null", DEC, "[]"), "Whitespace"},
        {FILE_OF(MODEL, "{\"type\":\"ByteLevel\",\"use_regex\":false}", "null", "null", DEC, "[]"), "use_regex"},
        {FILE_OF(MODEL, "null", "null", "null", DEC, "[]"), "pre_tokenizer"},
        {FILE_OF(MODEL, PRE, "{\"type\":\"NFX\"}", "null", DEC, "[]"), "NFX"},
        {FILE_OF(MODEL, PRE, "null", "null", "null", "[]"), "decoder"},
        {FILE_OF(MODEL, PRE, "null", "null", "{\"type\":\"Metaspace\",\"replacement\":\"_\"}", "[]"), "Metaspace"},
        {FILE_OF(MODEL, PRE, "null", "null", "{\"type\":\"Metaspace\"}", "[]"), "decoder.replacement"},
        {FILE_OF(MODEL, PRE, "null", "{\"type\":\"BartProcessing\"}", DEC, "[]"), "BartProcessing"},
        {FILE_OF(MODEL, PRE, "null", "{\"type\":\"BertProcessing\"}", DEC, "[]"), "BertProcessing"},
        {FILE_OF(MODEL, PRE, "null", "{\"type\":\"TemplateProcessing\",\"single\":[]}", DEC, "[]"), "single"},
        {FILE_OF(MODEL, PRE, "null",
                 "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<q>\"}}]}", DEC, "[]"),
         "<q>"},
        {FILE_OF(MODEL, PRE, "null", POST, DEC, "[]"), "<s>"}, /* id 9 does not exist */
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"id\":20,\"content\":\"\"}]"), "content"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"content\":\"<q>\"}]"), "<q>"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"id\":5,\"content\":\"<q>\"}]"), "abc"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"id\":5,\"content\":\"ab\"}]"), "\"ab\""},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"id\":9,\"content\":\"q\"},{\"id\":9,\"content\":\"r\"}]"),
         "gives it 10"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[{\"id\":9,\"content\":\"q\"},{\"id\":10,\"content\":\"q\"}]"),
         "twice"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "{}"), "added_tokens"},
        {FILE_OF(MODEL, PRE, "null", "null", DEC, "[7]"), "added_tokens"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tokenizer *t = NULL;
        struct err err = {""};

        if (tokenizer_parse(cases[i].json, strlen(cases[i].json), "tokenizer.json", &t, &err) == 0)
            fail_msg("case %zu is accepted: %s", i, cases[i].json);
        assert_null(t);
        if (!strstr(err.text, cases[i].name) || !strstr(err.text, "tokenizer.json"))
            fail_msg("case %zu: \"%s\" does not name %s", i, err.text, cases[i].name);
    }
}

static void test_tokenizer_refuses_deep_json(void **state)
{
    enum { N = 100000 };
    char *deep = malloc(N);
    struct tokenizer *t = NULL;
    struct err err = {""};

    (void)state;
    assert_non_null(deep);
    memset(deep, '[', N);
    assert_int_equal(tokenizer_parse(deep, N, "tokenizer.json", &t, &err), -EINVAL);
    assert_non_null(strstr(err.text, "deeper"));
    free(deep);
}

static void test_tokenizer_missing_file_is_named(void **state)
{
    struct tokenizer *t = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(tokenizer_load("/nonexistent/tokenizer.json", &t, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_golden_gpt2),
        cmocka_unit_test(test_tokenizer_golden_checkpoints),
        cmocka_unit_test(test_tokenizer_demo_knows_its_special_tokens),
        cmocka_unit_test(test_tokenizer_added_tokens_are_cut_out_longest_first),
        cmocka_unit_test(test_tokenizer_options_of_byte_level),
        cmocka_unit_test(test_tokenizer_bytes_that_the_vocabulary_lacks_are_left_out),
        cmocka_unit_test(test_tokenizer_merges_follow_rank_then_position),
        cmocka_unit_test(test_tokenizer_heap_equals_repeated_search),
        cmocka_unit_test(test_tokenizer_decode_replaces_broken_bytes),
        cmocka_unit_test(test_tokenizer_decode_of_unknown_ids_and_added_tokens),
        cmocka_unit_test(test_tokenizer_refuses_bad_text),
        cmocka_unit_test(test_tokenizer_long_words_take_no_quadratic_time),
        cmocka_unit_test(test_tokenizer_refuses_what_it_does_not_know_by_name),
        cmocka_unit_test(test_tokenizer_refuses_deep_json),
        cmocka_unit_test(test_tokenizer_missing_file_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
