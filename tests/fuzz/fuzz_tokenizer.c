/* Even inputs: any bytes are a tokenizer or are refused with a reason. Odd ones: any text encodes with the demo model's
 * tokenizer and decodes to itself, or is refused. (Run in the project's root.) */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(const struct tokenizer *t, const char *text, size_t n, bool exact)
{
    struct token_ids ids = {0};
    struct buf back = {0};
    struct err err = {""};

    if (tokenizer_encode(t, text, n, false, &ids, &err) < 0) {
        if (!err.text[0] || ids.n)
            abort();
    } else if (tokenizer_decode(t, ids.ids, ids.n, false, &back, &err) < 0 ||
               (exact && (back.size_bytes != n || (n && memcmp(back.data, text, n) != 0)))) {
        abort();
    }
    buf_release(&back);
    token_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tokenizer *demo;
    struct tokenizer *t = NULL;
    struct err err = {""};

    if (n == 0 || (!demo && tokenizer_load("models/blip2-opt-demo/tokenizer.json", &demo, &err) < 0))
        return 0;
    if (data[0] & 1) {
        round_trip(demo, (const char *)data + 1, n - 1, true);
        return 0;
    }
    if (tokenizer_parse(data + 1, n - 1, "fuzz", &t, &err) < 0) {
        if (t || !err.text[0])
            abort();
        return 0;
    }
    round_trip(t, "a <b>\xc3\xa9  c", 10, false);
    tokenizer_free(t);
    return 0;
}
