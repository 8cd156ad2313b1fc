#include "model/metaspace.h"

#include "model/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static enum metaspace_prepend read_prepend(struct json_reader *r)
{
    static const char *const names[] = {
        [METASPACE_ALWAYS] = "always", [METASPACE_FIRST] = "first", [METASPACE_NEVER] = "never"};
    bool prefix = json_read_bool(r, "add_prefix_space", true);
    const char *name = json_read_text(r, "prepend_scheme", names[prefix ? METASPACE_ALWAYS : METASPACE_NEVER]);

    for (int i = METASPACE_ALWAYS; i <= METASPACE_NEVER; i++)
        if (strcmp(name, names[i]) == 0) {
            if (!prefix && i != METASPACE_NEVER)
                json_reader_fail(r, "add_prefix_space", "false contradicts prepend_scheme \"%s\"", name);
            return (enum metaspace_prepend)i;
        }
    json_reader_fail(r, "prepend_scheme", "\"%.60s\" is not supported", name);
    return METASPACE_ALWAYS;
}

int metaspace_parse(const struct tokenizer_part *part, struct metaspace *ret)
{
    static const char *const known[] = {"replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split", NULL};
    struct json_reader r = {.file = part->file, .section = "", .object = part->json, .err = part->err};
    char section[64];
    const char *replacement;
    int rc = tokenizer_part_check_keys(part, known);
    uint32_t cp;

    (void)snprintf(section, sizeof(section), "%s.", part->place);
    r.section = section;
    replacement = json_read_text(&r, "replacement", "");
    if (!replacement[0] || replacement[utf8_step(replacement, strlen(replacement), &cp)])
        json_reader_fail(&r, "replacement", "is not one character");
    else
        (void)snprintf(ret->replacement, sizeof(ret->replacement), "%s", replacement);
    ret->replacement_size = strlen(ret->replacement);
    ret->prepend = read_prepend(&r);
    if (!json_read_bool(&r, "split", true))
        json_reader_fail(&r, "split", "false is not supported");
    return rc < 0 ? rc : r.rc;
}

bool metaspace_begins(const struct metaspace *m, struct token_text t)
{
    return t.size_bytes >= m->replacement_size && memcmp(t.text, m->replacement, m->replacement_size) == 0;
}
