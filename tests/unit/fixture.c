#include "tests/unit/fixture.h"

#include "base/clock.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

static void inflate_file(const char *path, struct buf *ret)
{
    gzFile f = gzopen(path, "rb");
    int n;

    if (!f)
        fail_msg("%s: cannot open", path);
    do {
        assert_int_equal(buf_reserve(ret, 1 << 20), 0);
        n = gzread(f, ret->data + ret->size_bytes, 1 << 20);
        assert_true(n >= 0);
        ret->size_bytes += (size_t)n;
    } while (n > 0);
    assert_int_equal(gzclose(f), Z_OK);
}

void fixture_open(struct fixture_file *g, const char *path)
{
    const size_t length = strlen(path);
    struct err err = {""};
    const uint8_t *data;
    size_t size;
    uint64_t n;

    *g = (struct fixture_file){0};
    buf_init(&g->inflated, 0);
    if (length > 3 && strcmp(path + length - 3, ".gz") == 0) {
        inflate_file(path, &g->inflated);
        data = g->inflated.data;
        size = g->inflated.size_bytes;
    } else {
        if (file_map(path, &g->map, &err) < 0)
            fail_msg("%s", err.text);
        data = g->map.data;
        size = g->map.size_bytes;
    }
    assert_true(size > 8);
    memcpy(&n, data, 8);
    assert_true(n <= size - 8);
    g->header = json_loadb((const char *)data + 8, n, 0, NULL);
    assert_non_null(g->header);
    g->data = data + 8 + n;
    g->data_bytes = size - 8 - n;
}

void fixture_close(struct fixture_file *g)
{
    json_decref(g->header);
    file_unmap(&g->map);
    buf_release(&g->inflated);
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
    if (!given) { /* what is loaded later (tests/emulator) takes the same */
        char text[24];

        snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
        setenv("BLIPLINE_TEST_SEED", text, 1);
    }
    return seed;
}

uint64_t fixture_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

enum cpu_isa fixture_cpu_isa(void)
{
    const char *name = getenv("BLIPLINE_TEST_CPU_ISA");
    enum cpu_isa isa = CPU_ISA_AUTO;
    struct err err;

    if (name && cpu_isa_choose(name, &isa, &err) < 0)
        fail_msg("BLIPLINE_TEST_CPU_ISA: %s", err.text);
    return isa;
}
