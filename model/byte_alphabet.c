#include "model/byte_alphabet.h"

#include "model/utf8.h"

/* Printable bytes spell themselves; the other 68 (0 to 0x20, 0x7f to 0xa0, 0xad) take the code points from 256 on. */

size_t byte_alphabet_spell(uint8_t byte, char ret[4])
{
    uint32_t cp = byte;

    if (byte <= 0x20)
        cp = 256u + byte;
    else if (byte >= 0x7f && byte <= 0xa0)
        cp = 256u + 33 + (byte - 0x7fu);
    else if (byte == 0xad)
        cp = 256u + 67;
    return utf8_encode(cp, ret);
}

int byte_alphabet_byte(uint32_t cp)
{
    if (cp >= 256 + 68)
        return -1;
    if (cp == 256 + 67)
        return 0xad;
    if (cp >= 256 + 33)
        return (int)cp - 256 - 33 + 0x7f;
    if (cp >= 256)
        return (int)cp - 256;
    return cp <= 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0xad ? -1 : (int)cp;
}
