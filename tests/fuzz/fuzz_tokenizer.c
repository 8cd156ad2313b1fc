/* The first byte says what the rest is: a file; a text for the tokenizers of models/ and tests/golden; a charsmap and a
 * text; a choice of parts and a text; the JSON of one part and a text. A file is a tokenizer or is refused with a
 * reason; any text encodes to ids that there are, which decode to valid UTF-8 (byte-level BPE: to the text itself), or
 * is refused. (Run in the project's root.) */
#include "model/tokenizer.h"
#include "model/utf8.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define METASPACE \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\",\"split\":true}"
#define FIRST "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"
#define REPLACE(to) "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"" to "\"}"
#define STRIP "{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}"
#define BERT(clean, cjk, accents, lower)                                                  \
    "{\"type\":\"BertNormalizer\",\"clean_text\":" clean ",\"handle_chinese_chars\":" cjk \
    ",\"strip_accents\":" accents ",\"lowercase\":" lower "}"

static const char *const normalizers[8] = {
    STRIP,
    REPLACE("\xe2\x96\x81"),
    REPLACE("bab  "),
    REPLACE(""),
    BERT("true", "true", "null", "true"),
    BERT("false", "true", "true", "false"),
    BERT("true", "false", "false", "true"),
    BERT("false", "false", "false", "false"),
};
static const char *const pretokenizers[8] = {
    "null",
    METASPACE,
    FIRST,
    "{\"type\":\"WhitespaceSplit\"}",
    "{\"type\":\"BertPreTokenizer\"}",
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"}," METASPACE "]}",
    "{\"type\":\"Sequence\",\"pretokenizers\":[" METASPACE ",{\"type\":\"BertPreTokenizer\"}]}",
    "{\"type\":\"Sequence\",\"pretokenizers\":[]}"};
static const char *const decoders[4] = {METASPACE, FIRST, "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}",
                                        "{\"type\":\"WordPiece\",\"prefix\":\"#\",\"cleanup\":false}"};
static const char *const models[2] = {
    "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"b\",-2],[\"ab\",-2.5],[\"\xe2\x96\x81\","
    "-3],"
    "[\"\xe2\x96\x81"
    "a\",-3],[\"\xcc\x81\",-4],[\"e\",-1],[\"aa\",-2],[\"baba\",-3]]}",
    "{\"type\":\"WordPiece\",\"unk_token\":\"?\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":9,"
    "\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"##a\":3,\"##b\":4,\"ab\":5,\"##ba\":6,\"do\":7,\"n't\":8,\"##.\":9}}"};
#define ADDED                                                                                 \
    "[{\"id\":10,\"content\":\"<s>\",\"special\":true,\"normalized\":false,\"lstrip\":true}," \
    "{\"id\":11,\"content\":\"  \",\"normalized\":false,\"rstrip\":true},"                    \
    "{\"id\":12,\"content\":\"aB\"},{\"id\":13,\"content\":\"ba\",\"lstrip\":true,"           \
    "\"rstrip\":true}]"
#define POST                                                                                                         \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"e\"}}]," \
    "\"special_tokens\":{\"e\":{\"ids\":[10]}}}"

static void round_trip(const struct tokenizer *t, const char *text, size_t n, bool exact)
{
    struct token_ids ids = {0};
    struct buf back = {0};
    struct err err = {""};

    if (tokenizer_encode(t, text, n, !exact, &ids, &err) < 0) {
        if (!err.text[0] || ids.n)
            abort();
    } else if (tokenizer_decode(t, ids.ids, ids.n, false, &back, &err) < 0 ||
               !utf8_is_valid(back.data, back.size_bytes) ||
               (exact && (back.size_bytes != n || (n && memcmp(back.data, text, n) != 0)))) {
        abort();
    }
    for (size_t i = 0; i < ids.n; i++)
        if (ids.ids[i] < 0)
            abort();
    buf_release(&back);
    token_ids_release(&ids);
}

static void try_file(const char *json, size_t size, const char *text, size_t n, bool must_parse)
{
    struct tokenizer *t = NULL;
    struct err err = {""};

    if (tokenizer_parse(json, size, "fuzz", &t, &err) < 0) {
        if (t || !err.text[0] || must_parse)
            abort();
        return;
    }
    round_trip(t, text, n, false);
    round_trip(t, "a <b>\xc3\xa9  c\xe2\x96\x81", 13, false);
    tokenizer_free(t);
}

static void try_parts(const char *normalizer, const char *pre, const char *decoder, const char *model,
                      const char *added, const char *text, size_t n, bool must_parse)
{
    char *json = NULL;
    int size = asprintf(&json,
                        "{\"version\":\"1.0\",\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
                        "\"post_processor\":" POST ",\"decoder\":%s,\"model\":%s}",
                        added, normalizer, pre, decoder, model);

    if (size < 0)
        abort();
    try_file(json, (size_t)size, text, n, must_parse);
    free(json);
}

/* Size of the charsmap (a byte, in units of 16), the charsmap, the text. */
static void try_charsmap(const uint8_t *data, size_t n)
{
    size_t size = n ? (size_t)data[0] * 16 : 0, length = sodium_base64_ENCODED_LEN(255 * 16, 1);
    char base64[255 * 16 * 2], *json = NULL;

    if (n < 1 + size)
        return;
    (void)sodium_bin2base64(base64, length, data + 1, size, sodium_base64_VARIANT_ORIGINAL);
    if (asprintf(&json, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%s\"}", base64) < 0)
        abort();
    try_parts(json, METASPACE, METASPACE, models[0], "[]", (const char *)data + 1 + size, n - 1 - size, false);
    free(json);
}

/* Three bytes choose the parts; then the text. */
static void try_choice(const uint8_t *data, size_t n)
{
    char normalizer[1024];

    if (n < 3)
        return;
    (void)snprintf(normalizer, sizeof(normalizer), "{\"type\":\"Sequence\",\"normalizers\":[%s,%s]}",
                   normalizers[data[0] & 7], normalizers[data[0] >> 4 & 7]);
    try_parts(data[1] & 1 ? normalizer : "null", pretokenizers[data[1] >> 1 & 7], decoders[data[1] >> 4 & 3],
              models[data[1] >> 6 & 1], data[2] & 1 ? ADDED : "[{\"id\":10,\"content\":\"<s>\"}]",
              (const char *)data + 3, n - 3, !(data[2] & 1));
}

/* Which part, its JSON up to a NUL, the text. */
static void try_one_part(const uint8_t *data, size_t n)
{
    const uint8_t *end = n > 1 ? memchr(data + 1, 0, n - 1) : NULL;
    const char *part, *text;

    if (!end)
        return;
    part = (const char *)data + 1;
    text = (const char *)end + 1;
    n -= (size_t)(end + 1 - data);
    try_parts(data[0] == 'n' ? part : "null", data[0] == 'p' ? part : "null", data[0] == 'd' ? part : METASPACE,
              data[0] == 'm' ? part : models[0], data[0] == 'a' ? part : ADDED, text, n, false);
}

static const struct tokenizer *loaded(int which)
{
    static const char *const paths[3] = {"models/blip2-opt-demo/tokenizer.json", "tests/golden/t5_a/tokenizer.json",
                                         "tests/golden/itm_c/tokenizer.json"};
    static struct tokenizer *tokenizers[3];

    if (!tokenizers[which] && tokenizer_load(paths[which], &tokenizers[which], NULL) < 0)
        abort();
    return tokenizers[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    switch (data[0] & 7) {
    case 1:
    case 2:
    case 3:
        round_trip(loaded((data[0] & 7) - 1), (const char *)data + 1, n - 1, (data[0] & 7) == 1);
        break;
    case 4:
        try_charsmap(data + 1, n - 1);
        break;
    case 5:
    case 6:
        try_choice(data + 1, n - 1);
        break;
    case 7:
        try_one_part(data + 1, n - 1);
        break;
    default:
        try_file((const char *)data + 1, n - 1, "", 0, false);
    }
    return 0;
}
