/* allowed.h - the allow-list of a broker: public keys with their roles, read from a folder.
 *
 *     FOLDER/workers/gpu1.pub    FOLDER/clients/alice.pub    FOLDER/admins/root.pub
 *
 * To admit a key, copy its .pub file into the folder of the role; to revoke it, remove the file. The name of the file
 * without .pub is the name of the peer. (A folder for each role, because then nobody has to edit a file, `ls` shows who
 * may do what, and one role can be delegated by the rights of its folder.)
 *
 * Who may call: any thread; a list is not changed once it is made. Memory: allowed_free. Errors: negative errno. */
#ifndef BLIPLINE_WIRE_ALLOWED_H
#define BLIPLINE_WIRE_ALLOWED_H

#include "proto/msg.h"
#include "wire/keys.h"

#include <stddef.h>
#include <stdint.h>

enum { ALLOWED_MAX_KEYS = 16384, ALLOWED_ID_SIZE = 128 };

struct allowed_key {
    enum msg_role role;
    char name[KEY_NAME_SIZE];
    uint8_t bytes[KEY_BYTES];
    char id[ALLOWED_ID_SIZE]; /* "client alice KEY": the ZAP User-Id */
};

struct allowed {
    size_t n;
    struct allowed_key keys[];
};

/* Read the folder. A file that cannot be used is reported to `warn` and skipped, so that it locks nobody else out.
 * Fails only if the folder itself cannot be read, or all users may write it. */
int allowed_load(const char *folder, void (*warn)(const char *text), struct allowed **ret,
                 struct err *err) CHECK_RESULT;
struct allowed *allowed_copy(const struct allowed *a); /* NULL: no memory */
void allowed_free(struct allowed *a);

/* NULL: the key is not allowed. Takes the same time for every key. */
const struct allowed_key *allowed_find(const struct allowed *a, const uint8_t bytes[KEY_BYTES]);
const struct allowed_key *allowed_find_id(const struct allowed *a, const char *id);

#endif
