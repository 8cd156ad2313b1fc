#include "base/grow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int grow_array(void *array, size_t *capacity, size_t n, size_t element_bytes, size_t first)
{
    size_t more = first, bytes;
    void *elements, *bigger;

    if (n < *capacity)
        return 0;
    if ((*capacity && __builtin_mul_overflow(*capacity, (size_t)2, &more)) ||
        __builtin_mul_overflow(more, element_bytes, &bytes))
        return -ENOMEM;
    memcpy(&elements, array, sizeof(elements)); /* the elements may have any type */
    bigger = realloc(elements, bytes);
    if (!bigger)
        return -ENOMEM;
    memcpy(array, &bigger, sizeof(bigger));
    *capacity = more;
    /* cppcheck-suppress memleak ; `array` has it */
    return 0;
}
