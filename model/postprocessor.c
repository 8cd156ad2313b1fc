#include "model/postprocessor.h"

#include "model/tokenizer_part.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static int append_id(const struct postprocessor *p, const struct tokenizer_part *part, const char *name,
                     const json_t *id, struct token_ids *ret)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= p->n_ids)
        return err_set(part->err, -EINVAL, "%s: post_processor: \"%.60s\" has an id out of range, or none", part->file,
                       name);
    if (ret->n >= POSTPROCESSOR_MAX_IDS)
        return err_set(part->err, -EINVAL, "%s: post_processor: \"%.60s\" is over %d ids", part->file, name,
                       POSTPROCESSOR_MAX_IDS);
    return token_ids_append(ret, (int32_t)json_integer_value(id));
}

static int append_template_ids(const struct postprocessor *p, const struct tokenizer_part *part, const json_t *special,
                               struct token_ids *ret)
{
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *tokens = json_object_get(part->json, "special_tokens");
    const json_t *ids = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL, *id;
    size_t i;
    int rc = 0;

    if (json_array_size(ids) == 0)
        return err_set(part->err, -EINVAL, "%s: post_processor.special_tokens: \"%.60s\" has no ids", part->file,
                       name ? name : "?");
    json_array_foreach((json_t *)(uintptr_t)ids, i, id)
    {
        rc = append_id(p, part, name, id, ret);
        if (rc < 0)
            break;
    }
    return rc;
}

static int read_template(struct postprocessor *p, const struct tokenizer_part *part)
{
    const json_t *piece;
    bool seen = false;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)json_object_get(part->json, "single"), i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken"), *text = json_object_get(piece, "Sequence");
        const char *which = json_string_value(json_object_get(text, "id"));
        int rc;

        if (special) {
            rc = append_template_ids(p, part, special, seen ? &p->after : &p->before);
            if (rc < 0)
                return rc;
        } else if (which && strcmp(which, "A") == 0 && !seen) {
            seen = true;
        } else {
            return err_set(part->err, -EINVAL, "%s: post_processor.single: entry %zu is not supported", part->file, i);
        }
    }
    if (!seen)
        return err_set(part->err, -EINVAL, "%s: post_processor.single: has no place for the text", part->file);
    return 0;
}

int postprocessor_parse(struct postprocessor *p, const char *file, const json_t *json, struct err *err)
{
    struct tokenizer_part part = {.file = file, .place = "post_processor", .json = json, .err = err};
    const char *type = tokenizer_part_type(json);

    if (strcmp(type, "null") == 0 || strcmp(type, "ByteLevel") == 0)
        return 0;
    if (strcmp(type, "TemplateProcessing") != 0)
        return err_set(err, -EINVAL, "%s: post_processor: \"%.60s\" is not supported", file, type);
    return read_template(p, &part);
}

void postprocessor_release(struct postprocessor *p)
{
    token_ids_release(&p->before);
    token_ids_release(&p->after);
}
