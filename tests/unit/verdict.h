/* verdict.h - Blipline's result for an image file, in the format of tests/zoo/expected.tsv.
 *
 * "WIDTH HEIGHT CRC" of the RGB bytes, then " turned WIDTH HEIGHT CRC" if the EXIF orientation changes the image; or
 * "refused". Units: none. Memory: keeps none. Errors: the reason of a refusal is in err. */
#ifndef BLIPLINE_TESTS_UNIT_VERDICT_H
#define BLIPLINE_TESTS_UNIT_VERDICT_H

#include "encoder_worker/decode.h"

enum { VERDICT_SIZE = 80 };

void verdict(const uint8_t *bytes, size_t n, char ret[VERDICT_SIZE], struct err *err);

#endif
