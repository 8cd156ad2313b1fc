#include "model/safetensors.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/grow.h"
#include "model/json.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MAX_HEADER_BYTES = 32 << 20, /* about 150 bytes per tensor */
    MAX_INDEX_BYTES = 16 << 20,
    MAX_SHARDS = 4096,
    MAX_NAME_BYTES = 256,
};

static const char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

struct shard {
    const char *name; /* without directory */
    struct file_map map;
    bool mapped; /* false: the caller owns the bytes */
};

struct safetensors {
    struct arena arena; /* names */
    struct shard *shards;
    size_t n_shards;
    struct safetensors_entry *entries; /* sorted by name once open */
    size_t n_entries, capacity;
};

static struct safetensors *new_set(size_t max_shards)
{
    struct safetensors *st = calloc(1, sizeof(*st));

    if (st)
        st->shards = calloc(max_shards ? max_shards : 1, sizeof(*st->shards));
    if (!st || !st->shards) {
        free(st);
        return NULL;
    }
    arena_init(&st->arena, 0);
    return st;
}

void safetensors_free(struct safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_shards; i++)
        if (st->shards[i].mapped)
            file_unmap(&st->shards[i].map);
    free(st->shards);
    free(st->entries);
    arena_release(&st->arena);
    free(st);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int by_address(const void *a, const void *b)
{
    const struct safetensors_entry *const *x = a, *const *y = b;
    const char *p = (*x)->tensor.data, *q = (*y)->tensor.data;

    return p < q ? -1 : p > q ? 1 : strcmp((*x)->name, (*y)->name);
}

static struct safetensors_entry *add_entry(struct safetensors *st)
{
    const int rc = grow_array(&st->entries, &st->capacity, st->n_entries, sizeof(*st->entries), 256);

    return rc < 0 ? NULL : &st->entries[st->n_entries];
}

/* -- one file's header -- */

static int read_shape(const json_t *array, struct tensor *t)
{
    if (!json_is_array(array) || json_array_size(array) > TENSOR_MAX_DIMS)
        return -EINVAL;
    t->n_dims = (int)json_array_size(array);
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *item = json_array_get(array, (size_t)i);

        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return -EINVAL;
        t->shape[i] = json_integer_value(item);
    }
    return 0;
}

static int read_offset(const json_t *array, size_t i, size_t *ret)
{
    const json_t *item = json_array_get(array, i);

    if (!json_is_integer(item) || json_integer_value(item) < 0)
        return -EINVAL;
    *ret = (size_t)json_integer_value(item);
    return 0;
}

/* Reads one tensor's header entry and checks it against the `n_data` bytes of data. */
static int read_entry(const char *file, const char *name, const json_t *v, const unsigned char *data, size_t n_data,
                      struct safetensors_entry *e, struct err *err)
{
    const char *dtype = json_string_value(json_object_get(v, "dtype"));
    const json_t *offsets = json_object_get(v, "data_offsets");
    char shape[96];
    size_t begin, end, want;
    int rc;

    if (strlen(name) >= MAX_NAME_BYTES || name[0] == '\0')
        return err_set(err, -EINVAL, "%s: tensor %.40s...: a name has 1 to %d bytes", file, name, MAX_NAME_BYTES - 1);
    if (!json_is_object(v) || !dtype)
        return err_set(err, -EINVAL, "%s: tensor %s: has no dtype", file, name);
    if (dtype_parse(dtype, &e->tensor.dtype) < 0 || strcmp(dtype, dtype_name(e->tensor.dtype)) != 0 ||
        e->tensor.dtype == DTYPE_F8_E4M3)
        return err_set(err, -EINVAL, "%s: tensor %s: type %.20s is not supported", file, name, dtype);
    if (read_shape(json_object_get(v, "shape"), &e->tensor) < 0)
        return err_set(err, -EINVAL, "%s: tensor %s: shape is not a list of up to %d sizes", file, name,
                       TENSOR_MAX_DIMS);
    if (json_array_size(offsets) != 2 || read_offset(offsets, 0, &begin) < 0 || read_offset(offsets, 1, &end) < 0)
        return err_set(err, -EINVAL, "%s: tensor %s: data_offsets is not a pair of offsets", file, name);
    tensor_shape_text(e->tensor.n_dims, e->tensor.shape, shape, sizeof(shape));
    rc = tensor_size_bytes(&e->tensor, &want);
    if (rc < 0)
        return err_set(err, -EINVAL, "%s: tensor %s: shape %s overflows", file, name, shape);
    if (begin <= end && end > n_data)
        return err_set(err, -EINVAL,
                       "%s: is truncated: tensor %s lies outside, at %zu to %zu of %zu data bytes; download it again",
                       file, name, begin, end, n_data);
    if (begin > end)
        return err_set(err, -EINVAL, "%s: tensor %s: data_offsets %zu to %zu run backwards", file, name, begin, end);
    if (end - begin != want)
        return err_set(err, -EINVAL, "%s: tensor %s: %s %s takes %zu bytes, but data_offsets has %zu", file, name,
                       dtype, shape, want, end - begin);
    e->file = file;
    e->tensor.data = (void *)(uintptr_t)(data + begin);
    e->size_bytes = want;
    return 0;
}

/* Checks that the entries from `first` on, all of one file, do not overlap. */
static int check_overlap(const struct safetensors *st, size_t first, const char *file, struct err *err)
{
    size_t n = st->n_entries - first, m = 0;
    const struct safetensors_entry **order = calloc(n ? n : 1, sizeof(struct safetensors_entry *)); /* by address */
    int rc = 0;

    if (!order)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (st->entries[first + i].size_bytes)
            order[m++] = &st->entries[first + i];
    qsort(order, m, sizeof(struct safetensors_entry *), by_address);
    for (size_t i = 1; i < m && rc == 0; i++)
        if ((const char *)order[i - 1]->tensor.data + order[i - 1]->size_bytes > (const char *)order[i]->tensor.data)
            rc = err_set(err, -EINVAL, "%s: tensors %s and %s overlap", file, order[i - 1]->name, order[i]->name);
    free(order);
    return rc;
}

static int read_header(struct safetensors *st, const struct shard *shard, const json_t *root, const unsigned char *data,
                       size_t n_data, struct err *err)
{
    size_t first = st->n_entries;
    const char *name;
    json_t *v;
    int rc;

    if (!json_is_object(root))
        return err_set(err, -EINVAL, "%s: the header is %s, expected an object", shard->name, json_type_text(root));
    json_object_foreach((json_t *)(uintptr_t)root, name, v)
    {
        struct safetensors_entry *e = add_entry(st);

        if (!e)
            return -ENOMEM;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        *e = (struct safetensors_entry){0};
        rc = read_entry(shard->name, name, v, data, n_data, e, err);
        if (rc < 0)
            return rc;
        e->name = arena_strndup(&st->arena, name, strlen(name));
        if (!e->name)
            return -ENOMEM;
        st->n_entries++;
    }
    return check_overlap(st, first, shard->name, err);
}

static int parse_shard(struct safetensors *st, const struct shard *shard, struct err *err)
{
    const unsigned char *p = shard->map.data;
    size_t size = shard->map.size_bytes;
    static const char pointer[] = "version https://git-lfs";
    uint64_t n_header = 0;
    json_t *root;
    int rc;

    if (size >= sizeof(pointer) - 1 && memcmp(p, pointer, sizeof(pointer) - 1) == 0)
        return err_set(err, -EINVAL,
                       "%s: is a Git LFS pointer, not the weights: run git lfs pull in its folder, or "
                       "download the file",
                       shard->name);
    if (size < 8)
        return err_set(err, -EINVAL, "%s: is truncated: %zu bytes, too short for a safetensors file; download it again",
                       shard->name, size);
    for (int i = 7; i >= 0; i--)
        n_header = n_header << 8 | p[i];
    if (n_header > MAX_HEADER_BYTES)
        return err_set(err, -EFBIG, "%s: a header of %" PRIu64 " bytes, the limit is %d (not a safetensors file?)",
                       shard->name, n_header, MAX_HEADER_BYTES);
    if (n_header > size - 8)
        return err_set(err, -EINVAL,
                       "%s: is truncated: a header of %" PRIu64
                       " bytes is cut short in a file of %zu; download it again",
                       shard->name, n_header, size);
    rc = json_parse_text(p + 8, (size_t)n_header, MAX_HEADER_BYTES, shard->name, &root, err);
    if (rc < 0)
        return rc;
    rc = read_header(st, shard, root, p + 8 + n_header, size - 8 - (size_t)n_header, err);
    json_decref(root);
    return rc;
}

/* -- opening -- */

static int finish(struct safetensors *st, struct err *err)
{
    if (st->n_entries > 1)
        qsort(st->entries, st->n_entries, sizeof(*st->entries), by_name);
    for (size_t i = 1; i < st->n_entries; i++)
        if (strcmp(st->entries[i - 1].name, st->entries[i].name) == 0)
            return err_set(err, -EINVAL, "%s: tensor %s is in %s too", st->entries[i].file, st->entries[i].name,
                           st->entries[i - 1].file);
    return 0;
}

/* adds a message to -ENOMEM, which has none */
static int done(int rc, struct safetensors **st, struct safetensors **ret, const char *name, struct err *err)
{
    if (rc == -ENOMEM)
        rc = err_set(err, rc, "%s: not enough memory for its table of tensors", name);
    if (rc < 0)
        safetensors_free(*st);
    else
        *ret = *st;
    *st = NULL;
    return rc;
}

int safetensors_parse(const void *data, size_t size_bytes, const char *name, struct safetensors **ret, struct err *err)
{
    struct safetensors *st = new_set(1);
    struct shard *shard;
    int rc = -ENOMEM;

    if (!st)
        return done(rc, &st, ret, name, err);
    shard = &st->shards[0];
    shard->name = arena_strndup(&st->arena, name, strlen(name));
    shard->map = (struct file_map){data, size_bytes};
    st->n_shards = 1;
    if (shard->name)
        rc = parse_shard(st, shard, err);
    if (rc == 0)
        rc = finish(st, err);
    return done(rc, &st, ret, name, err);
}

static int add_file(struct safetensors *st, const char *path, const char *name, struct err *err)
{
    struct shard *shard = &st->shards[st->n_shards];
    int rc;

    shard->name = arena_strndup(&st->arena, name, strlen(name));
    if (!shard->name)
        return -ENOMEM;
    rc = file_map(path, &shard->map, err);
    if (rc < 0)
        return rc;
    shard->mapped = true;
    st->n_shards++;
    return parse_shard(st, shard, err);
}

int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err)
{
    const char *slash = strrchr(path, '/');
    struct safetensors *st = new_set(1);
    int rc = -ENOMEM;

    if (st)
        rc = add_file(st, path, slash ? slash + 1 : path, err);
    if (rc == 0)
        rc = finish(st, err);
    return done(rc, &st, ret, path, err);
}

static bool is_plain_file_name(const char *s)
{
    const size_t n = strlen(s), tail = strlen(".safetensors");

    return n > tail && n < 200 && s[0] != '.' && !strchr(s, '/') && strcmp(s + n - tail, ".safetensors") == 0;
}

static int by_text(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

/* Lists the distinct file names in the map; each must be a plain name in the checkpoint's directory. */
static int list_shards(const json_t *map, const char ***ret_names, size_t *ret_n, struct err *err)
{
    size_t n = 0, unique = 0, size = json_object_size(map);
    const char **names, *key;
    json_t *v;

    if (size == 0)
        return err_set(err, -EINVAL, "%s: weight_map names no tensor", index_name);
    names = calloc(size, sizeof(char *));
    if (!names)
        return -ENOMEM;
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        const char *file = json_string_value(v);

        if (!file || !is_plain_file_name(file)) {
            int rc = err_set(err, -EINVAL, "%s: tensor %.200s: \"%.100s\" is not a shard's file name", index_name, key,
                             file ? file : json_type_text(v));
            free(names);
            return rc;
        }
        names[n++] = file;
    }
    qsort(names, n, sizeof(char *), by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[unique - 1], names[i]) != 0)
            names[unique++] = names[i];
    if (unique > MAX_SHARDS) {
        free(names);
        return err_set(err, -EINVAL, "%s: %zu shards, the limit is %d", index_name, unique, MAX_SHARDS);
    }
    *ret_names = names;
    *ret_n = unique;
    return 0;
}

static int open_shard(struct safetensors *st, const char *dir, const char *name, struct err *err)
{
    char path[PATH_MAX];
    int rc;

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return err_set(err, -ENAMETOOLONG, "%s/%s: path too long", dir, name);
    rc = add_file(st, path, name, err);
    if (rc == -ENOENT)
        rc = err_set(err, rc, "%s: is missing, but %s names it; fetch the checkpoint again", path, index_name);
    return rc;
}

/* Checks that the index and the shards agree. */
static int check_index(const struct safetensors *st, const json_t *map, struct err *err)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        const struct safetensors_entry *e = safetensors_find(st, key);

        if (!e || strcmp(e->file, json_string_value(v)) != 0)
            return err_set(err, -EINVAL, "%s: tensor %.200s should be in %s, but is %s%s", index_name, key,
                           json_string_value(v), e ? "in " : "missing", e ? e->file : "");
    }
    for (size_t i = 0; i < st->n_entries; i++)
        if (!json_object_get(map, st->entries[i].name))
            return err_set(err, -EINVAL, "%s: tensor %s is not in %s", st->entries[i].file, st->entries[i].name,
                           index_name);
    return 0;
}

static int open_index(const char *dir, const struct buf *text, struct safetensors **ret, struct err *err)
{
    struct safetensors *st = NULL;
    const char **names = NULL;
    const json_t *map;
    json_t *root = NULL;
    size_t n = 0;
    int rc = json_parse_text(text->data, text->size_bytes, MAX_INDEX_BYTES, index_name, &root, err);

    if (rc < 0)
        return rc;
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map))
        rc = err_set(err, -EINVAL, "%s: weight_map is %s, expected an object", index_name, json_type_text(map));
    if (rc == 0)
        rc = list_shards(map, &names, &n, err);
    if (rc == 0) {
        st = new_set(n);
        rc = st ? 0 : -ENOMEM;
    }
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = open_shard(st, dir, names[i], err);
    if (rc == 0)
        rc = finish(st, err);
    if (rc == 0)
        rc = check_index(st, map, err);
    free(names);
    json_decref(root);
    return done(rc, &st, ret, index_name, err);
}

int safetensors_open(const char *dir, struct safetensors **ret, struct err *err)
{
    char single[PATH_MAX], index[PATH_MAX];
    struct buf text = {0};
    int rc;

    if (snprintf(single, sizeof(single), "%s/%s", dir, single_name) >= (int)sizeof(single) ||
        snprintf(index, sizeof(index), "%s/%s", dir, index_name) >= (int)sizeof(index))
        return err_set(err, -ENAMETOOLONG, "%s: path too long", dir);
    if (access(single, F_OK) == 0) /* as in transformers */
        return safetensors_open_file(single, ret, err);
    if (access(index, F_OK) < 0)
        return err_set(err, -ENOENT, "%s: has neither %s nor %s; fetch the checkpoint in safetensors form", dir,
                       single_name, index_name);
    rc = file_read(index, MAX_INDEX_BYTES, &text, err);
    if (rc == 0)
        rc = open_index(dir, &text, ret, err);
    if (rc < 0 && rc != -ENAMETOOLONG && err && !strstr(err->text, dir))
        rc = err_prefix(err, rc, "%s", dir);
    buf_release(&text);
    return rc;
}

/* -- use -- */

size_t safetensors_count(const struct safetensors *st)
{
    return st->n_entries;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *st, size_t i)
{
    return &st->entries[i];
}

const struct safetensors_entry *safetensors_find(const struct safetensors *st, const char *name)
{
    struct safetensors_entry key = {.name = name};

    return st->n_entries ? bsearch(&key, st->entries, st->n_entries, sizeof(key), by_name) : NULL;
}

static void drop_range(const struct safetensors *st, const void *data, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data, end = begin + n;

    for (size_t i = 0; i < st->n_shards; i++) {
        uintptr_t map = (uintptr_t)st->shards[i].map.data;

        /* Only for file maps: elsewhere this would discard the data. Neighbours on shared pages are read again. */
        if (!st->shards[i].mapped || begin < map || end > map + st->shards[i].map.size_bytes)
            continue;
        begin &= ~(page - 1);
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* only advice */
        return;
    }
}

void safetensors_drop(const struct safetensors *st, const char *name)
{
    const struct safetensors_entry *e = safetensors_find(st, name);

    if (e && e->size_bytes)
        drop_range(st, e->tensor.data, e->size_bytes);
}
