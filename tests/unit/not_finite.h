/* not_finite.h - a NaN or an infinity that goes into an operator is seen in what comes out, and only where it belongs.
 *
 * For every operator and every array that it reads: one element becomes NaN, inf or -inf. Each row of the result that
 * depends on it must then have a value that is not finite; every other row must be what it was, to the bit.
 * Who may call: tests/unit and tests/gpu. Memory: none is kept. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_NOT_FINITE_H
#define BLIPLINE_TESTS_UNIT_NOT_FINITE_H

#include "tensor/ops.h"

/* All operators of o; name: what to call it in a message. */
void not_finite_check(struct ops *o, const char *name);

#endif
