#include "model/tokenizer_part.h"

#include <errno.h>
#include <string.h>

const char *tokenizer_part_type(const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "type"));

    if (!json || json_is_null(json))
        return "null";
    return type ? type : "(no type)";
}

struct json_reader tokenizer_part_reader(const struct tokenizer_part *part, const char *section)
{
    return (struct json_reader){.file = part->file, .section = section, .object = part->json, .err = part->err};
}

int tokenizer_part_check_keys(const struct tokenizer_part *part, const char *const *known)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)part->json, key, v)
    {
        size_t i = 0;

        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i] && strcmp(key, "type") != 0)
            return err_set(part->err, -EINVAL, "%s: %s: \"%.60s\" of %.60s is not supported", part->file, part->place,
                           key, tokenizer_part_type(part->json));
    }
    return 0;
}

static int each(const struct tokenizer_part *part, const char *list,
                int (*add)(void *owner, const struct tokenizer_part *part), void *owner, int *n_steps)
{
    const json_t *parts, *v;
    size_t i;
    int rc = 0;

    if (strcmp(tokenizer_part_type(part->json), "Sequence") != 0) {
        if (++*n_steps > TOKENIZER_PART_MAX_STEPS)
            return err_set(part->err, -EINVAL, "%s: %s: more than %d steps", part->file, part->place,
                           TOKENIZER_PART_MAX_STEPS);
        return add(owner, part);
    }
    parts = json_object_get(part->json, list);
    if (!json_is_array(parts))
        return err_set(part->err, -EINVAL, "%s: %s: %s of Sequence is %s, expected an array", part->file, part->place,
                       list, json_type_text(parts));
    json_array_foreach((json_t *)(uintptr_t)parts, i, v)
    {
        struct tokenizer_part one = *part;

        one.json = v;
        rc = each(&one, list, add, owner, n_steps); /* as deep as JSON_MAX_DEPTH lets it be */
        if (rc < 0)
            break;
    }
    return rc;
}

int tokenizer_part_each(const struct tokenizer_part *part, const char *list,
                        int (*add)(void *owner, const struct tokenizer_part *part), void *owner)
{
    int n_steps = 0;

    if (!part->json || json_is_null(part->json))
        return 0;
    return each(part, list, add, owner, &n_steps);
}
