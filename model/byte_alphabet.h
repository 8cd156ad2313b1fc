/* byte_alphabet.h - the 256 printable characters that spell bytes in byte-level vocabularies (GPT-2's table).
 *
 * Who may call: model/ only; any thread.
 * Units: bytes.
 * Memory: static tables.
 * Errors: none. */
#ifndef BLIPLINE_MODEL_BYTE_ALPHABET_H
#define BLIPLINE_MODEL_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

/* The character of a byte, as UTF-8; returns its size, 1 or 2. */
size_t byte_alphabet_spell(uint8_t byte, char ret[4]);
/* The byte that a character spells, -1 if it spells none. */
int byte_alphabet_byte(uint32_t cp);

#endif
