#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_format.h"

static const char *log_name = "blipline";
static enum log_level log_level_now = LOG_LEVEL_INFO;
static bool log_to_journal;

/* True if standard error is the systemd journal. $JOURNAL_STREAM has the journal's device and inode (systemd.exec(5));
 * it must be compared, because programs with another standard error inherit the variable too. */
static bool is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    int n = 0;

    return text && sscanf(text, "%llu:%llu%n", &device, &inode, &n) == 2 && text[n] == '\0' &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_init(const char *name, enum log_level level)
{
    log_name = name;
    log_level_now = level;
    log_to_journal = is_journal();
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
    static const struct {
        const char *name;
        enum log_level level;
    } names[] = {
        {"err", LOG_LEVEL_ERR}, {"warn", LOG_LEVEL_WARN}, {"info", LOG_LEVEL_INFO}, {"debug", LOG_LEVEL_DEBUG}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i].name) == 0) {
            *ret_level = names[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

enum { MOST_LINES = 100, MOST_LINES_MS = 10000, MAX_KINDS = 128 };

/* True if one more line of this format may be written. *ret_left_out: how many were left out since the last one. */
static bool may_write(const char *fmt, unsigned *ret_left_out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        const char *fmt;
        int64_t since_ms;
        unsigned n, n_left_out;
    } kinds[MAX_KINDS];
    const int64_t now_ms = clock_mono_ms();
    bool may = true;

    *ret_left_out = 0;
    (void)pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_KINDS; i++) {
        if (kinds[i].fmt && kinds[i].fmt != fmt)
            continue;
        if (!kinds[i].fmt || now_ms >= kinds[i].since_ms + MOST_LINES_MS) {
            *ret_left_out = kinds[i].n_left_out;
            kinds[i].fmt = fmt;
            kinds[i].since_ms = now_ms;
            kinds[i].n = kinds[i].n_left_out = 0;
        }
        may = kinds[i].n < MOST_LINES;
        kinds[i].n += may;
        kinds[i].n_left_out += !may;
        break;
    }
    (void)pthread_mutex_unlock(&lock);
    return may;
}

static void write_line(enum log_level level, const char *fmt, va_list ap)
{
    char line[2048];
    size_t length;
    int n;

    if (log_to_journal)
        n = snprintf(line, sizeof(line), "<%d>%s: ", level, log_name);
    else
        n = snprintf(line, sizeof(line), "%s: ", log_name);
    length = (size_t)n + log_format(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0)
        return; /* nowhere left to report it */
}

static void PRINTF_LIKE(2, 3) write_words(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line(level, fmt, ap);
    va_end(ap);
}

static void log_line(enum log_level level, const char *fmt, va_list ap)
{
    unsigned n_left_out = 0;

    if (level > log_level_now)
        return;
    if (level > LOG_LEVEL_ERR && log_level_now < LOG_LEVEL_DEBUG && !may_write(fmt, &n_left_out))
        return;
    if (n_left_out)
        write_words(level, "event=left_out n=%u msg=\"lines like the next one\"", n_left_out);
    write_line(level, fmt, ap);
}

#define LOG_AT(level)         \
    va_list ap;               \
    va_start(ap, fmt);        \
    log_line(level, fmt, ap); \
    va_end(ap)

void log_err(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_ERR);
}

void log_warn(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_WARN);
}

void log_info(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_INFO);
}

void log_debug(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_DEBUG);
}

void fatal(int code, const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_ERR);
    exit(code);
}
