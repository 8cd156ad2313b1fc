#include "llm_worker/generate_json.h"

#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <string.h>

enum kind { INT, FLOAT, BOOL, EARLY };

static const struct option {
    const char *name;
    enum kind kind;
    size_t offset;
} options[] = {
    {"max_new_tokens", INT, offsetof(struct generation_options, max_new_tokens)},
    {"min_new_tokens", INT, offsetof(struct generation_options, min_new_tokens)},
    {"num_beams", INT, offsetof(struct generation_options, n_beams)},
    {"num_return_sequences", INT, offsetof(struct generation_options, n_return)},
    {"length_penalty", FLOAT, offsetof(struct generation_options, length_penalty)},
    {"early_stopping", EARLY, offsetof(struct generation_options, early_stopping)},
    {"repetition_penalty", FLOAT, offsetof(struct generation_options, repetition_penalty)},
    {"no_repeat_ngram_size", INT, offsetof(struct generation_options, no_repeat_ngram)},
    {"do_sample", BOOL, offsetof(struct generation_options, sample)},
    {"temperature", FLOAT, offsetof(struct generation_options, temperature)},
    {"top_k", INT, offsetof(struct generation_options, top_k)},
    {"top_p", FLOAT, offsetof(struct generation_options, top_p)},
};

static int set_early(const json_t *value, enum early_stopping *ret)
{
    if (json_is_boolean(value))
        *ret = json_is_true(value) ? EARLY_STOPPING_TRUE : EARLY_STOPPING_FALSE;
    else if (json_is_string(value) && strcmp(json_string_value(value), "never") == 0)
        *ret = EARLY_STOPPING_NEVER;
    else
        return -EINVAL;
    return 0;
}

static int set(const struct option *o, const json_t *value, struct generation_options *ret)
{
    void *at = (char *)ret + o->offset;

    if (o->kind == EARLY)
        return set_early(value, at);
    if (o->kind == BOOL && json_is_boolean(value))
        *(bool *)at = json_is_true(value);
    else if (o->kind == FLOAT && json_is_number(value))
        *(float *)at = (float)json_number_value(value);
    else if (o->kind == INT && json_is_integer(value) && json_integer_value(value) >= INT32_MIN &&
             json_integer_value(value) <= INT32_MAX)
        *(int *)at = (int)json_integer_value(value);
    else
        return -EINVAL;
    return 0;
}

int generate_json_options(const struct json_t *object, struct generation_options *ret, struct err *err)
{
    struct generation_options o = *ret;
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return err_set(err, -EINVAL, "decoding options are not a JSON object");
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        size_t i = 0;

        while (i < sizeof(options) / sizeof(options[0]) && strcmp(name, options[i].name) != 0)
            i++;
        if (i == sizeof(options) / sizeof(options[0]))
            return err_set(err, -EINVAL, "unknown decoding option %s", name);
        if (set(&options[i], value, &o) < 0)
            return err_set(err, -EINVAL, "decoding option %s has a value of the wrong type", name);
    }
    *ret = o;
    return 0;
}
