/* grow.h - room for one more element of an array that is filled one by one.
 *
 * Who may call: anyone; nothing is shared.
 * Units: elements, and bytes of one.
 * Memory: the array is from malloc and the caller's; it may move.
 * Errors: -ENOMEM; array and capacity are as before then. */
#ifndef BLIPLINE_BASE_GROW_H
#define BLIPLINE_BASE_GROW_H

#include "base/err.h"

#include <stddef.h>

/* `array`: the address of the pointer to the elements. Where n elements fill the capacity, it doubles, from `first`
 * on. */
int grow_array(void *array, size_t *capacity, size_t n, size_t element_bytes, size_t first) CHECK_RESULT;

#endif
