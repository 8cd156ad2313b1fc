#include "job/pending.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { HEX_BYTES = 2 * MSG_TOKEN_BYTES, MAX_TEXT = 64 };

static const char accepted_word[] = "accepted ";

static int fail(const struct pending *p, const char *what, struct err *err)
{
    const int code = errno ? errno : EIO;

    return err_set(err, -code, "%s: %s: %s", p->path, what, strerror(code));
}

static int choose_path(struct pending *p, const struct buf *identity, struct err *err)
{
    const XXH128_hash_t hash = XXH3_128bits(identity->data, identity->size_bytes);
    const char *home = getenv("HOME");

    if (!home || home[0] != '/')
        return err_set(err, -EDOM, "$HOME names no folder; submissions are noted in its .local/state/blipline");
    if (snprintf(p->path, sizeof(p->path), "%s/.local/state/blipline/submissions/%016" PRIx64 "%016" PRIx64, home,
                 (uint64_t)hash.high64, (uint64_t)hash.low64) >= (int)sizeof(p->path))
        return err_set(err, -ENAMETOOLONG, "$HOME is too long: %.60s...", home);
    return file_make_folders_above(p->path, strlen(home), err);
}

static int lock(struct pending *p, int (*wait)(void *arg), void *arg, struct err *err)
{
    while (flock(p->fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = errno == EWOULDBLOCK ? wait(arg) : fail(p, "cannot lock", err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool parse_token(const char *text, uint8_t ret[MSG_TOKEN_BYTES])
{
    if (strlen(text) != HEX_BYTES + 1 || strspn(text, "0123456789abcdef") != HEX_BYTES || text[HEX_BYTES] != '\n')
        return false;
    for (int i = 0; i < MSG_TOKEN_BYTES; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1]};

        ret[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

static int write_text(struct pending *p, const char *text, struct err *err)
{
    const size_t n = strlen(text);

    errno = 0;
    if (ftruncate(p->fd, 0) < 0 || pwrite(p->fd, text, n, 0) != (ssize_t)n || fsync(p->fd) < 0)
        return fail(p, "cannot write", err);
    return 0;
}

static int new_token(struct pending *p, struct err *err)
{
    if (getrandom(p->token, sizeof(p->token), 0) != sizeof(p->token))
        return err_set(err, -EIO, "the system gives no random numbers");
    return 0;
}

/* The file is new, or a process was killed before it had written the token. */
static int write_token(struct pending *p, struct err *err)
{
    char text[HEX_BYTES + 2];
    int rc = new_token(p, err);

    for (int i = 0; i < MSG_TOKEN_BYTES; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", p->token[i]);
    text[HEX_BYTES] = '\n';
    text[HEX_BYTES + 1] = '\0';
    return rc < 0 ? rc : write_text(p, text, err);
}

static int read_file(struct pending *p, struct err *err)
{
    const size_t n_word = sizeof(accepted_word) - 1;
    char text[MAX_TEXT] = "";
    ssize_t n = pread(p->fd, text, sizeof(text) - 1, 0);
    struct stat st;

    if (n < 0 || fstat(p->fd, &st) < 0)
        return fail(p, "cannot read", err);
    text[n] = '\0';
    if (strncmp(text, accepted_word, n_word) == 0)
        p->job = strtoull(text + n_word, NULL, 10);
    if (p->job && st.st_nlink > 0)
        (void)unlink(p->path); /* left by a process that was killed between the two steps of pending_accepted */
    if (p->job)
        return 0;
    p->resumed = parse_token(text, p->token);
    return p->resumed ? 0 : write_token(p, err);
}

int pending_open(struct pending *p, const struct buf *identity, int (*wait)(void *arg), void *arg, struct err *err)
{
    int rc;

    *p = (struct pending){.fd = -1};
    if (!identity)
        return new_token(p, err);
    rc = choose_path(p, identity, err);
    if (rc < 0)
        return rc;
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->fd < 0)
        return fail(p, "cannot open", err);
    rc = lock(p, wait, arg, err);
    if (rc == 0)
        rc = read_file(p, err);
    if (rc < 0)
        pending_close(p);
    return rc;
}

int pending_accepted(struct pending *p, uint64_t job, struct err *err)
{
    char text[MAX_TEXT];
    int rc;

    if (p->fd < 0)
        return 0;
    (void)snprintf(text, sizeof(text), "%s%" PRIu64 "\n", accepted_word, job);
    rc = write_text(p, text, err);
    if (rc == 0 && unlink(p->path) < 0 && errno != ENOENT)
        rc = fail(p, "cannot remove", err);
    return rc;
}

void pending_drop(struct pending *p)
{
    if (p->fd >= 0 && !p->resumed && !p->job)
        (void)unlink(p->path);
}

void pending_close(struct pending *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
}
