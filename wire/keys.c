#include "wire/keys.h"

#include "base/buf.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { MAX_FILE_BYTES = 4096 };

static const char secret_word[] = "secret ";

/* -- reading */

/* Where the file is, and which bits of its mode must be 0. */
struct place {
    const char *path;
    mode_t forbidden;
    bool is_secret;
};

/* Before the file is read: is it one that may be read? */
static int check_kind(const struct place *p, const struct stat *st, struct err *err)
{
    if (!S_ISREG(st->st_mode))
        return err_set(err, -EINVAL, "%s: not a regular file", p->path);
    if (st->st_size > MAX_FILE_BYTES)
        return err_set(err, -EFBIG, "%s: %lld bytes; a key file has at most %d", p->path, (long long)st->st_size,
                       MAX_FILE_BYTES);
    return 0;
}

/* Once it is known to be the kind of key that is wanted. */
static int check_rights(const struct place *p, const struct stat *st, struct err *err)
{
    if (p->is_secret && st->st_uid != geteuid() && st->st_uid != 0)
        return err_set(err, -EPERM,
                       "%s: belongs to user %u; a secret key must belong to the user who runs this program", p->path,
                       st->st_uid);
    if ((st->st_mode & p->forbidden) && p->is_secret)
        return err_set(err, -EPERM, "%s: other users may read or write this secret key (mode %04o): chmod 600 %s",
                       p->path, st->st_mode & 07777, p->path);
    if (st->st_mode & p->forbidden)
        return err_set(err, -EPERM, "%s: all users may change this key (mode %04o): chmod o-w %s", p->path,
                       st->st_mode & 07777, p->path);
    return 0;
}

/* The file as text of at most MAX_FILE_BYTES bytes. */
static int read_text(const struct place *p, char ret[MAX_FILE_BYTES + 1], struct stat *ret_stat, struct err *err)
{
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY), rc;
    ssize_t n = 0, total = 0;

    if (fd < 0 && errno == ELOOP)
        return err_set(err, -ELOOP, "%s: is a symbolic link; name the key file itself", p->path);
    if (fd < 0)
        return err_set(err, -errno, "%s: cannot open: %s", p->path, strerror(errno));
    rc = fstat(fd, ret_stat) < 0 ? err_set(err, -errno, "%s: %s", p->path, strerror(errno))
                                 : check_kind(p, ret_stat, err);
    while (rc == 0 && total < MAX_FILE_BYTES && (n = read(fd, ret + total, MAX_FILE_BYTES - (size_t)total)) > 0)
        total += n;
    if (rc == 0 && n < 0)
        rc = err_set(err, -errno, "%s: cannot read: %s", p->path, strerror(errno));
    (void)close(fd);
    ret[rc == 0 ? total : 0] = '\0';
    if (rc == 0 && strlen(ret) != (size_t)total)
        rc = err_set(err, -EINVAL, "%s: not a text file", p->path);
    return rc;
}

/* The only line that is neither empty nor a comment, NULL: there are none or several. Changes `text`. */
static char *only_line(char *text)
{
    char *found = NULL, *rest = NULL;

    for (char *line = strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
        size_t n = strlen(line);

        while (n && (line[n - 1] == ' ' || line[n - 1] == '\t'))
            line[--n] = '\0';
        if (n == 0 || strcmp(line, "#") == 0 || strncmp(line, "# ", 2) == 0)
            continue;
        if (found)
            return NULL;
        found = line;
    }
    return found;
}

static bool is_key(const char *text, uint8_t ret[KEY_BYTES])
{
    return strlen(text) == KEY_TEXT_SIZE - 1 && zmq_z85_decode(ret, text) != NULL;
}

static int parse(const struct place *p, char *text, char ret_text[KEY_TEXT_SIZE], uint8_t ret_bytes[KEY_BYTES],
                 struct err *err)
{
    const size_t n_word = sizeof(secret_word) - 1;
    const char *line = only_line(text);
    const bool has_word = line && strncmp(line, secret_word, n_word) == 0;

    if (!line)
        return err_set(err, -EINVAL, "%s: not a key file; blipline keygen makes them", p->path);
    if (has_word && !p->is_secret)
        return err_set(
            err, -EINVAL,
            "%s: this is a secret key, the public key is wanted (the file .pub). If others may have read it, "
            "make a new pair",
            p->path);
    if (!has_word && p->is_secret && is_key(line, ret_bytes))
        return err_set(err, -EINVAL, "%s: this is a public key; the secret key is in the file without .pub", p->path);
    line += has_word ? n_word : 0;
    if (has_word != p->is_secret || !is_key(line, ret_bytes))
        return err_set(err, -EINVAL, "%s: not a key file; blipline keygen makes them", p->path);
    memcpy(ret_text, line, KEY_TEXT_SIZE);
    return 0;
}

static int load(const struct place *p, char ret_text[KEY_TEXT_SIZE], uint8_t ret_bytes[KEY_BYTES], struct err *err)
{
    char text[MAX_FILE_BYTES + 1];
    struct stat st = {0};
    int rc = read_text(p, text, &st, err);

    if (rc == 0)
        rc = parse(p, text, ret_text, ret_bytes, err);
    if (rc == 0)
        rc = check_rights(p, &st, err);
    sodium_memzero(text, sizeof(text));
    return rc;
}

int public_key_load(const char *path, char ret_text[KEY_TEXT_SIZE], uint8_t ret_bytes[KEY_BYTES], struct err *err)
{
    uint8_t bytes[KEY_BYTES];

    return load(&(struct place){.path = path, .forbidden = S_IWOTH}, ret_text, ret_bytes ? ret_bytes : bytes, err);
}

/* systemd gives credentials an access list for the service's user, which shows as rights of the group. */
static int secret_key_load(const char *name, char ret[KEY_TEXT_SIZE], struct err *err)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    struct place p = {.path = name, .forbidden = S_IRWXG | S_IRWXO, .is_secret = true};
    uint8_t bytes[KEY_BYTES];
    char path[PATH_MAX];
    int rc;

    if (folder && !strchr(name, '/') && snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path) &&
        access(path, F_OK) == 0)
        p = (struct place){.path = path, .forbidden = S_IRWXO, .is_secret = true};
    rc = load(&p, ret, bytes, err);
    sodium_memzero(bytes, sizeof(bytes));
    return rc;
}

int wire_keys_load(const struct wire_keys_conf *conf, bool is_broker, struct wire_keys *ret, struct err *err)
{
    const bool has_server = !is_broker && conf->server_key_file[0]; /* it is no key of a broker's configuration */
    struct wire_keys k = {.insecure = conf->insecure};
    int rc = 0;

    if (has_server && !conf->secret_key_file[0])
        return err_set(err, -EINVAL, "server_key_file without secret_key_file: this program needs a key of its own");
    if (conf->secret_key_file[0] && !has_server && !is_broker)
        return err_set(err, -EINVAL, "secret_key_file without server_key_file: the broker's public key is wanted, too");
    if (conf->secret_key_file[0]) {
        k.curve = true;
        rc = secret_key_load(conf->secret_key_file, k.secret_key, err);
        if (rc == 0 && zmq_curve_public(k.public_key, k.secret_key) < 0)
            rc = err_set(err, -errno, "%s: %s", conf->secret_key_file, zmq_strerror(errno));
    }
    if (rc == 0 && has_server)
        rc = public_key_load(conf->server_key_file, k.server_key, NULL, err);
    if (rc == 0)
        *ret = k;
    wire_keys_wipe(&k);
    return rc;
}

void wire_keys_wipe(struct wire_keys *k)
{
    sodium_memzero(k, sizeof(*k));
}

/* -- writing */

bool key_name_is_valid(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = strlen(name);

    if (n == 0 || n >= KEY_NAME_SIZE || !strchr(letters, name[0]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr(letters, name[i]) && !strchr("._-@", name[i]))
            return false;
    return true;
}

static int write_new(const char *path, mode_t mode, const char *text, struct err *err)
{
    const size_t n = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode), rc = 0;

    if (fd < 0 && errno == EEXIST)
        return err_set(err, -EEXIST, "%s exists, and keys are never overwritten: choose another -o", path);
    if (fd < 0)
        return err_set(err, -errno, "%s: cannot create: %s", path, strerror(errno));
    errno = EIO; /* of a short write */
    if (fchmod(fd, mode) < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) < 0)
        rc = err_set(err, -errno, "%s: cannot write: %s", path, strerror(errno));
    (void)close(fd);
    if (rc < 0)
        (void)unlink(path);
    return rc;
}

int key_pair_write(const char *path, char ret_public[KEY_TEXT_SIZE], struct err *err)
{
    char public_path[PATH_MAX], public_key[KEY_TEXT_SIZE], secret_key[KEY_TEXT_SIZE], text[512], name[KEY_NAME_SIZE];
    int rc;

    file_base_name(path, name, sizeof(name));
    if (snprintf(public_path, sizeof(public_path), "%s.pub", path) >= (int)sizeof(public_path))
        return err_set(err, -ENAMETOOLONG, "%s: path too long", path);
    if (access(public_path, F_OK) == 0)
        return err_set(err, -EEXIST, "%s exists, and keys are never overwritten: choose another -o", public_path);
    if (zmq_curve_keypair(public_key, secret_key) < 0)
        return err_set(err, -errno, "cannot make keys: %s", zmq_strerror(errno));
    (void)snprintf(text, sizeof(text), "# Blipline: secret key of %s. Nobody else may read it.\n%s%s\n", name,
                   secret_word, secret_key);
    rc = write_new(path, 0600, text, err);
    sodium_memzero(text, sizeof(text));
    sodium_memzero(secret_key, sizeof(secret_key));
    if (rc < 0)
        return rc;
    (void)snprintf(text, sizeof(text), "# Blipline: public key of %s\n%s\n", name, public_key);
    rc = write_new(public_path, 0644, text, err);
    if (rc < 0)
        (void)unlink(path);
    else
        memcpy(ret_public, public_key, KEY_TEXT_SIZE);
    return rc;
}
