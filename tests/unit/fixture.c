#include "tests/unit/fixture.h"

#include "base/clock.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void fixture_open(struct fixture_file *g, const char *path)
{
    struct err err = {""};
    uint64_t n;

    *g = (struct fixture_file){0};
    if (file_map(path, &g->map, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(g->map.size_bytes > 8);
    memcpy(&n, g->map.data, 8);
    assert_true(n <= g->map.size_bytes - 8);
    g->header = json_loadb((const char *)g->map.data + 8, n, 0, NULL);
    assert_non_null(g->header);
    g->data = g->map.data + 8 + n;
    g->data_bytes = g->map.size_bytes - 8 - n;
}

void fixture_close(struct fixture_file *g)
{
    json_decref(g->header);
    file_unmap(&g->map);
    *g = (struct fixture_file){0};
}

struct fixture_tensor fixture_tensor(const struct fixture_file *g, const char *name)
{
    struct fixture_tensor t = {0};
    json_t *entry = json_object_get(g->header, name), *shape = json_object_get(entry, "shape"),
           *offsets = json_object_get(entry, "data_offsets");
    size_t from, to;

    if (!entry)
        fail_msg("no golden tensor %s", name);
    (void)snprintf(t.dtype, sizeof(t.dtype), "%s", json_string_value(json_object_get(entry, "dtype")));
    t.n_dims = (int)json_array_size(shape);
    assert_in_range(t.n_dims, 0, FIXTURE_MAX_DIMS);
    for (int i = 0; i < t.n_dims; i++)
        t.shape[i] = (size_t)json_integer_value(json_array_get(shape, (size_t)i));
    from = (size_t)json_integer_value(json_array_get(offsets, 0));
    to = (size_t)json_integer_value(json_array_get(offsets, 1));
    assert_true(from <= to && to <= g->data_bytes);
    t.data = g->data + from;
    t.size_bytes = to - from;
    return t;
}

json_t *fixture_json(const char *path)
{
    json_error_t error;
    json_t *j = json_load_file(path, 0, &error);

    if (!j)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return j;
}

void fixture_bytes(const char *path, struct buf *ret)
{
    struct err err = {""};

    buf_clear(ret);
    if (file_read(path, (size_t)1 << 30, ret, &err) < 0)
        fail_msg("%s", err.text);
}

uint64_t fixture_seed(const char *test)
{
    const char *given = getenv("BLIPLINE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)clock_wall_ms();

    printf("%s: seed %llu (BLIPLINE_TEST_SEED)\n", test, (unsigned long long)seed);
    return seed;
}

uint64_t fixture_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}
