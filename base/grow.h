/* grow.h - make room for one more element in an array.
 *
 * Who may call: anyone; nothing is shared.
 * Units: elements; `element_bytes` is the size of one.
 * Memory: the caller owns the array, which malloc allocates; it may move.
 * Errors: -ENOMEM; then array and capacity are unchanged. */
#ifndef BLIPLINE_BASE_GROW_H
#define BLIPLINE_BASE_GROW_H

#include "base/err.h"

#include <stddef.h>

/* `array`: the address of the pointer to the elements. Doubles the capacity if n elements fill it; the first allocation
 * has room for `first`. */
int grow_array(void *array, size_t *capacity, size_t n, size_t element_bytes, size_t first) CHECK_RESULT;

#endif
