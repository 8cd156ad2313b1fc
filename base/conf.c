#include "base/conf.h"

#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *suffix;
    int64_t factor;
};

static int parse_number_with_unit(const char *text, const struct unit *units, int64_t *ret)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || errno == ERANGE)
        return -EINVAL;
    while (*end == ' ')
        end++;
    for (const struct unit *u = units; u->suffix; u++) {
        if (strcmp(end, u->suffix) != 0)
            continue;
        int64_t product;

        if (__builtin_mul_overflow((int64_t)n, u->factor, &product))
            return -ERANGE;
        *ret = product;
        return 0;
    }
    return -EINVAL;
}

int conf_parse_size(const char *text, int64_t *ret_bytes)
{
    static const struct unit units[] = {
        {"", 1}, {"B", 1}, {"KiB", 1LL << 10}, {"MiB", 1LL << 20}, {"GiB", 1LL << 30}, {"TiB", 1LL << 40}, {NULL, 0}};

    return parse_number_with_unit(text, units, ret_bytes);
}

int conf_parse_duration(const char *text, int64_t *ret_ms)
{
    static const struct unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};

    return parse_number_with_unit(text, units, ret_ms);
}

static int parse_bool(const char *text, int64_t *ret)
{
    static const char *const words[2][3] = {{"no", "false", "off"}, {"yes", "true", "on"}};

    for (int value = 0; value < 2; value++)
        for (int i = 0; i < 3; i++)
            if (strcasecmp(text, words[value][i]) == 0) {
                *ret = value;
                return 0;
            }
    return -EINVAL;
}

static int parse_int(const char *text, int64_t *ret)
{
    static const struct unit units[] = {{"", 1}, {NULL, 0}};

    return parse_number_with_unit(text, units, ret);
}

static int set_text(const struct conf_key *k, void *conf, const char *value, const char *where, struct err *err)
{
    size_t n = strlen(value);

    if (n >= k->size)
        return err_set(err, -ERANGE, "%s: %s is %zu bytes long, the limit is %zu", where, k->key, n, k->size - 1);
    if ((int64_t)n < k->min)
        return err_set(err, -ERANGE, "%s: %s must not be empty (%s)", where, k->key, k->help);
    memcpy((char *)conf + k->offset, value, n + 1);
    return 0;
}

static int set_key(const struct conf_key *k, void *conf, const char *value, const char *where, struct err *err)
{
    static const struct {
        int (*parse)(const char *, int64_t *);
        const char *form;
    } kinds[] = {[CONF_INT] = {parse_int, "a whole number"},
                 [CONF_BOOL] = {parse_bool, "yes or no"},
                 [CONF_DURATION] = {conf_parse_duration, "a duration such as 500ms, 30s, 5m"},
                 [CONF_SIZE] = {conf_parse_size, "a size such as 4096, 64MiB, 8GiB"}};
    void *field = (char *)conf + k->offset;
    int64_t n = 0;

    if (k->type == CONF_TEXT)
        return set_text(k, conf, value, where, err);
    assert(kinds[k->type].parse);
    if (kinds[k->type].parse(value, &n) < 0)
        return err_set(err, -EINVAL, "%s: %s = %s: %s is wanted", where, k->key, value, kinds[k->type].form);
    if (k->type == CONF_BOOL) {
        *(bool *)field = n != 0;
        return 0;
    }
    if (n < k->min || (k->max && n > k->max))
        return err_set(err, -ERANGE, "%s: %s = %s is out of range (%lld to %lld)", where, k->key, value,
                       (long long)k->min, (long long)(k->max ? k->max : INT64_MAX));
    memcpy(field, &n, sizeof(n));
    return 0;
}

int conf_set(const struct conf_key *table, void *conf, const char *key, const char *value, const char *where,
             struct err *err)
{
    for (const struct conf_key *k = table; k->key; k++)
        if (strcmp(k->key, key) == 0)
            return set_key(k, conf, value, where, err);
    return err_set(err, -EINVAL, "%s: unknown key \"%s\" (-h lists the keys)", where, key);
}

struct load_state {
    const struct conf_key *table;
    void *conf;
    const char *path;
    struct err *err;
    bool *seen;
    int rc;
};

static int load_line(void *user, const char *section, const char *name, const char *value)
{
    struct load_state *s = user;

    if (s->rc < 0)
        return 0;
    if (section[0]) {
        s->rc = err_set(s->err, -EINVAL, "%s: section [%s]: this file has no sections", s->path, section);
        return 0;
    }
    s->rc = conf_set(s->table, s->conf, name, value, s->path, s->err);
    for (size_t i = 0; s->rc == 0 && s->table[i].key; i++)
        if (strcmp(s->table[i].key, name) == 0)
            s->seen[i] = true;
    return s->rc == 0;
}

static int check_complete(const struct load_state *s)
{
    for (size_t i = 0; s->table[i].key; i++)
        if (!s->seen[i] && !s->table[i].default_value)
            return err_set(s->err, -EINVAL, "%s: %s is missing (%s)", s->path ? s->path : "configuration",
                           s->table[i].key, s->table[i].help);
    return 0;
}

int conf_load(const struct conf_key *table, void *conf, const char *path, struct err *err)
{
    bool seen[128] = {false};
    struct load_state s = {.table = table, .conf = conf, .path = path, .err = err, .seen = seen};
    int rc;

    for (const struct conf_key *k = table; k->key; k++) {
        if (!k->default_value)
            continue;
        rc = set_key(k, conf, k->default_value, "default", err);
        if (rc < 0)
            return rc;
    }
    if (!path)
        return check_complete(&s);
    rc = ini_parse(path, load_line, &s);
    if (rc == -1)
        return err_set(err, -ENOENT, "%s: cannot read the configuration file", path);
    if (s.rc < 0) {
        if (rc > 0)
            return err_prefix(err, s.rc, "line %d", rc);
        return s.rc;
    }
    if (rc != 0)
        return err_set(err, -EINVAL, "%s: line %d is not \"key = value\"", path, rc);
    return check_complete(&s);
}

void conf_print_help(const struct conf_key *table, FILE *out)
{
    static const char *const kinds[] = {"text", "number", "yes/no", "duration", "size"};

    for (const struct conf_key *k = table; k->key; k++) {
        fprintf(out, "# %s (%s)\n", k->help, kinds[k->type]);
        if (k->default_value)
            fprintf(out, "%s = %s\n", k->key, k->default_value);
        else
            fprintf(out, "# %s must be given\n", k->key);
    }
}
