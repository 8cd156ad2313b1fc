/* rewrite.h - for tests: writes a changed copy of a checkpoint to a temporary directory.
 *
 * rewrite_open reads the tensors and JSON files of a valid checkpoint; the test changes them, saves, and checks what
 * the program does with the result. Failures fail the running test. Memory: rewrite_close removes the directory. */
#ifndef BLIPLINE_TESTS_UNIT_REWRITE_H
#define BLIPLINE_TESTS_UNIT_REWRITE_H

#include "model/safetensors.h"
#include "tensor/tensor.h"

#include <stddef.h>

enum { REWRITE_MAX_TENSORS = 512 };

struct rewrite_tensor {
    char name[160];
    struct tensor tensor; /* data: in the source's map, or own */
    size_t size_bytes;
    void *own;
};

struct rewrite {
    char dir[64];
    struct safetensors *source;
    struct rewrite_tensor tensors[REWRITE_MAX_TENSORS];
    size_t n_tensors;
};

void rewrite_open(struct rewrite *r, const char *source_dir);
void rewrite_close(struct rewrite *r);

struct rewrite_tensor *rewrite_find(struct rewrite *r, const char *name);
void rewrite_remove(struct rewrite *r, const char *name);
/* A copy of `like` under another name. */
struct rewrite_tensor *rewrite_copy(struct rewrite *r, const char *like, const char *name);
/* Flip the lowest bit of the tensor's first byte. */
void rewrite_touch(struct rewrite *r, const char *name);
/* Replace `from`, which must be there, in one of the JSON files. */
void rewrite_text(struct rewrite *r, const char *file, const char *from, const char *to);

/* One model.safetensors, or n_shards > 1 files with their index; tensors go to them in turn. */
void rewrite_save(struct rewrite *r, int n_shards);

#endif
