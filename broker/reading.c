#include "broker/reading.h"

#include "store/reader.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* False: the broker is gone. */
static bool hear(void *to, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = read(READING_SOCKET, (char *)to + done, n - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static int say(const void *from, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t put = write(READING_SOCKET, (const char *)from + done, n - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        done += (size_t)put;
    }
    return 0;
}

static int send_answer(void *arg, const struct msg_store_rows *head, struct buf *rows, uint32_t n_rows)
{
    const struct reading_answer a = {.head = *head, .n_rows = n_rows, .rows_bytes = rows->size_bytes};
    int rc = say(&a, sizeof(a));

    (void)arg;
    return rc < 0 ? rc : say(rows->data, rows->size_bytes);
}

static int answer(struct reader **r, char open_path[PATH_MAX], const struct reading_question *q, struct err *err)
{
    int rc = 0;

    if (*r && strcmp(open_path, q->path) != 0) {
        reader_close(*r);
        *r = NULL;
    }
    if (!*r)
        rc = reader_open(q->path, q->allow_network_fs, r, err);
    if (rc < 0)
        return rc;
    memcpy(open_path, q->path, PATH_MAX);
    return reader_answer(*r, &q->read, send_answer, NULL, err);
}

bool reading_is_asked_for(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[1], READING_ARGUMENT) == 0;
}

int reading_serve(void)
{
    static struct reading_question q;
    char open_path[PATH_MAX] = "";
    struct reader *r = NULL;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the broker has already exited, its end of the socket is closed */
    (void)prctl(PR_SET_NAME, "store-reader");
    while (hear(&q, sizeof(q))) {
        struct reading_answer failed = {.rc = 0};
        struct err err = {""};

        failed.rc = answer(&r, open_path, &q, &err);
        if (failed.rc == 0)
            continue;
        (void)msg_text_set(failed.text, sizeof(failed.text), err.text[0] ? err.text : strerror(-failed.rc));
        if (say(&failed, sizeof(failed)) < 0)
            break;
        reader_close(r); /* it may be what was wrong */
        r = NULL;
    }
    reader_close(r);
    return EXIT_SUCCESS;
}
