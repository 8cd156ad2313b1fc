/* byte_alphabet.h - the 256 printable characters that stand for bytes in byte-level vocabularies (GPT-2's
 * bytes_to_unicode).
 *
 * Who may call: model/ only; any thread.
 * Units: bytes.
 * Memory: static tables.
 * Errors: none. */
#ifndef BLIPLINE_MODEL_BYTE_ALPHABET_H
#define BLIPLINE_MODEL_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

/* Writes the character of a byte as UTF-8; returns its size, 1 or 2. */
size_t byte_alphabet_spell(uint8_t byte, char ret[4]);
/* The byte that a character stands for, or -1. */
int byte_alphabet_byte(uint32_t cp);

#endif
