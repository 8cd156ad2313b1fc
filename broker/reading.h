/* reading.h - what a broker and its processes that read stores say to each other.
 *
 * A store is read in a process of its own: a store that is damaged or cut short ends that process alone, a long check
 * delays nothing in the broker, and LMDB wants it so (a process may open a store only once, and the committer has).
 * Both ends are this program, so they exchange these structs as they are, over a socket: a question, then answers, each
 * with its rows behind it, until one without `more`.
 *
 * Who may call: main.c and readings.c. Units: bytes. Memory: plain values. Errors: none. */
#ifndef BLIPLINE_BROKER_READING_H
#define BLIPLINE_BROKER_READING_H

#include "proto/msg.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define READING_ARGUMENT "--read-stores"
enum { READING_SOCKET = 3 };

struct reading_question {
    char path[PATH_MAX]; /* of the store */
    bool allow_network_fs;
    struct msg_store_read read;
};

struct reading_answer {
    int rc; /* negative: `text` says why there is no answer */
    char text[MSG_TEXT_SIZE];
    struct msg_store_rows head;
    uint32_t n_rows;
    uint64_t rows_bytes;
};

bool reading_is_asked_for(int argc, char **argv);
/* The process: answers questions until the broker closes its end. Returns the exit code. */
int reading_serve(void);

#endif
