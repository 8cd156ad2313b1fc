/* Small tokenizer.json files; what they make of a text is what the tokenizers library (0.23.3) makes of it. */
#include "model/tokenizer.h"

#include "tests/unit/tokenizer_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define LOWERCASE                                                                                                 \
    "{'type':'BertNormalizer','clean_text':false,'handle_chinese_chars':false,'strip_accents':false,'lowercase':" \
    "true}"
#define WORDPIECE "{'type':'WordPiece','prefix':'##','cleanup':true}"
#define TIES                                                                                                      \
    "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',100],['x',100],['xy',100],['a',100.5],['aa',201],['yz',100]," \
    "['z',50]]}"
#define FUSED "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',100],['pq',95],['a',110]]}"
#define PENALTY(score) "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',0],['b',-1],['a',20],['xa'," score "]]}"
#define PIECES                                                                                                       \
    "{'type':'WordPiece','unk_token':'[UNK]','continuing_subword_prefix':'##','max_input_chars_per_word':5,'vocab':" \
    "{'[PAD]':0,'[UNK]':1,'[CLS]':2,'[SEP]':3,'a':4,'b':5,'##b':6,'##c':7,'ab':8,'##bc':9,'!':10,'##!':11,'é':12,"  \
    "'e':13,'中':14,'do':15,'##n\\u0027t':16,'n\\u0027t':17,'\\u0027':18,'s':19,'?':20,'.':21,'##a':22,'do not':23}}"

struct encode_case {
    const char *part, *text, *ids;
};

static const struct encode_case normalizers[] = {
    {LOWERCASE, "AB1\xc3\x89", "[8,19,11]"},
    {LOWERCASE, "\xc4\xb0", "[2]"},
    {"{'type':'Strip','strip_left':false,'strip_right':true}", " ab ", "[14,8]"},
    {"{'type':'Strip','strip_left':false,'strip_right':true}", "ab \xe3\x80\x80\n", "[8]"},
    {"{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'▁'}", "a b  a    c ", "[4,14,5,7,3,6,14]"},
    {"{'type':'Replace','pattern':{'Regex':' {2,}'},'content':''}", "  a  b ", "[8,14]"},
    {"{'type':'Sequence','normalizers':[{'type':'Strip','strip_left':false,'strip_right':true},{'type':'Replace','"
     "pattern':{'Regex':' {2,}'},'content':'▁'}]}",
     "a   b  ", "[4,10]"},
    {"{'type':'Sequence','normalizers':[{'type':'Sequence','normalizers':[{'type':'Strip','strip_left':false,'strip_"
     "right':true}]}," LOWERCASE "]}",
     "A ", "[4]"},
    {"{'type':'Sequence','normalizers':[]}", "a", "[4]"},
    {"{'type':'BertNormalizer','clean_text':true,'handle_chinese_chars':true,'strip_accents':null,'lowercase':true}",
     "\x01"
     "a\xe4\xb8\xad\t\xc3\x89\xe2\x80\x8b\xc2\x85"
     "b",
     "[4,14,16,14,14,12,5]"},
    {"{'type':'BertNormalizer','clean_text':false,'handle_chinese_chars':false,'strip_accents':null,'lowercase':false}",
     "A\xe4\xb8\xad\t\xc3\x89", "[18,16,2]"},
    {"{'type':'BertNormalizer','clean_text':true,'handle_chinese_chars':false,'strip_accents':false,'lowercase':true}",
     "\xc3\x89\xe4\xb8\xad", "[11,16]"},
    {"{'type':'BertNormalizer','clean_text':false,'handle_chinese_chars':false,'strip_accents':true,'lowercase':false}",
     "\xc3\x89"
     "A",
     "[2,18]"},
};

static void test_tokenizer_parts_normalizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(normalizers) / sizeof(normalizers[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.normalizer = normalizers[i].part});

        tokenizer_file_assert_encodes(t, normalizers[i].part, normalizers[i].text, false, normalizers[i].ids);
        tokenizer_free(t);
    }
}

/* The one character whose lower case is two. */
static void test_tokenizer_parts_lower_case_of_dotted_i(void **state)
{
    struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){
        .model = "{'unk_id':0,'vocab':[['<unk>',0],['i',-1],['\\u0307',-1]]}", .normalizer = LOWERCASE});

    (void)state;
    tokenizer_file_assert_encodes(t, "lower case", "\xc4\xb0", false, "[1,2]");
    tokenizer_free(t);
}

static const struct encode_case pretokenizers[] = {
    {"{'type':'WhitespaceSplit'}",
     " ab\t\xc2\xa0"
     "a\xe3\x80\x80",
     "[8,4]"},
    {TOKENIZER_FILE_METASPACE, "a b", "[7,10]"},
    {TOKENIZER_FILE_METASPACE, " a  b", "[7,3,10]"},
    {TOKENIZER_FILE_METASPACE,
     "\xe2\x96\x81"
     "a",
     "[7]"},
    {TOKENIZER_FILE_METASPACE, "a\tb", "[7,2,5]"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':true}", "ab a", "[8,7]"},
    {"{'type':'Metaspace','replacement':'▁','add_prefix_space':true}", "ab a", "[7,5,7]"},
    {"{'type':'Metaspace','replacement':'▁','str_rep':'▁','add_prefix_space':true}", "b", "[10]"},
    {"{'type':'Metaspace','replacement':'_','prepend_scheme':'always','split':true}", "a b", "[15,4,15,5]"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':true}", "a b", "[7,10]"},
    {"{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'}," TOKENIZER_FILE_METASPACE "]}", "  a \n b ab",
     "[7,10,7,5]"},
    {"{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},{'type':'Metaspace','replacement':'▁','add_prefix_"
     "space':true}]}",
     "  a b", "[7,10]"},
    {"{'type':'BertPreTokenizer'}", "a!b\xe2\x80\x83_$\xe4\xb8\xad\xc2\xabx", "[4,17,5,15,2,16,2,2]"},
    {"null", "a b!", "[4,14,5,17]"},
};

static void test_tokenizer_parts_pretokenizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pretokenizers) / sizeof(pretokenizers[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.pre = pretokenizers[i].part});

        tokenizer_file_assert_encodes(t, pretokenizers[i].part, pretokenizers[i].text, false, pretokenizers[i].ids);
        tokenizer_free(t);
    }
}

static void test_tokenizer_parts_prepend_first_is_the_text_s_first_word(void **state)
{
    static const struct encode_case cases[] = {
        /* what the text began with is gone */
        {"{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'▁'}", "  a", "[7]"},
        {"{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'a'}", "  b", "[8]"},
        {"{'type':'Replace','pattern':{'Regex':' {2,}'},'content':'a'}", "b  ", "[10,4]"},
        {"{'type':'Strip','strip_left':false,'strip_right':true}", "a ", "[7]"},
        {"null", "</s>a", "[1,4]"},
        {"null", "a</s>a", "[7,1,4]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(
            &(struct tokenizer_file){.normalizer = cases[i].part,
                                     .pre = "{'type':'Metaspace','replacement':'▁','prepend_scheme':'first'}",
                                     .added = "[{'id':1,'content':'</s>','normalized':false}]"});

        tokenizer_file_assert_encodes(t, cases[i].part, cases[i].text, false, cases[i].ids);
        tokenizer_free(t);
    }
}

struct decode_case {
    const char *part, *ids, *text;
};

static const struct decode_case decoders[] = {
    {TOKENIZER_FILE_METASPACE, "[7,3,4,3,10]", "a a  b"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':true}", "[7,10]", " a b"},
    {"{'type':'Metaspace','replacement':'▁','add_prefix_space':true}", "[3,3,7]", "  a"},
};
static const struct decode_case wordpiece_decoders[] = {
    {"{'type':'WordPiece','prefix':'##','cleanup':true}", "[6,4,6,10,15,17,18,19,20,21]", "##b ab! don't ' s?."},
    {"{'type':'WordPiece','prefix':'##','cleanup':false}", "[4,18,19,20]", "a ' s ?"},
    {"{'type':'WordPiece','prefix':'##','cleanup':true}", "[15,17,7]", "don'tc"},
    {"{'type':'WordPiece','prefix':'##','cleanup':true}", "[4,23,23]", "a don't don't"},
};

static void test_tokenizer_parts_decoders(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(decoders) / sizeof(decoders[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.decoder = decoders[i].part});

        tokenizer_file_assert_decodes(t, decoders[i].part, decoders[i].ids, false, decoders[i].text);
        tokenizer_free(t);
    }
    for (size_t i = 0; i < sizeof(wordpiece_decoders) / sizeof(wordpiece_decoders[0]); i++) {
        const struct decode_case *c = &wordpiece_decoders[i];
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.model = PIECES, .decoder = c->part});

        tokenizer_file_assert_decodes(t, c->part, c->ids, false, c->text);
        tokenizer_free(t);
    }
}

static const struct encode_case post_processors[] = {
    {"{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'q','type_id':0}},{'Sequence':{'id':'A','type_id':0}"
     "},{'SpecialToken':{'id':'r','type_id':0}}],'pair':[],'special_tokens':{'q':{'id':'q','ids':[2,1],'tokens':['a','"
     "b']},'r':{'id':'r','ids':[0],'tokens':['c']}}}",
     "a", "[2,1,4,0]"},
    {"{'type':'ByteLevel','add_prefix_space':true,'trim_offsets':false}", "a", "[4]"},
    {"null", "a", "[4]"},
};

static void test_tokenizer_parts_post_processors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(post_processors) / sizeof(post_processors[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.post = post_processors[i].part});

        tokenizer_file_assert_encodes(t, post_processors[i].part, post_processors[i].text, true,
                                      post_processors[i].ids);
        tokenizer_file_assert_encodes(t, post_processors[i].part, post_processors[i].text, false, "[4]");
        tokenizer_free(t);
    }
}

static const struct encode_case unigram[] = {
    {TOKENIZER_FILE_UNIGRAM, "abc", "[9]"},
    {TOKENIZER_FILE_UNIGRAM, "abab", "[8,8]"},
    {TOKENIZER_FILE_UNIGRAM, "xyz", "[2]"},
    {TOKENIZER_FILE_UNIGRAM, "axybqc", "[4,2,5,2,6]"},
    {TOKENIZER_FILE_UNIGRAM, "<unk>", "[2]"},
    {TOKENIZER_FILE_UNIGRAM, "x<unk>", "[2]"},
    {TOKENIZER_FILE_UNIGRAM, "x x", "[2,14,2]"},
    {TOKENIZER_FILE_UNIGRAM, "\xf0\x9f\x98\x80\xe4\xb8\x81", "[2]"},
    {TIES, "aa", "[4]"},
    {TIES, "aaa", "[3,4]"},
    {TIES, "aaaa", "[4,4]"},
    {TIES, "xyz", "[1,5]"},
    {TIES, "xyyz", "[1,0,5]"},
    {FUSED, "pq", "[1]"},
    {FUSED, "apqa", "[2,1,2]"},
    {FUSED, "p", "[0]"},
    {FUSED, "pqp", "[0]"},
    {PENALTY("9.5"), "xa", "[3]"}, /* "x" costs -11, "a" gives 20 */
    {PENALTY("8.5"), "xa", "[0,2]"},
};

static void test_tokenizer_parts_unigram(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(unigram) / sizeof(unigram[0]); i++) {
        struct tokenizer *t = tokenizer_file_load(&(struct tokenizer_file){.model = unigram[i].part});

        tokenizer_file_assert_encodes(t, unigram[i].part, unigram[i].text, false, unigram[i].ids);
        tokenizer_free(t);
    }
}

/* All ways to spell a word, tried one by one. */
static double best_of(const char *s, const double score[5], double unknown)
{
    static const char *const tokens[5] = {"a", "b", "ab", "aab", "ba"};
    double best = -1e9;

    if (!*s)
        return 0;
    for (int i = 0; i < 5; i++)
        if (strncmp(s, tokens[i], strlen(tokens[i])) == 0) {
            double whole = score[i] + best_of(s + strlen(tokens[i]), score, unknown);

            best = whole > best ? whole : best;
        }
    if (*s == 'c') /* no token */
        best = unknown + best_of(s + 1, score, unknown);
    return best;
}

static void test_tokenizer_parts_unigram_finds_the_best_sum(void **state)
{
    static const double score[5] = {-2, -2.5, -3.75, -5.5, -4};
    struct tokenizer *t = tokenizer_file_load(
        &(struct tokenizer_file){.model = "{'unk_id':0,'vocab':[['<unk>',0],['a',-2],['b',-2.5],['ab',-3.75],"
                                          "['aab',-5.5],['ba',-4]]}"});
    unsigned seed = 4711;

    (void)state;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 500; round++) {
        struct token_ids got = {0};
        double sum = 0;
        char s[13];
        int n = 1 + rand_r(&seed) % 12, n_unknown = 0;

        for (int i = 0; i < n; i++) {
            s[i] = (char)('a' + rand_r(&seed) % 16 / 7);
            n_unknown += s[i] == 'c';
        }
        s[n] = '\0';
        assert_int_equal(tokenizer_encode(t, s, (size_t)n, false, &got, NULL), 0);
        for (size_t i = 0; i < got.n; i++)
            sum += got.ids[i] ? score[got.ids[i] - 1] : 0;
        assert_true(sum - 15.5 * n_unknown == best_of(s, score, -15.5)); /* the smallest score - 10 each */
        token_ids_release(&got);
    }
    tokenizer_free(t);
}

static const struct {
    const char *text, *ids;
} wordpiece[] = {
    {"ab", "[8]"},
    {"abc", "[8,7]"},
    {"abbb", "[8,6,6]"},
    {"abbbb", "[8,6,6,6]"},
    {"abbbbb", "[1]"},
    {"a b!", "[4,5,10]"},
    {"xa", "[1]"},
    {"ax", "[1]"},
    {"!", "[10]"},
    {"\xe4\xb8\xad"
     "a",
     "[14,22]"},
    {"\xc3\xa9", "[12]"},
    {"", "[]"},
    {"ab x ab", "[8,1,8]"},
};

static void test_tokenizer_parts_wordpiece(void **state)
{
    struct tokenizer *t = tokenizer_file_load(
        &(struct tokenizer_file){.model = PIECES, .pre = "{'type':'BertPreTokenizer'}", .decoder = WORDPIECE});

    (void)state;
    for (size_t i = 0; i < sizeof(wordpiece) / sizeof(wordpiece[0]); i++)
        tokenizer_file_assert_encodes(t, "WordPiece", wordpiece[i].text, false, wordpiece[i].ids);
    tokenizer_free(t);
}

#define ADDED                                                                                  \
    "[{'id':21,'content':'<x>','normalized':false},{'id':22,'content':'Foo'},"                 \
    "{'id':23,'content':'word'},{'id':24,'content':'<l>','lstrip':true,'normalized':false},"   \
    "{'id':25,'content':'<r>','rstrip':true,'normalized':false},"                              \
    "{'id':26,'content':'  ','rstrip':true,'normalized':false},"                               \
    "{'id':27,'content':'<b>','lstrip':true,'rstrip':true,'normalized':false,'special':true}," \
    "{'id':28,'content':'<x>y','normalized':false},"                                           \
    "{'id':29,'content':'\\t','lstrip':true,'rstrip':true,'normalized':false}]"

static const struct {
    const char *text, *ids;
} added[] = {
    {"a<x>b", "[7,21,5]"},
    {"<x>a", "[21,4]"},
    {"<X>", "[3,2]"},
    {"foo", "[22]"},
    {"FOOa", "[22,4]"},
    {"aFoo", "[7,22]"},
    {"a word b", "[7,3,23,10]"},
    {"aword", "[7,23]"},
    {"word1", "[23,19]"},
    {"_word", "[3,15,23]"},
    {"(word)", "[3,2,23,2]"},
    {"WORD", "[23]"},
    {"\xc3\xa9\xcc\x81word", "[3,11,13,23]"},
    {"\xe2\x92\xb6word", "[3,2,23]"},
    {"a \n<l>\t b", "[7,24,29,5]"},
    {"<x>ya<x>", "[28,4,21]"},
    {"a\t\t\tb", "[7,29,5]"},
    {"a \t \tb", "[7,29,5]"},
    {"a <r>  \xe3\x80\x80"
     "b",
     "[7,3,25,26,5]"},
    {"a    b", "[7,26,26,5]"},
    {"<r>     a", "[25,26,26,4]"},
    {"a <b> <b>  <l>a", "[7,27,27,26,24,4]"},
    {"<b>", "[27]"},
    {"  <l>a", "[26,24,4]"},
    {"a<x>", "[7,21]"},
    {"word word", "[23,3,23]"},
};

static void test_tokenizer_parts_added_tokens(void **state)
{
    struct tokenizer *t = tokenizer_file_load(
        &(struct tokenizer_file){.normalizer = LOWERCASE,
                                 .pre = "{'type':'Metaspace','replacement':'▁','prepend_scheme':'first'}",
                                 .added = ADDED});

    (void)state;
    for (size_t i = 0; i < sizeof(added) / sizeof(added[0]); i++)
        tokenizer_file_assert_encodes(t, "added tokens", added[i].text, false, added[i].ids);
    tokenizer_file_assert_decodes(t, "added tokens", "[22,7,23,27]", false,
                                  "foo aword<b>"); /* in its normalised spelling */
    tokenizer_file_assert_decodes(t, "added tokens", "[22,7,23,27]", true, "foo aword");
    assert_int_equal(tokenizer_find(t, "Foo"), 22);
    tokenizer_free(t);
}

/* truncation and padding are what somebody once used; models without a type are told apart by what they hold. */
static void test_tokenizer_parts_files_as_they_were_published(void **state)
{
    static const char *const texts[] = {
        "{\"version\":\"1.0\",\"truncation\":{\"max_length\":2,\"strategy\":\"LongestFirst\",\"stride\":0},"
        "\"padding\":{\"strategy\":{\"Fixed\":9},\"pad_id\":0,\"pad_type_id\":0,\"pad_token\":\"<pad>\"},"
        "\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,"
        "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"str_rep\":\"_\",\"add_prefix_space\":true},"
        "\"model\":{\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1]]}}",
        "{\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"unk_token\":\"?\","
        "\"continuing_subword_prefix\":\"\",\"max_input_chars_per_word\":100,\"vocab\":{\"?\":0,\"a\":1}}}"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tokenizer *t = NULL;
        struct err err = {""};

        if (tokenizer_parse(texts[i], strlen(texts[i]), "tokenizer.json", &t, &err) < 0)
            fail_msg("%s", err.text);
        tokenizer_file_assert_encodes(t, "published", "aaa", true, "[1,1,1]");
        tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_parts_normalizers),
        cmocka_unit_test(test_tokenizer_parts_lower_case_of_dotted_i),
        cmocka_unit_test(test_tokenizer_parts_pretokenizers),
        cmocka_unit_test(test_tokenizer_parts_prepend_first_is_the_text_s_first_word),
        cmocka_unit_test(test_tokenizer_parts_decoders),
        cmocka_unit_test(test_tokenizer_parts_post_processors),
        cmocka_unit_test(test_tokenizer_parts_unigram),
        cmocka_unit_test(test_tokenizer_parts_unigram_finds_the_best_sum),
        cmocka_unit_test(test_tokenizer_parts_wordpiece),
        cmocka_unit_test(test_tokenizer_parts_added_tokens),
        cmocka_unit_test(test_tokenizer_parts_files_as_they_were_published),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
