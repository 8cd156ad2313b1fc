#include "model/safetensors.h"

#include "base/file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/blipline-safetensors-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

/* 8 bytes of header length (-1: the right one), header, n_data bytes 0, 1, 2... */
static size_t build(unsigned char *out, int64_t n_header, const char *header, size_t n_data)
{
    uint64_t n = n_header < 0 ? strlen(header) : (uint64_t)n_header;
    size_t at = 8 + strlen(header);

    for (int i = 0; i < 8; i++)
        out[i] = (unsigned char)(n >> (8 * i));
    memcpy(out + 8, header, strlen(header));
    for (size_t i = 0; i < n_data; i++)
        out[at + i] = (unsigned char)i;
    return at + n_data;
}

static void put(const char *name, const void *data, size_t n)
{
    char path[160];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(file_write_atomic(path, data, n, NULL), 0);
}

static void put_tensors(const char *name, const char *header, size_t n_data)
{
    unsigned char bytes[1024];

    put(name, bytes, build(bytes, -1, header, n_data));
}

static void test_safetensors_reads_types_shapes_and_bytes(void **state)
{
    unsigned char bytes[1024];
    size_t n = build(bytes, -1,
                     "{\"__metadata__\":{\"format\":\"pt\"},"
                     "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                     "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                     "\"c\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[16,16]},"
                     "\"d\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[18,20]}}   ",
                     20); /* two bytes in nobody's tensor are fine */
    struct safetensors *st = NULL;
    const struct safetensors_entry *e;
    struct err err = {""};

    (void)state;
    if (safetensors_parse(bytes, n, "x.safetensors", &st, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(safetensors_count(st), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(safetensors_at(st, (size_t)i)->name[0], 'a' + i);
    e = safetensors_find(st, "b");
    assert_non_null(e);
    assert_int_equal(e->tensor.dtype, DTYPE_F16);
    assert_int_equal(e->tensor.n_dims, 2);
    assert_int_equal(e->tensor.shape[0], 2);
    assert_int_equal(e->tensor.shape[1], 3);
    assert_int_equal(e->size_bytes, 12);
    assert_int_equal(((unsigned char *)e->tensor.data)[0], 4);
    assert_string_equal(e->file, "x.safetensors");
    assert_int_equal(safetensors_find(st, "a")->tensor.n_dims, 0);
    assert_null(safetensors_find(st, "e"));
    assert_null(safetensors_find(st, "__metadata__"));
    safetensors_drop(st, "b"); /* bytes that are the caller's are never touched */
    assert_int_equal(((unsigned char *)e->tensor.data)[0], 4);
    safetensors_free(st);
}

#define ONE(body) "{\"tensor.q\":{" body "}}"

static void test_safetensors_hostile_headers_are_refused_by_name(void **state)
{
    static const struct {
        int64_t n_header;
        const char *header;
        size_t n_data;
        const char *name;
    } cases[] = {
        {1000, "{}", 0, "cut short"},
        {INT64_MAX, "{}", 0, "limit"},
        {(64 << 20), "{}", 0, "limit"},
        {0, "", 0, "JSON"},
        {-1, "[]", 0, "array"},
        {-1, "{\"tensor.q\":", 0, "JSON"},
        {-1, "{\"tensor.q\":7}", 0, "tensor.q"},
        {-1, ONE("\"shape\":[1],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]"), 8, "F64"},
        {-1, ONE("\"dtype\":\"fp32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, "fp32"},
        {-1, ONE("\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":7,\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]"), 4, "overflow"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), 4, "overflow"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]"), 8, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]"), 7, "outside"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 8, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]"), 8, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]"), 8, "tensor.q"},
        {-1, ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775804,9223372036854775807]"), 8,
         "outside"},
        {-1,
         "{\"tensor.q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"tensor.r\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "tensors tensor.q and tensor.r overlap"},
        {-1,
         "{\"tensor.q\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
         "\"tensor.r\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         12, "overlap"},
        {-1,
         "{\"tensor.q\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"tensor.q\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "tensor.q"},
        {-1, "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "name"},
    };
    unsigned char bytes[2048];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = build(bytes, cases[i].n_header, cases[i].header, cases[i].n_data);
        struct safetensors *st = NULL;
        struct err err = {""};

        if (safetensors_parse(bytes, n, "x.safetensors", &st, &err) == 0)
            fail_msg("case %zu is accepted", i);
        assert_null(st);
        if (!strstr(err.text, "x.safetensors") || !strstr(err.text, cases[i].name))
            fail_msg("case %zu: \"%s\" does not name %s", i, err.text, cases[i].name);
    }
    for (size_t n = 0; n < 8; n++) {
        struct safetensors *st = NULL;
        struct err err = {""};

        assert_int_equal(safetensors_parse(bytes, n, "x.safetensors", &st, &err), -EINVAL);
        assert_non_null(strstr(err.text, "x.safetensors"));
    }
}

static void test_safetensors_deep_header_is_refused(void **state)
{
    unsigned char *bytes = malloc(200000);
    char *header = malloc(100001);
    struct safetensors *st = NULL;
    struct err err = {""};

    (void)state;
    assert_true(bytes && header);
    memset(header, '[', 100000);
    header[100000] = '\0';
    assert_int_equal(safetensors_parse(bytes, build(bytes, -1, header, 0), "x.safetensors", &st, &err), -EINVAL);
    assert_non_null(strstr(err.text, "deeper"));
    free(header);
    free(bytes);
}

#define TENSOR(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void put_index(const char *map)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), "{\"metadata\":{},\"weight_map\":%s}", map);
    put("model.safetensors.index.json", text, strlen(text));
}

static void test_safetensors_shards_are_one_set(void **state)
{
    struct safetensors *st = NULL;
    struct err err = {""};

    (void)state;
    put_tensors("s1.safetensors", TENSOR("b"), 4);
    put_tensors("s2.safetensors", TENSOR("a"), 4);
    put_index("{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}");
    if (safetensors_open(dir, &st, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(safetensors_count(st), 2);
    assert_string_equal(safetensors_find(st, "a")->file, "s2.safetensors");
    assert_string_equal(safetensors_at(st, 1)->file, "s1.safetensors");
    safetensors_drop(st, "a");
    safetensors_drop(st, "no such tensor");
    assert_int_equal(((unsigned char *)safetensors_find(st, "a")->tensor.data)[3], 3); /* read again */
    safetensors_free(st);
}

static void test_safetensors_index_and_shards_must_agree(void **state)
{
    static const struct {
        const char *map, *name;
    } cases[] = {
        {"{}", "weight_map"},
        {"[]", "weight_map"},
        {"null", "weight_map"},
        {"{\"a\":7}", "tensor a"},
        {"{\"a\":\"\"}", "tensor a"},
        {"{\"a\":\"../s2.safetensors\"}", "../s2.safetensors"},
        {"{\"a\":\"/etc/passwd\"}", "/etc/passwd"},
        {"{\"a\":\"sub/s2.safetensors\"}", "sub/s2.safetensors"},
        {"{\"a\":\"..\"}", "\"..\""},
        {"{\"a\":\"model.bin\"}", "model.bin"},
        {"{\"a\":\"missing.safetensors\"}", "missing.safetensors"},
        {"{\"a\":\"s2.safetensors\"}", ""},
        {"{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\"}", "tensor a"},
        {"{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s1.safetensors\"}", "tensor c"},
        {"{\"b\":\"s2.safetensors\",\"a\":\"s1.safetensors\"}", "should be in"},
        {"{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\",\"d\":\"s3.safetensors\"}", "tensor b"}, /* in s1 and s3 */
        {"{\"e\":\"s4.safetensors\"}", "tensor f"},                                                   /* s4 has f too */
    };

    (void)state;
    put_tensors("s1.safetensors", TENSOR("b"), 4);
    put_tensors("s2.safetensors", TENSOR("a"), 4);
    put_tensors("s3.safetensors", TENSOR("b"), 4);
    put_tensors("s4.safetensors",
                "{\"e\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                "\"f\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                2);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct safetensors *st = NULL;
        struct err err = {""};

        put_index(cases[i].map);
        if (strcmp(cases[i].name, "") == 0) { /* a control: this one is fine */
            assert_int_equal(safetensors_open(dir, &st, &err), 0);
            safetensors_free(st);
            continue;
        }
        if (safetensors_open(dir, &st, &err) == 0)
            fail_msg("case %zu is accepted: %s", i, cases[i].map);
        if (!strstr(err.text, cases[i].name) || !strstr(err.text, dir))
            fail_msg("case %zu: \"%s\" does not name %s", i, err.text, cases[i].name);
    }
}

static void test_safetensors_missing_files_are_named(void **state)
{
    struct safetensors *st = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(safetensors_open("/nonexistent", &st, &err), -ENOENT);
    assert_non_null(strstr(err.text, "model.safetensors.index.json"));
    assert_int_equal(safetensors_open_file("/nonexistent.safetensors", &st, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent.safetensors"));
    put("model.safetensors", "", 0);
    assert_int_equal(safetensors_open(dir, &st, &err), -EINVAL);
    assert_non_null(strstr(err.text, "model.safetensors"));
}

/* Every prefix of a good file is refused or read without touching what is not there (a sanitizer build sees that). */
static void test_safetensors_truncated_files_are_refused(void **state)
{
    unsigned char bytes[512];
    size_t n = build(bytes, -1, TENSOR("a"), 4);

    (void)state;
    for (size_t k = 0; k < n; k++) {
        unsigned char *exact = malloc(k ? k : 1);
        struct safetensors *st = NULL;

        assert_non_null(exact);
        memcpy(exact, bytes, k);
        assert_int_equal(safetensors_parse(exact, k, "x.safetensors", &st, NULL), -EINVAL);
        free(exact);
    }
}

static void test_safetensors_golden_files_open(void **state)
{
    struct safetensors *st = NULL;
    const struct safetensors_entry *e;
    struct err err = {""};

    (void)state;
    if (safetensors_open("models/blip2-opt-demo", &st, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(safetensors_count(st), 259);
    e = safetensors_find(st, "query_tokens");
    assert_true(e && tensor_shape_is(&e->tensor, 3, (int64_t[]){1, 16, 192}) && e->tensor.dtype == DTYPE_F16);
    safetensors_free(st);
    if (safetensors_open_file("tests/golden/opt_a/expected.safetensors", &st, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(safetensors_find(st, "language_projection")->tensor.dtype, DTYPE_F32);
    safetensors_free(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_reads_types_shapes_and_bytes),
        cmocka_unit_test(test_safetensors_hostile_headers_are_refused_by_name),
        cmocka_unit_test(test_safetensors_deep_header_is_refused),
        cmocka_unit_test_setup_teardown(test_safetensors_shards_are_one_set, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_safetensors_index_and_shards_must_agree, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_safetensors_missing_files_are_named, make_dir, remove_dir),
        cmocka_unit_test(test_safetensors_truncated_files_are_refused),
        cmocka_unit_test(test_safetensors_golden_files_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
