#include "base/conf.h"

#include "base/ini.h"
#include "base/nearest.h"
#include "base/page.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_KEYS = 128 };

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

char *conf_size_text(uint64_t bytes, char ret[CONF_SIZE_TEXT])
{
    static const char *const names[] = {" bytes", "KiB", "MiB", "GiB", "TiB"};
    int i = 0;

    for (; i < 4 && bytes >= 1024 && bytes % 1024 == 0; i++)
        bytes /= 1024;
    (void)snprintf(ret, CONF_SIZE_TEXT, "%" PRIu64 "%s", bytes, names[i]);
    return ret;
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

static int set_text(const struct conf_key *k, void *conf, const char *value, struct err *err)
{
    size_t n = strlen(value);

    if (n >= k->size)
        return err_set(err, -ERANGE, "%s is %zu bytes long, the limit is %zu", k->key, n, k->size - 1);
    if ((int64_t)n < k->min)
        return err_set(err, -ERANGE, "%s must not be empty (%s)", k->key, k->help);
    memcpy((char *)conf + k->offset, value, n + 1);
    return 0;
}

/* Formats `n` in the unit of the key. */
static const char *number_text(const struct conf_key *k, int64_t n, char ret[CONF_SIZE_TEXT])
{
    static const struct unit units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    const struct unit *u = units;

    if (k->type == CONF_SIZE)
        return conf_size_text((uint64_t)n, ret);
    if (k->type != CONF_DURATION) {
        (void)snprintf(ret, CONF_SIZE_TEXT, "%" PRId64, n);
        return ret;
    }
    while (u->factor > 1 && (n == 0 || n % u->factor))
        u++;
    (void)snprintf(ret, CONF_SIZE_TEXT, "%" PRId64 "%s", n / u->factor, u->suffix);
    return ret;
}

static int set_key(const struct conf_key *k, void *conf, const char *value, struct err *err)
{
    static const struct {
        int (*parse)(const char *, int64_t *);
        const char *form;
    } kinds[] = {[CONF_INT] = {parse_int, "a whole number"},
                 [CONF_BOOL] = {parse_bool, "yes or no"},
                 [CONF_DURATION] = {conf_parse_duration, "a duration such as 500ms, 30s, 5m"},
                 [CONF_SIZE] = {conf_parse_size, "a size such as 4096, 64MiB, 8GiB"}};
    void *field = (char *)conf + k->offset;
    char least[CONF_SIZE_TEXT], most[CONF_SIZE_TEXT];
    int64_t n = 0;

    if (k->type == CONF_TEXT)
        return set_text(k, conf, value, err);
    assert(kinds[k->type].parse);
    if (kinds[k->type].parse(value, &n) < 0)
        return err_set(err, -EINVAL, "%s = %s: expected %s", k->key, value, kinds[k->type].form);
    if (k->type == CONF_BOOL) {
        *(bool *)field = n != 0;
        return 0;
    }
    if (n < k->min || (k->max && n > k->max))
        return err_set(err, -ERANGE, "%s = %s is out of range (%s%s%s)", k->key, value, number_text(k, k->min, least),
                       k->max ? " to " : " or more", k->max ? number_text(k, k->max, most) : "");
    memcpy(field, &n, sizeof(n));
    return 0;
}

static const struct conf_key *find_key(const struct conf_key *table, const char *key)
{
    while (table->key && strcmp(table->key, key) != 0)
        table++;
    return table->key ? table : NULL;
}

int conf_set(const struct conf_key *table, void *conf, const char *key, const char *value, struct err *err)
{
    const struct conf_key *k = find_key(table, key);
    const char *words[MAX_KEYS + 1];
    char hint[96];
    size_t n = 0;

    if (k)
        return set_key(k, conf, value, err);
    for (k = table; k->key && n < MAX_KEYS; k++)
        words[n++] = k->key;
    words[n] = NULL;
    return err_set(err, -EINVAL, "unknown key \"%.60s\"%s (--help lists the keys)", key,
                   nearest_hint("", key, words, hint, sizeof(hint)));
}

struct reading {
    const struct conf_key *table;
    void *conf;
    unsigned seen[MAX_KEYS]; /* the line of each key of the table; 0: none */
};

static int take(void *arg, const char *section, const char *key, const char *value, unsigned line, const char *at,
                struct err *err)
{
    struct reading *r = arg;
    const struct conf_key *k = find_key(r->table, key);
    int rc;

    (void)section;
    if (k && r->seen[k - r->table])
        return err_set(err, -EINVAL, "%s: %s is already set in line %u", at, key, r->seen[k - r->table]);
    rc = conf_set(r->table, r->conf, key, value, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s", at);
    r->seen[k - r->table] = line;
    return 0;
}

static int read_file(struct reading *r, const char *path, struct err *err)
{
    const struct ini_reader how = {.value = take, .arg = r};
    FILE *file = fopen(path, "re");
    int rc;

    if (!file)
        return err_set(err, -ENOENT, "%s: cannot read the configuration file: %s", path, strerror(errno));
    rc = ini_read(file, path, &how, err);
    (void)fclose(file);
    return rc;
}

int conf_load(const struct conf_key *table, void *conf, const char *path, struct err *err)
{
    struct reading r = {.table = table, .conf = conf};
    int rc = 0;

    for (const struct conf_key *k = table; k->key && rc == 0; k++) {
        assert(k - table < MAX_KEYS);
        if (k->default_value)
            rc = set_key(k, conf, k->default_value, err);
    }
    if (rc < 0)
        return err_prefix(err, rc, "default");
    if (path)
        rc = read_file(&r, path, err);
    for (const struct conf_key *k = table; k->key && rc == 0; k++)
        if (!k->default_value && !r.seen[k - table])
            rc = err_set(err, -EINVAL, "%s: %s is missing (%s)", path ? path : "configuration", k->key, k->help);
    return rc;
}

bool conf_user_path(const char *name, char ret[PATH_MAX])
{
    const char *home = getenv("HOME");

    return home && home[0] && snprintf(ret, PATH_MAX, "%s/.config/blipline/%s", home, name) < PATH_MAX;
}

void conf_print_help(const struct conf_key *table, FILE *out)
{
    static const char *const kinds[] = {"text", "number", "yes/no", "duration", "size"};

    for (const struct conf_key *k = table; k->key; k++) {
        char help[512];

        (void)snprintf(help, sizeof(help), "%s (%s)", k->help, kinds[k->type]);
        page_comment(help, out);
        if (k->default_value)
            fprintf(out, "%s = %s\n", k->key, k->default_value);
        else
            fprintf(out, "# %s must be given\n", k->key);
    }
}
