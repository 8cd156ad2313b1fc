/* accept.h - keeps a spare descriptor, so that connections can be turned away when no others are left (accept.c).
 *
 * Who may call: wire_init. Memory: one descriptor, kept for ever. Errors: none; if no spare can be opened now, the next
 * accept tries again. */
#ifndef BLIPLINE_WIRE_ACCEPT_H
#define BLIPLINE_WIRE_ACCEPT_H

/* Calling this also makes the linker include accept.c; nothing else refers to it. */
void accept_keep_spare(void);

#endif
