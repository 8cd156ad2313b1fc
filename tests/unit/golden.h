/* golden.h - tensors of the golden files, for tests.
 *
 * Paths are relative to the project's root, where tests run. Everything here fails the running test instead of
 * returning errors. Units: bytes. Memory: golden_open maps the file, golden_close unmaps it; tensors point into the
 * map. */
#ifndef BLIPLINE_TESTS_UNIT_GOLDEN_H
#define BLIPLINE_TESTS_UNIT_GOLDEN_H

#include "base/buf.h"
#include "base/file.h"

#include <jansson.h>

#include <stddef.h>
#include <stdint.h>

enum { GOLDEN_MAX_DIMS = 6 };

struct golden {
    struct file_map map;
    json_t *header;
    const uint8_t *data; /* behind the header */
    size_t data_bytes;
};

struct golden_tensor {
    char dtype[8]; /* "U8", "F32", ... */
    int n_dims;
    size_t shape[GOLDEN_MAX_DIMS];
    const void *data; /* not aligned */
    size_t size_bytes;
};

void golden_open(struct golden *g, const char *path);
void golden_close(struct golden *g);
struct golden_tensor golden_tensor(const struct golden *g, const char *name);
/* A JSON file; the caller json_decref()s it. */
json_t *golden_json(const char *path);
/* A whole file into an initialised buffer, which is emptied first. */
void golden_bytes(const char *path, struct buf *ret);
/* BLIPLINE_TEST_SEED or the time; printed, so that a failure can be repeated. */
uint64_t golden_seed(const char *test);
/* splitmix64: the next number of a sequence that the seed decides. */
uint64_t golden_random(uint64_t *state);

#endif
