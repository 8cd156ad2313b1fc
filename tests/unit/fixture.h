/* fixture.h - golden files and seeds, for tests.
 *
 * Paths are relative to the project's root, where tests run. Everything here fails the running test instead of
 * returning errors. Units: bytes. Memory: fixture_open maps the file, fixture_close unmaps it; tensors point into the
 * map. */
#ifndef BLIPLINE_TESTS_UNIT_FIXTURE_H
#define BLIPLINE_TESTS_UNIT_FIXTURE_H

#include "base/buf.h"
#include "base/file.h"
#include "tensor/cpu_isa.h"
#include "tests/unit/fixture.h"

#include <jansson.h>

#include <stddef.h>
#include <stdint.h>

enum { FIXTURE_MAX_DIMS = 6 };

struct fixture_file {
    struct file_map map;
    struct buf inflated; /* of a .gz */
    json_t *header;
    const uint8_t *data; /* behind the header */
    size_t data_bytes;
};

struct fixture_tensor {
    char dtype[8]; /* "U8", "F32", ... */
    int n_dims;
    size_t shape[FIXTURE_MAX_DIMS];
    const void *data; /* not aligned */
    size_t size_bytes;
};

/* A .safetensors file, or a gzip-compressed one. */
void fixture_open(struct fixture_file *g, const char *path);
void fixture_close(struct fixture_file *g);
struct fixture_tensor fixture_tensor(const struct fixture_file *g, const char *name);
/* A JSON file; the caller json_decref()s it. */
json_t *fixture_json(const char *path);
/* A whole file into an initialised buffer, which is emptied first. */
void fixture_bytes(const char *path, struct buf *ret);
/* BLIPLINE_TEST_SEED or the time; printed, so that a failure can be repeated. */
uint64_t fixture_seed(const char *test);
/* The instruction set to compute with: BLIPLINE_TEST_CPU_ISA, which run-unit.sh sets, or the best. */
enum cpu_isa fixture_cpu_isa(void);
/* splitmix64: the next number of the sequence of this seed. */
uint64_t fixture_random(uint64_t *state);

#endif
