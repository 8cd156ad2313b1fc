/* Vocabulary parsing shared by the model types. */
#include "model/tokenizer_type.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int tokenizer_read_vocab(const char *file, const json_t *vocab, struct vocab *ret, struct err *err)
{
    json_int_t last = -1;
    const char *token;
    json_t *v;
    int rc;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return err_set(err, -EINVAL, "%s: model.vocab: is %s, expected an object with tokens", file,
                       json_is_object(vocab) ? "empty" : json_type_text(vocab));
    json_object_foreach((json_t *)(uintptr_t)vocab, token, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id > TOKENIZER_MAX_ID)
            return err_set(err, -EINVAL, "%s: model.vocab: \"%.60s\" has no id from 0 to %d", file, token,
                           TOKENIZER_MAX_ID);
        if (id > last)
            last = id;
    }
    rc = vocab_init(ret, (int32_t)last + 1);
    if (rc < 0)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)vocab, token, v)
    {
        rc = vocab_add(ret, token, strlen(token), (int32_t)json_integer_value(v));
        if (rc == -EEXIST)
            return err_set(err, -EINVAL, "%s: model.vocab: \"%.60s\" has the id of another token, %d", file, token,
                           (int)json_integer_value(v));
        if (rc < 0)
            return rc;
    }
    return 0;
}

int tokenizer_vocab_trie(const char *file, const struct vocab *vocab, struct trie *ret, struct err *err)
{
    struct token_text *keys = calloc((size_t)vocab->n_ids + 1, sizeof(*keys));
    int32_t *ids = calloc((size_t)vocab->n_ids + 1, sizeof(*ids));
    size_t n = 0;
    int rc = keys && ids ? 0 : -ENOMEM;

    for (int32_t id = 0; id < vocab->n_ids && rc == 0; id++) {
        const char *text = vocab_text(vocab, id, &keys[n].size_bytes);

        if (!text || keys[n].size_bytes == 0)
            continue;
        if (keys[n].size_bytes > TOKENIZER_MAX_TOKEN_BYTES)
            rc = err_set(err, -EINVAL, "%s: model.vocab: \"%.60s\" has %zu bytes, the limit is %d", file, text,
                         keys[n].size_bytes, TOKENIZER_MAX_TOKEN_BYTES);
        keys[n].text = text;
        ids[n++] = id;
    }
    if (rc == 0)
        rc = trie_init(ret, keys, ids, n);
    free(keys);
    free(ids);
    return rc;
}
