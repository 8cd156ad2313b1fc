/* keys.h - CURVE keys and the files that they are kept in.
 *
 * A pair is two files. NAME has the line "secret KEY" and mode 0600; NAME.pub has the line "KEY", the public key. KEY
 * is 40 characters of Z85 (rfc.zeromq.org/spec/32). Empty lines and lines that begin with "# " are comments.
 *
 * Who may call: any thread; nothing is shared. Memory: structs are the caller's; wire_keys_wipe overwrites secrets.
 * Errors: negative errno, err names the file and the cure. No message ever contains a secret key. */
#ifndef BLIPLINE_WIRE_KEYS_H
#define BLIPLINE_WIRE_KEYS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { KEY_BYTES = 32, KEY_TEXT_SIZE = 41, KEY_NAME_SIZE = 64 };

/* The keys of one process. Zeroed: none, which allows ipc endpoints only. */
struct wire_keys {
    bool curve;                     /* the keys below are set */
    bool insecure;                  /* tcp without keys is allowed on loopback addresses */
    char public_key[KEY_TEXT_SIZE]; /* Z85 */
    char secret_key[KEY_TEXT_SIZE];
    char server_key[KEY_TEXT_SIZE]; /* public key of the broker; "" in the broker itself */
};

/* What a configuration says. "": no file is given. */
struct wire_keys_conf {
    char secret_key_file[1024]; /* a name without "/" is looked up in $CREDENTIALS_DIRECTORY first */
    char server_key_file[1024]; /* NAME.pub of the broker; required by workers and clients that have a secret key */
    bool insecure;
};
/* Rows of a table (base/conf.h) for a struct wire_keys_conf called `keys`: of every program, and of those that connect
 * to a broker. */
/* clang-format off */
#define WIRE_KEYS_CONF(type, keys) \
    {"secret_key_file", CONF_TEXT, CONF_AT(type, keys.secret_key_file), "", 0, 0, \
     "the secret key, for tcp: a file of blipline keygen, or the name of a systemd credential"}, \
    {"insecure", CONF_BOOL, CONF_AT(type, keys.insecure), "no", 0, 0, \
     "allow tcp without keys, on loopback addresses only: every user of this machine is then an admin"}
#define WIRE_KEYS_CONF_SERVER(type, keys) \
    {"server_key_file", CONF_TEXT, CONF_AT(type, keys.server_key_file), "", 0, 0, \
     "the broker's public key, for tcp: its .pub file"}
/* clang-format on */
/* Refused are secret key files that are symbolic links, belong to another user (root excepted) or can be read by
 * others. Without any file *ret is valid and has no keys. */
int wire_keys_load(const struct wire_keys_conf *conf, bool is_broker, struct wire_keys *ret,
                   struct err *err) CHECK_RESULT;
void wire_keys_wipe(struct wire_keys *k);

/* Read NAME.pub: as text, and as bytes unless ret_bytes is NULL. Refused are symbolic links, files that all users may
 * write, and secret keys. */
int public_key_load(const char *path, char ret_text[KEY_TEXT_SIZE], uint8_t ret_bytes[KEY_BYTES],
                    struct err *err) CHECK_RESULT;
/* True for names of keys: 1 to 63 characters of A-Z a-z 0-9 . _ - @, the first a letter or a digit. */
bool key_name_is_valid(const char *name);

/* Make a pair and write `path` and `path`.pub; neither may exist. */
int key_pair_write(const char *path, char ret_public[KEY_TEXT_SIZE], struct err *err) CHECK_RESULT;

#endif
