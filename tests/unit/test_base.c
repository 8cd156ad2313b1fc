/* The leaf modules: text of errors, buffers, arenas, files, configuration, mailboxes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/grow.h"
#include "base/log.h"
#include "base/log_format.h"
#include "base/mailbox.h"
#include "base/nearest.h"
#include "base/page.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/blipline-base-XXXXXX"; /* of the group */

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[64];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void test_nearest_word_is_found_and_far_ones_are_not(void **state)
{
    static const char *const words[] = {"caption", "export", "verify", "stats", NULL};
    char hint[64];

    (void)state;
    assert_string_equal(nearest_word("captoin", words), "caption");
    assert_string_equal(nearest_word("exprot", words), "export");
    assert_string_equal(nearest_word("cap", words), "caption");
    assert_null(nearest_word("zzzzzz", words));
    assert_null(nearest_word("", words));
    assert_null(nearest_word("a-word-that-is-far-too-long-for-any-of-these-to-be-meant", words));
    assert_string_equal(nearest_hint("--", "verifi", words, hint, sizeof(hint)), "; did you mean --verify?");
    assert_string_equal(nearest_hint("", "zzzzzz", words, hint, sizeof(hint)), "");
}

static void page_is(const char *text, const char *wanted)
{
    char *page = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&page, &n);

    page_text(text, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(page, wanted);
    free(page);
}

static void test_pages_fill_paragraphs_and_items_and_keep_other_lines(void **state)
{
    char *page = NULL;
    size_t n = 0;
    FILE *out;

    (void)state;
    page_is("", "");
    page_is("one\ntwo\n\nthree", "one two\n\nthree\n");
    page_is("eleven chars eleven chars eleven chars eleven chars eleven chars eleven chars eleven chars",
            "eleven chars eleven chars eleven chars eleven chars eleven chars eleven chars\neleven chars\n");
    page_is("  a word   its text its text its text its text its text its text its text its text\n"
            "           goes on\n"
            "  b        its own",
            "  a word   its text its text its text its text its text its text its text its\n"
            "           text goes on\n"
            "  b        its own\n");
    page_is("Example:\n  a command that stays \\\n      as it is\ntext", /* and text below it begins anew */
            "Example:\n  a command that stays \\\n      as it is\ntext\n");
    out = open_memstream(&page, &n);
    page_item("  -o, --output", 16, "where to", out);
    page_item("  --a-long-name-of", 16, "where to", out);
    page_comment("what it means", out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(page,
                        "  -o, --output  where to\n  --a-long-name-of\n                where to\n# what it means\n");
    free(page);
}

/* What a log line looks like with standard error in `file`, and what JOURNAL_STREAM says of it. */
static void log_is(const char *stream, const char *wanted)
{
    char line[64] = "";
    FILE *file = tmpfile();
    struct stat st;
    char own[64];
    pid_t pid;

    assert_int_equal(fstat(fileno(file), &st), 0);
    (void)snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    pid = fork();
    if (pid == 0) {
        (void)dup2(fileno(file), STDERR_FILENO);
        (void)(stream ? setenv("JOURNAL_STREAM", strcmp(stream, "own") == 0 ? own : stream, 1)
                      : unsetenv("JOURNAL_STREAM"));
        log_init("try", LOG_LEVEL_WARN);
        log_err("event=one");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    rewind(file);
    assert_non_null(fgets(line, sizeof(line), file));
    assert_string_equal(line, wanted);
    (void)fclose(file);
}

static void test_log_lines_have_a_priority_in_the_journal_alone(void **state)
{
    (void)state;
    log_is(NULL, "try: event=one\n");
    log_is("own", "<3>try: event=one\n");
    log_is("1:2", "try: event=one\n"); /* inherited, but standard error goes elsewhere */
    log_is("nonsense", "try: event=one\n");
    log_is("", "try: event=one\n");
}

static void test_err_prefix_keeps_the_code_and_the_cause(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(err_set(&err, -EINVAL, "line %d", 7), -EINVAL);
    assert_int_equal(err_prefix(&err, -EINVAL, "%s", "file.conf"), -EINVAL);
    assert_string_equal(err.text, "file.conf: line 7");
    assert_int_equal(err_set(NULL, -EIO, "nobody listens"), -EIO);
}

static void test_buf_refuses_past_its_limit_and_keeps_what_it_has(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 8);
    assert_int_equal(buf_append(&b, "12345678", 8), 0);
    assert_int_equal(buf_append(&b, "9", 1), -EFBIG);
    assert_int_equal(b.size_bytes, 8);
    assert_memory_equal(b.data, "12345678", 8);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -EFBIG);
    buf_release(&b);
    buf_init(&b, 0);
    assert_int_equal(buf_appendf(&b, "%s-%d", "unit", 3), 0);
    assert_int_equal(b.size_bytes, 6);
    assert_memory_equal(b.data, "unit-3", 6);
    buf_release(&b);
}

static void test_grow_keeps_what_is_there_and_refuses_what_cannot_be(void **state)
{
    size_t capacity = 0, n = 0;
    int *numbers = NULL, *before;

    (void)state;
    for (; n < 100; n++) {
        assert_int_equal(grow_array(&numbers, &capacity, n, sizeof(*numbers), 3), 0);
        assert_true(capacity > n && (capacity == 3 || capacity <= 2 * n)); /* doubled when full, not before */
        numbers[n] = (int)n;
    }
    assert_int_equal(capacity, 192);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(numbers[i], i);
    before = numbers;
    assert_int_equal(grow_array(&numbers, &capacity, capacity, SIZE_MAX / 100, 3), -ENOMEM);
    assert_true(numbers == before && capacity == 192);
    capacity = SIZE_MAX / 2 + 1;
    assert_int_equal(grow_array(&numbers, &capacity, capacity, 1, 3), -ENOMEM);
    assert_true(numbers == before && capacity == SIZE_MAX / 2 + 1);
    free(numbers);
}

static void test_arena_is_aligned_and_reuses_its_blocks(void **state)
{
    struct arena a;
    void *first;

    (void)state;
    arena_init(&a, 1 << 20);
    first = arena_alloc(&a, 1);
    for (int i = 0; i < 1000; i++) {
        unsigned char *p = arena_alloc(&a, (size_t)(i % 900) + 1);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, i, (size_t)(i % 900) + 1);
    }
    assert_null(arena_alloc(&a, 1 << 20));
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 1), first);
    assert_string_equal(arena_strndup(&a, "abcdef", 3), "abc");
    arena_release(&a);
}

static void test_file_round_trip_limits_and_kinds(void **state)
{
    char path[128];
    struct buf b;
    struct file_map map;
    struct err err;

    (void)state;
    buf_init(&b, 0);
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    assert_int_equal(file_write_atomic(path, "hello", 5, &err), 0);
    assert_int_equal(file_read(path, 5, &b, &err), 0);
    assert_int_equal(b.size_bytes, 5);
    assert_int_equal(file_read(path, 4, &b, &err), -EFBIG);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(b.size_bytes, 5);
    assert_int_equal(file_map(path, &map, &err), 0);
    assert_memory_equal(map.data, "hello", 5);
    file_unmap(&map);
    assert_int_equal(file_read(dir, 100, &b, &err), -EISDIR);
    (void)snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read(path, 100, &b, &err), -EINVAL); /* and it does not wait for a writer */
    (void)snprintf(path, sizeof(path), "%s/none", dir);
    assert_int_equal(file_read(path, 100, &b, &err), -ENOENT);
    buf_release(&b);
}

struct sample_conf {
    char endpoint[32];
    int64_t threads;
    bool insecure;
    int64_t lease;
    int64_t memory;
};

static const struct conf_key sample_table[] = {
    {"endpoint", CONF_TEXT, CONF_AT(struct sample_conf, endpoint), NULL, 1, 0, "where to bind"},
    {"threads", CONF_INT, CONF_AT(struct sample_conf, threads), "2", 1, 64, "threads"},
    {"insecure", CONF_BOOL, CONF_AT(struct sample_conf, insecure), "no", 0, 0, "no keys"},
    {"lease", CONF_DURATION, CONF_AT(struct sample_conf, lease), "30s", 500, 7200000, "lease"},
    {"memory", CONF_SIZE, CONF_AT(struct sample_conf, memory), "1GiB", 1 << 20, 0, "memory"},
    {0}};

static int load_text(const char *text, struct sample_conf *conf, struct err *err)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/x.conf", dir);
    assert_int_equal(file_write_atomic(path, text, strlen(text), err), 0);
    return conf_load(sample_table, conf, path, err);
}

static void test_conf_reads_units_and_defaults(void **state)
{
    struct sample_conf c;
    struct err err;

    (void)state;
    assert_int_equal(load_text("endpoint = ipc://x\nlease = 500ms\nmemory=64MiB\ninsecure = yes\n", &c, &err), 0);
    assert_string_equal(c.endpoint, "ipc://x");
    assert_int_equal(c.lease, 500);
    assert_int_equal(c.memory, 64 << 20);
    assert_int_equal(c.threads, 2);
    assert_true(c.insecure);
}

static void test_conf_sizes_are_written_as_they_are_read(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 bytes"}, {1, "1 bytes"},        {5000, "5000 bytes"}, {1536, "1536 bytes"},
                 {2048, "2KiB"}, {268435456, "256MiB"}, {3ULL << 30, "3GiB"}, {5ULL << 50, "5120TiB"}};
    char text[CONF_SIZE_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(conf_size_text(cases[i].bytes, text), cases[i].text);
}

/* To inih, blanks at the head of a line would mean that the value above goes on. */
static void test_conf_takes_keys_behind_blanks(void **state)
{
    struct sample_conf c;
    struct err err;

    (void)state;
    assert_int_equal(load_text("  endpoint = ipc://x\n\tthreads = 7\n\n  # memory = 1\n", &c, &err), 0);
    assert_string_equal(c.endpoint, "ipc://x");
    assert_int_equal(c.threads, 7);
}

static void test_conf_takes_values_in_quotes(void **state)
{
    struct sample_conf c;
    struct err err;

    (void)state;
    assert_int_equal(load_text("endpoint = \" a ; b \" ; a comment\nthreads = \"7\"\n", &c, &err), 0);
    assert_string_equal(c.endpoint, " a ; b ");
    assert_int_equal(c.threads, 7);
    assert_int_equal(load_text("endpoint = \"a\n", &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "x.conf, line 1: a quote is not closed: endpoint"));
}

static void test_conf_lines_are_whole_or_refused(void **state)
{
    struct sample_conf c;
    struct err err;
    char text[2048];

    (void)state;
    (void)snprintf(text, sizeof(text), "# %01500d\nendpoint = a\n", 0);
    assert_int_equal(load_text(text, &c, &err), 0); /* of a comment nothing is lost */
    assert_string_equal(c.endpoint, "a");
    (void)snprintf(text, sizeof(text), "endpoint = a\nthreads = %01500d\n", 1);
    assert_int_equal(load_text(text, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, ", line 2: longer than "));
}

static void test_conf_names_line_key_and_what_was_wanted(void **state)
{
    static const struct {
        const char *text, *part;
        int code;
    } cases[] = {
        {"threads = 3\n", "endpoint is missing", -EINVAL},
        {"endpoint = a\nthreads = many\n", ", line 2: threads = many: expected a whole number", -EINVAL},
        {"endpoint = a\n\nthreads = 1\n  threads = 2\n", ", line 4: threads is already set in line 3", -EINVAL},
        {"endpoint = a\nnonsense\nthreads = many\n", ", line 2: not \"key = value\"", -EINVAL},
        {"endpoint = a\nthreads = 65\n", "out of range (1 to 64)", -ERANGE},
        {"endpoint = a\nmemory = 1000\n", "memory = 1000 is out of range (1MiB or more)", -ERANGE},
        {"endpoint = a\nlease = 1ms\n", "lease = 1ms is out of range (500ms to 2h)", -ERANGE},
        {"endpoint = a\nthread = 2\n", "unknown key \"thread\"", -EINVAL},
        {"endpoint = a\nmemory = 9999999999GiB\n", "memory", -EINVAL},
        {"endpoint = a\nlease = 3 weeks\n", "a duration such as", -EINVAL},
        {"endpoint = a\n[part]\nthreads = 1\n", ", line 2: this file cannot have sections: part", -EINVAL},
        {"[part]\nendpoint = a\n", "cannot have sections", -EINVAL},
        {"endpoint = a\nthreads = \x01\n", ", line 2: holds a control character", -EINVAL},
        {"endpoint = 0123456789012345678901234567890123456789\n", "the limit is 31", -ERANGE}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sample_conf c;
        struct err err;

        assert_int_equal(load_text(cases[i].text, &c, &err), cases[i].code);
        if (!strstr(err.text, cases[i].part))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].part);
    }
}

static void test_mailbox_is_bounded_in_order_and_pollable(void **state)
{
    struct mailbox *m;
    int numbers[3];
    struct pollfd p;

    (void)state;
    assert_int_equal(mailbox_new(0, &m), -EINVAL);
    assert_int_equal(mailbox_new(2, &m), 0);
    p = (struct pollfd){.fd = mailbox_fd(m), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(mailbox_post(m, &numbers[0]), 0);
    assert_int_equal(mailbox_post(m, &numbers[1]), 0);
    assert_int_equal(mailbox_post(m, &numbers[2]), -EAGAIN);
    assert_int_equal(mailbox_post_wait(m, &numbers[2], 5), -ETIMEDOUT);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_ptr_equal(mailbox_take(m), &numbers[0]);
    assert_int_equal(poll(&p, 1, 0), 1);
    mailbox_close(m);
    assert_int_equal(mailbox_post(m, &numbers[2]), -EPIPE);
    assert_ptr_equal(mailbox_take_wait(m, -1), &numbers[1]);
    assert_null(mailbox_take_wait(m, -1));
    assert_int_equal(poll(&p, 1, 0), 1); /* closed: readable for good, so that a poller wakes */
    mailbox_free(m, NULL);
}

enum { HANDED = 20000 };

static void *producer(void *arg)
{
    for (uintptr_t i = 1; i <= HANDED; i++)
        if (mailbox_post_wait(arg, (void *)i, -1) < 0)
            return NULL;
    return arg;
}

static void test_mailbox_hands_over_between_threads_without_loss(void **state)
{
    struct mailbox *m;
    pthread_t threads[2];
    uintptr_t sum = 0;

    (void)state;
    assert_int_equal(mailbox_new(7, &m), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, producer, m), 0);
    for (int i = 0; i < 2 * HANDED; i++) {
        void *p = mailbox_take_wait(m, 10000);

        assert_non_null(p);
        sum += (uintptr_t)p;
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(sum, (uintptr_t)HANDED * (HANDED + 1));
    assert_null(mailbox_take_wait(m, 1));
    mailbox_free(m, NULL);
}

static size_t PRINTF_LIKE(3, 4) format(char *ret, size_t size, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    memset(ret, '#', size);
    va_start(ap, fmt);
    n = log_format(ret, size - 1, fmt, ap);
    va_end(ap);
    assert_true(n < size);
    assert_int_equal(ret[size - 1], '#');
    ret[n] = '\0';
    return n;
}

#define FORMAT_IS(wanted, ...)                           \
    do {                                                 \
        char line_[256];                                 \
        (void)format(line_, sizeof(line_), __VA_ARGS__); \
        assert_string_equal(line_, wanted);              \
    } while (0)

static void test_log_values_are_escaped(void **state)
{
    (void)state;
    FORMAT_IS("a=-3 b=4000000000 c=-5 d=18446744073709551615 e=7 f=1.50 g=ff 100%",
              "a=%d b=%u c=%lld d=%" PRIu64 " e=%zu f=%.2f g=%x 100%%", -3, 4000000000U, -5LL, UINT64_MAX, (size_t)7,
              1.5, 255);
    FORMAT_IS("a=  7 b=007 c=ab d=abc e=x", "a=%3d b=%03d c=%.*s d=%.3s e=%c", 7, 7, 2, "abcd", "abcd", 'x');
    FORMAT_IS("msg=\"say \\\"no\\\" \\\\ \\n\\r\\t\\x1b\\x7f\xc3\xa9\" k=1", "msg=\"%s\" k=%d",
              "say \"no\" \\ \n\r\t\x1b\x7f\xc3\xa9", 1);
    FORMAT_IS("host=\"a b\" host=\"\" host=\"x=\\\"\" host=a", "host=%s host=%s host=%s host=%s", "a b", "", "x=\"",
              "a");
    FORMAT_IS("?: a\"b", "%s: %s", "\n", "a\"b");
}

/* A line that is cut ends with its quote, and not within a character or an escape. */
static void test_log_lines_are_cut_where_they_stay_valid(void **state)
{
    char line[64];

    (void)state;
    for (size_t size = 8; size < 24; size++) {
        size_t n = format(line, size, "m=\"%s\" more=1", "\xc3\xa9\n\xc3\xa9\x01\xc3\xa9\n\n\n\n\n\n\n");

        assert_int_equal(line[n - 1], '"');
        assert_true(n + 4 >= size - 1);
        for (size_t i = 3; i < n - 1;) {
            const size_t bytes = line[i] != '\\' ? 2 : line[i + 1] == 'x' ? 4 : 2;

            assert_true(line[i] == '\\' || (memcmp(line + i, "\xc3\xa9", 2) == 0));
            i += bytes;
            assert_true(i <= n - 1);
        }
    }
}

static void test_log_level_names(void **state)
{
    enum log_level level;
    int64_t before_ms;

    (void)state;
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
    before_ms = clock_mono_ms();
    assert_true(before_ms <= clock_mono_ns() / 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nearest_word_is_found_and_far_ones_are_not),
        cmocka_unit_test(test_pages_fill_paragraphs_and_items_and_keep_other_lines),
        cmocka_unit_test(test_log_lines_have_a_priority_in_the_journal_alone),
        cmocka_unit_test(test_err_prefix_keeps_the_code_and_the_cause),
        cmocka_unit_test(test_buf_refuses_past_its_limit_and_keeps_what_it_has),
        cmocka_unit_test(test_grow_keeps_what_is_there_and_refuses_what_cannot_be),
        cmocka_unit_test(test_arena_is_aligned_and_reuses_its_blocks),
        cmocka_unit_test(test_file_round_trip_limits_and_kinds),
        cmocka_unit_test(test_conf_reads_units_and_defaults),
        cmocka_unit_test(test_conf_sizes_are_written_as_they_are_read),
        cmocka_unit_test(test_conf_takes_keys_behind_blanks),
        cmocka_unit_test(test_conf_takes_values_in_quotes),
        cmocka_unit_test(test_conf_lines_are_whole_or_refused),
        cmocka_unit_test(test_conf_names_line_key_and_what_was_wanted),
        cmocka_unit_test(test_mailbox_is_bounded_in_order_and_pollable),
        cmocka_unit_test(test_mailbox_hands_over_between_threads_without_loss),
        cmocka_unit_test(test_log_values_are_escaped),
        cmocka_unit_test(test_log_lines_are_cut_where_they_stay_valid),
        cmocka_unit_test(test_log_level_names),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
