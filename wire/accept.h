/* accept.h - a descriptor is kept so that connections can be turned away when there are no others left (accept.c).
 *
 * Who may call: wire_init. Memory: one descriptor for good. Errors: none; without one it is tried again later. */
#ifndef BLIPLINE_WIRE_ACCEPT_H
#define BLIPLINE_WIRE_ACCEPT_H

/* Also makes sure that accept.c is linked: nothing else in our code calls what is in it. */
void accept_keep_spare(void);

#endif
