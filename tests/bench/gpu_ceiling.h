/* gpu_ceiling.h - what a device reaches on the products and attentions of a stage alone: the ceiling that the stage is
 * measured against, in the same run.
 *
 * The products run through ops.linear in the stage's order and numbers, without bias, activation or residual, over
 * random matrices that together are larger than any cache, again and again for the given time: a card's power limit
 * shows only then. In fp8 the rounding of what comes in is part of them, as it is in a graph wherever a norm has not
 * done it. Attention is our own operator's: that part of the ceiling says how the time is shared, not how good the
 * kernel is.
 *
 * Who may call: benchmarks, one thread. Units: seconds of one run of the stage; FLOP and bytes of it; GB/s are 1e9
 * bytes.
 * Memory: device memory for the largest input and output and for each distinct matrix; freed before returning.
 * Errors: 0 or a negative errno with err. */
#ifndef BLIPLINE_BENCH_GPU_CEILING_H
#define BLIPLINE_BENCH_GPU_CEILING_H

#include "base/err.h"
#include "tensor/ops.h"
#include "tests/bench/budget.h"

struct gpu_ceiling {
    double products_s, products_flop;
    double attention_s, attention_flop, kv_bytes; /* decode steps alone read kv_bytes */
};

int gpu_ceiling_measure(struct ops *o, const struct budget *b, double seconds, struct gpu_ceiling *ret,
                        struct err *err) CHECK_RESULT;

/* rows_copy within the device (bytes read and written), upload and download_start of 64 MiB, one after the other. */
struct gpu_bandwidth {
    double copy_gb_s, upload_gb_s, download_gb_s;
};
int gpu_bandwidth_measure(struct ops *o, double seconds, struct gpu_bandwidth *ret, struct err *err) CHECK_RESULT;

#endif
