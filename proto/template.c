#include "proto/template.h"

#include <errno.h>
#include <string.h>

static int add_part(struct template *t, const char *text, size_t bytes, bool is_field, struct err *err)
{
    if (t->n_parts == TEMPLATE_MAX_PARTS)
        return err_set(err, -EINVAL, "a template with more than %d parts", TEMPLATE_MAX_PARTS);
    t->parts[t->n_parts++] = (struct template_part){.text = text, .bytes = (uint32_t)bytes, .is_field = is_field};
    return 0;
}

/* `open` is a single brace. *ret_end: after the closing one. */
static int add_field(struct template *t, const char *open, const char **ret_end, struct err *err)
{
    const char *name = open + 1;
    size_t n = strcspn(name, "{}");

    if (name[n] != '}')
        return err_set(err, -EINVAL, "\"%.40s\": { without }; write {{ for a brace", open);
    if (n == 0)
        return err_set(err, -EINVAL, "{} names no field; write {{ and }} for braces");
    if (n >= MSG_NAME_SIZE)
        return err_set(err, -EINVAL, "a field's name of %zu bytes, the limit is %d", n, MSG_NAME_SIZE - 1);
    *ret_end = name + n + 1;
    return add_part(t, name, n, true, err);
}

int template_parse(const char *text, struct template *ret, struct err *err)
{
    struct template t = {0};
    const char *at = text;

    while (*at) {
        size_t n = strcspn(at, "{}");
        int rc = 0;

        if (n > 0) {
            rc = add_part(&t, at, n, false, err);
            at += n;
        } else if (at[1] == at[0]) {
            rc = add_part(&t, at, 1, false, err);
            at += 2;
        } else if (*at == '{') {
            rc = add_field(&t, at, &at, err);
        } else {
            rc = err_set(err, -EINVAL, "\"%.40s\": } without {; write }} for a brace", at);
        }
        if (rc < 0)
            return rc;
    }
    *ret = t;
    return 0;
}

bool template_is_constant(const struct template *t)
{
    for (uint32_t i = 0; i < t->n_parts; i++)
        if (t->parts[i].is_field)
            return false;
    return true;
}

static bool is_named(const struct row_field *f, const struct template_part *p)
{
    return f->name_bytes == p->bytes && memcmp(f->name, p->text, p->bytes) == 0;
}

/* The i-th value of a field, or its only one. Returns how many values it has. */
static uint32_t look_up(const struct row_item *item, const struct template_part *p, uint32_t i, const uint8_t **ret,
                        uint32_t *ret_bytes)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < item->n_fields; k++) {
        if (!is_named(&item->fields[k], p))
            continue;
        if (n == 0 || n == i) {
            *ret = item->fields[k].value;
            *ret_bytes = item->fields[k].value_bytes;
        }
        n++;
    }
    if (n == 0 && p->bytes == 3 && memcmp(p->text, "key", 3) == 0) {
        *ret = item->key;
        *ret_bytes = item->key_bytes;
        n = 1;
    }
    return n;
}

int template_count(const struct template *t, const struct row_item *item, uint32_t *ret_n, struct err *err)
{
    const struct template_part *several = NULL;
    uint32_t count = 1;

    for (uint32_t k = 0; k < t->n_parts; k++) {
        const struct template_part *p = &t->parts[k];
        const uint8_t *value;
        uint32_t bytes, n;

        if (!p->is_field)
            continue;
        n = look_up(item, p, 0, &value, &bytes);
        if (n == 0)
            return err_set(err, -ENOENT, "the item has no field \"%.*s\"", (int)p->bytes, p->text);
        if (n == 1)
            continue;
        if (several && (several->bytes != p->bytes || memcmp(several->text, p->text, p->bytes) != 0))
            return err_set(err, -EINVAL, "fields \"%.*s\" and \"%.*s\" both have several values", (int)several->bytes,
                           several->text, (int)p->bytes, p->text);
        several = p;
        count = n;
    }
    *ret_n = count;
    return 0;
}

int template_render(const struct template *t, const struct row_item *item, uint32_t i, struct buf *ret, struct err *err)
{
    size_t before = ret->size_bytes;
    int rc = 0;

    for (uint32_t k = 0; rc == 0 && k < t->n_parts; k++) {
        const struct template_part *p = &t->parts[k];
        const uint8_t *value = (const uint8_t *)p->text;
        uint32_t bytes = p->bytes;

        if (p->is_field && look_up(item, p, i, &value, &bytes) == 0)
            rc = err_set(err, -ENOENT, "the item has no field \"%.*s\"", (int)p->bytes, p->text);
        else if (bytes > ROW_MAX_CAPTION_BYTES - (ret->size_bytes - before))
            rc = err_set(err, -EFBIG, "the prompt with its fields is longer than %d bytes", ROW_MAX_CAPTION_BYTES);
        else if (bytes)
            rc = buf_append(ret, value, bytes);
    }
    if (rc < 0)
        ret->size_bytes = before;
    return rc;
}
