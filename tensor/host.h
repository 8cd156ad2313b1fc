/* host.h - shared by back ends that compute in host memory: allocation, transfers (a copy or nothing), vectors, tables.
 *
 * Who may call: tensor/cpu*.c and tensor/ref.c, which put these functions into their struct ops_funcs. Contract,
 * memory and errors of each: the entry of that name in tensor/ops.h. */
#ifndef BLIPLINE_TENSOR_HOST_H
#define BLIPLINE_TENSOR_HOST_H

#include "tensor/ops.h"

struct ops_vector {
    int64_t n;
    float *values; /* 64-byte aligned */
};

struct ops_table {
    struct tensor tensor; /* [rows, width], read in place */
    int64_t width;
};

/* 64-byte aligned, contents undefined; NULL: out of memory. */
void *host_alloc_aligned(size_t bytes);

int host_alloc(struct ops *o, size_t bytes, void **ret);
void host_release(struct ops *o, void *p);
/* for upload and download */
int host_convert(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
int host_upload_begin(struct ops *o, void *dst, size_t n, void **ret_host);
int host_download_start(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket);
int host_download_wait(struct ops *o, uint64_t ticket);
/* for upload_end and sync: nothing is ever pending */
int host_sync(struct ops *o);
int host_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err);
void host_vector_free(struct ops *o, struct ops_vector *v);
int host_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err);
void host_table_free(struct ops *o, struct ops_table *t);

#endif
