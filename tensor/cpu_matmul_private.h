/* cpu_matmul_private.h - shared by cpu_matmul.c (weights, the cache of primitives, products) and cpu_matmul_desc.c
 * (descriptors of a product). Tests use it too.
 *
 * Who may call: as cpu_matmul.h.
 * Units: elements.
 * Memory: the caller frees descriptors with cpu_matmul_md_free.
 * Errors: NULL if out of memory, or oneDNN's status. */
#ifndef BLIPLINE_TENSOR_CPU_MATMUL_PRIVATE_H
#define BLIPLINE_TENSOR_CPU_MATMUL_PRIVATE_H

#include "tensor/cpu_matmul.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>

/* oneDNN 2.x describes memory by value and builds a primitive from an operation descriptor; 3.x hides both. Only
 * this type and cpu_matmul_desc.c depend on the version. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t cpu_matmul_md;
#else
typedef dnnl_memory_desc_t *cpu_matmul_md;
#endif

struct cpu_matmul_shape {
    int64_t m, n, k, ld_x, ld_y;
    int act;
    int has_bias, add_to_y, y_f32;
    int n_threads;
};

struct cpu_matmul_entry {
    struct cpu_matmul_shape shape;
    uint64_t last_use;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, scratch;
};

struct cpu_matmul {
    dnnl_data_type_t type;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool takes_strides;
    uint64_t n_uses;
    void *scratch; /* shared by all primitives, which never overlap */
    size_t scratch_bytes;
    int n_entries;
    struct cpu_matmul_entry entries[CPU_MATMUL_CACHE];
};

struct cpu_packed {
    int64_t n, k;
    cpu_matmul_md weight_md;
    void *values;
    float *bias;
    dnnl_memory_t weight, bias_memory;
};

/* [rows, columns] with these strides; row_stride 0: oneDNN chooses the layout. NULL: out of memory. */
cpu_matmul_md cpu_matmul_md_new(dnnl_data_type_t type, int64_t rows, int64_t columns, int64_t row_stride,
                                int64_t column_stride);
/* A copy of a primitive's descriptor of one argument. NULL: out of memory. */
cpu_matmul_md cpu_matmul_md_of(const_dnnl_primitive_desc_t p, dnnl_query_t what);
void cpu_matmul_md_free(cpu_matmul_md d);
/* weight NULL: oneDNN chooses the layout. */
dnnl_status_t cpu_matmul_desc(const struct cpu_matmul *m, const struct cpu_matmul_shape *s, cpu_matmul_md weight,
                              dnnl_primitive_desc_t *ret);

#endif
