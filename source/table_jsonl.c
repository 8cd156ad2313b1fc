/* table_jsonl.c - JSON Lines: one object per line, as Python's json module writes and reads them.
 *
 * Python allows more than JSON: NaN and Infinity, lone surrogates, numbers of any size, and repeated keys (the last
 * one counts). yajl passes numbers on as written and strings with their length. The input of yajl is changed for the
 * rest: NaN and Infinity become null, and an escape that is not a character becomes TABLE_NO_CHARACTER, which is an
 * error only in a column that is used. */
#include "source/table.h"

#include "base/grow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

/* A member of the row. Its values are values[first ... first + n]. */
struct member {
    const char *name;
    size_t first;
    uint32_t n;
    bool is_nested; /* neither text, a number, nor a list of these */
};

struct jsonl_state {
    struct table *table;
    yajl_handle parser; /* of the current row */
    struct member *members;
    size_t n_members, members_capacity;
    struct table_value *values;
    size_t n_values, values_capacity;
    uint32_t depth; /* 1: inside the row's object, 2: inside one of its values, etc. */
    bool in_list;   /* at depth 2: inside a list */
    bool is_other;  /* the line's value is not an object */
    bool no_memory;
};

/* -- yajl's callbacks -- */

static int out_of_memory(struct jsonl_state *s)
{
    s->no_memory = true;
    return 0;
}

static int no_object(struct jsonl_state *s)
{
    s->is_other = true;
    return 0;
}

static int add_value(struct jsonl_state *s, const char *text, size_t n)
{
    struct member *m = s->n_members ? &s->members[s->n_members - 1] : NULL;
    char *kept;

    if (s->depth == 0 || !m) /* a value within an object follows a key */
        return no_object(s);
    if (s->depth > 2 || (s->depth == 2 && !s->in_list))
        return 1;
    kept = table_keep(s->table, n ? text : "", n);
    if (!kept || grow_array(&s->values, &s->values_capacity, s->n_values, sizeof(*s->values), 64) < 0)
        return out_of_memory(s);
    s->values[s->n_values++] = (struct table_value){.text = kept, .bytes = n};
    m->n++;
    return 1;
}

static int on_null(void *state)
{
    struct jsonl_state *s = state;

    return s->depth == 0 ? no_object(s) : 1;
}

static int on_boolean(void *state, int value)
{
    return add_value(state, value ? "true" : "false", value ? 4 : 5);
}

static int on_number(void *state, const char *text, size_t n)
{
    return add_value(state, text, n);
}

static int on_string(void *state, const unsigned char *text, size_t n)
{
    return add_value(state, (const char *)text, n);
}

static int on_key(void *state, const unsigned char *text, size_t n)
{
    struct jsonl_state *s = state;
    char *name;

    if (s->depth != 1)
        return 1;
    name = table_keep(s->table, n ? (const char *)text : "", n);
    if (!name || grow_array(&s->members, &s->members_capacity, s->n_members, sizeof(*s->members), 16) < 0)
        return out_of_memory(s);
    s->members[s->n_members++] = (struct member){.name = name, .first = s->n_values};
    return 1;
}

static int begin_map(void *state)
{
    struct jsonl_state *s = state;

    if (s->depth > 0)
        s->members[s->n_members - 1].is_nested = true;
    if (s->depth == 1)
        s->in_list = false;
    s->depth++;
    return 1;
}

static int begin_list(void *state)
{
    struct jsonl_state *s = state;

    if (s->depth == 0)
        return no_object(s);
    if (s->depth == 1)
        s->in_list = true;
    else
        s->members[s->n_members - 1].is_nested = true;
    s->depth++;
    return 1;
}

static int on_end(void *state)
{
    ((struct jsonl_state *)state)->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {.yajl_null = on_null,
                                         .yajl_boolean = on_boolean,
                                         .yajl_number = on_number,
                                         .yajl_string = on_string,
                                         .yajl_start_map = begin_map,
                                         .yajl_map_key = on_key,
                                         .yajl_end_map = on_end,
                                         .yajl_start_array = begin_list,
                                         .yajl_end_array = on_end};

/* -- yajl's input -- */

static bool feed(struct jsonl_state *s, const char *text, size_t n)
{
    return n == 0 || yajl_parse(s->parser, (const unsigned char *)text, n) == yajl_status_ok;
}

/* The number after \u, or -1. */
static int escaped_unit(const char *at, const char *end)
{
    int unit = 0;

    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *found = at[i] ? strchr(digits, at[i]) : NULL;

        if (!found)
            return -1;
        unit = unit * 16 + (int)((found - digits) & 15);
    }
    return unit;
}

/* The length of the escape at `at`; *ret_is_character: it is a valid character. */
static size_t escape(const char *at, const char *end, bool *ret_is_character)
{
    int unit = escaped_unit(at, end), next;

    *ret_is_character = true;
    if (unit < 0)
        return end - at < 2 ? 1 : 2;
    *ret_is_character = unit != 0 && (unit < 0xd800 || unit > 0xdfff);
    if (unit < 0xd800 || unit > 0xdbff)
        return 6;
    next = escaped_unit(at + 6, end);
    *ret_is_character = next >= 0xdc00 && next <= 0xdfff;
    return *ret_is_character ? 12 : 6;
}

/* The length of Python's NaN, Infinity or -Infinity at `at`, or 0. */
static size_t no_number(const char *at, const char *end)
{
    static const char *const names[] = {"NaN", "Infinity", "-Infinity"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        size_t n = strlen(names[i]);

        if ((size_t)(end - at) >= n && memcmp(at, names[i], n) == 0)
            return n;
    }
    return 0;
}

static bool parse_line(struct jsonl_state *s, const char *line, size_t n)
{
    const char *end = line + n, *fed = line, *at = line;
    bool in_string = false, fine = true, is_character = true;

    while (fine && at < end) {
        const char *instead = NULL;
        size_t skip = 1;

        if (*at == '"') {
            in_string = !in_string;
        } else if (in_string && *at == '\\') {
            skip = escape(at, end, &is_character);
            instead = is_character ? NULL : "\\ufdd0";
        } else if (!in_string && (*at == 'N' || *at == 'I' || *at == '-')) {
            size_t n_name = no_number(at, end);

            instead = n_name ? "null" : NULL;
            skip = n_name ? n_name : 1;
        }
        if (instead) {
            fine = feed(s, fed, (size_t)(at - fed)) && feed(s, instead, strlen(instead));
            fed = at + skip;
        }
        at += skip;
    }
    return fine && feed(s, fed, (size_t)(end - fed)) && yajl_complete_parse(s->parser) == yajl_status_ok;
}

/* -- rows -- */

static int jsonl_begin(struct table *t, struct err *err)
{
    struct jsonl_state *s = calloc(1, sizeof(*s));

    if (!s)
        return table_error(t, -ENOMEM, err, "no memory");
    s->table = t;
    t->state = s;
    return 0;
}

static int complain(const struct table *t, struct jsonl_state *s, struct err *err)
{
    unsigned char *why;
    int rc;

    if (s->no_memory)
        return table_error(t, -ENOMEM, err, "no memory");
    if (s->is_other)
        return table_error(t, -EINVAL, err, "not a JSON object; a line looks like {\"path\": \"a.jpg\"}");
    why = yajl_get_error(s->parser, 0, NULL, 0);
    rc = table_error(t, -EINVAL, err, "not a JSON object: %.*s", why ? (int)strcspn((char *)why, "\n") : 0,
                     why ? (char *)why : "");
    if (why)
        yajl_free_error(s->parser, why);
    return rc;
}

static int jsonl_next(struct table *t, struct err *err)
{
    struct jsonl_state *s = t->state;
    int rc;

    do {
        t->row_line = t->lines.number + 1;
        rc = lines_next(&t->lines, err);
        if (rc <= 0)
            return rc;
    } while (strspn(t->lines.line, " \t\r\n") == t->lines.bytes);
    s->n_members = s->n_values = s->depth = 0;
    s->is_other = false;
    s->parser = yajl_alloc(&callbacks, NULL, s);
    if (!s->parser)
        return table_error(t, -ENOMEM, err, "no memory");
    (void)yajl_config(s->parser, yajl_dont_validate_strings, 1); /* used strings are checked later */
    rc = parse_line(s, t->lines.line, t->lines.bytes) ? 1 : complain(t, s, err);
    yajl_free(s->parser);
    return rc;
}

static int jsonl_get(struct table *t, const char *column, uint32_t max, struct table_value *ret, uint32_t *ret_n)
{
    const struct jsonl_state *s = t->state;
    const struct member *m = NULL;

    for (size_t i = 0; i < s->n_members; i++)
        if (strcmp(s->members[i].name, column) == 0)
            m = &s->members[i]; /* the last of repeated keys counts */
    if (!m)
        return 0;
    if (m->is_nested)
        return table_bad_row(t, IMAGE_BAD_ROW, "%.60s is neither text, a number, nor a list of these", column);
    if (m->n > max)
        return table_bad_row(t, IMAGE_BAD_ROW, "%.60s: too many values in this row (%u are left for this column)",
                             column, max);
    if (m->n)
        memcpy(ret, &s->values[m->first], m->n * sizeof(*ret));
    *ret_n = m->n;
    return 0;
}

static const char *jsonl_name(const struct table *t, uint32_t i)
{
    const struct jsonl_state *s = t->state;

    return i < s->n_members ? s->members[i].name : NULL;
}

static void jsonl_end(struct table *t)
{
    struct jsonl_state *s = t->state;

    if (!s)
        return;
    free(s->members);
    free(s->values);
    free(s);
}

const struct table_format table_jsonl = {jsonl_begin, jsonl_next, jsonl_get, jsonl_name, jsonl_end};
