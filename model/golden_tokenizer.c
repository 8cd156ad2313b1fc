#include "model/golden_tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model/golden.h"
#include "model/tokenizer.h"

static bool ids_equal(const json_t *want, const struct token_ids *ids)
{
    if (json_array_size(want) != ids->n)
        return false;
    for (size_t i = 0; i < ids->n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids->ids[i])
            return false;
    return true;
}

/* Returns 1 if encoding (both ways) and decoding match, else 0. */
static int check_case(const struct tokenizer *t, const json_t *want, struct err *err)
{
    const json_t *text = json_object_get(want, "text"), *decoded = json_object_get(want, "decoded");
    struct token_ids with = {0}, without = {0};
    struct buf out;
    int rc;

    if (!json_is_string(text) || !json_is_string(decoded))
        return 0;
    buf_init(&out, 0);
    rc = tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &with, err);
    if (rc == 0)
        rc = tokenizer_encode(t, json_string_value(text), json_string_length(text), false, &without, err);
    if (rc == 0)
        rc = tokenizer_decode(t, with.ids, with.n, true, &out, err);
    if (rc == 0)
        rc = ids_equal(json_object_get(want, "ids"), &with) &&
             ids_equal(json_object_get(want, "ids_no_special"), &without) &&
             out.size_bytes == json_string_length(decoded) &&
             (out.size_bytes == 0 || memcmp(out.data, json_string_value(decoded), out.size_bytes) == 0);
    buf_release(&out);
    token_ids_release(&with);
    token_ids_release(&without);
    return rc;
}

int golden_report_tokenizer(struct golden *g, const struct tokenizer *t, struct err *err)
{
    const json_t *cases = json_object_get(g->expected, "tokenizer");
    const size_t n = json_array_size(cases);
    char detail[128] = "";
    int n_wrong = 0;

    if (n == 0)
        return golden_report_skipped(g, "tokenizer", "expected.json has no tokenizer cases", err);
    for (size_t i = 0; i < n; i++) {
        int rc = check_case(t, json_array_get(cases, i), err);

        if (rc < 0)
            return rc;
        if (rc == 0 && n_wrong++ == 0)
            snprintf(detail, sizeof(detail), "first wrong: case %zu", i);
    }
    return golden_report_equal(g, "tokenizer", (int)n, n_wrong == 0, *detail ? detail : NULL, err);
}
