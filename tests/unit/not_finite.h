/* not_finite.h - checks that a NaN or infinity in an operator's input shows in the right rows of the result, and only
 * there.
 *
 * For every operator and every array that it reads, one element becomes NaN, inf or -inf. Each row of the result that
 * depends on it must then have a value that is not finite; every other row must be bit-identical to before.
 * Who may call: tests/unit and tests/gpu. Memory: keeps none. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_NOT_FINITE_H
#define BLIPLINE_TESTS_UNIT_NOT_FINITE_H

#include "tensor/ops.h"

/* Checks all operators of o; `name` is used in messages. */
void not_finite_check(struct ops *o, const char *name);

#endif
