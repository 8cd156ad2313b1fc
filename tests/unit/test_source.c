#include "source/source.h"

#include "source/fetch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char root[64];
    char start[PATH_MAX]; /* the folder the tests were started in */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)strcpy(f->root, "/tmp/blipline-source-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    assert_non_null(getcwd(f->start, sizeof(f->start)));
    assert_int_equal(chdir(f->root), 0);
    *state = f;
    return 0;
}

/* By descriptors, so that paths beyond PATH_MAX are removed too. */
static void remove_contents(int folder_fd)
{
    DIR *d = fdopendir(folder_fd);
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(folder_fd, e->d_name, 0) == 0)
            continue;
        remove_contents(openat(folder_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        assert_int_equal(unlinkat(folder_fd, e->d_name, AT_REMOVEDIR), 0);
    }
    (void)closedir(d);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(chdir(f->start), 0);
    remove_contents(open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    assert_int_equal(rmdir(f->root), 0);
    free(f);
    return 0;
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void touch(const char *path)
{
    write_file(path, "x", 1);
}

static struct source *opened(const char *arg)
{
    struct source *s = NULL;
    struct err err = {""};

    if (source_open(arg, NULL, &s, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static void expect_items(struct source *s, const char *const *keys, size_t n)
{
    struct source_item item;
    struct err err = {""};

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(source_next(s, &item, &err), 1);
        assert_string_equal(item.key, keys[i]);
        assert_int_equal(item.key_bytes, strlen(keys[i]));
        assert_int_equal(item.path[0], '/');
        assert_int_equal(item.path_bytes, strlen(item.path));
    }
    assert_int_equal(source_next(s, &item, &err), 0);
    assert_int_equal(source_next(s, &item, &err), 0); /* the end stays the end */
}

static void test_source_walk_is_in_bytewise_order_of_whole_paths(void **state)
{
    static const char *const keys[] = {"B.PNG",   "a-x.jpg", "a.jpg",  "a/1.webp", "a/b/2.jfif",
                                       "a/z.jpe", "a0.jpeg", "a1.mpo", "a2.Apng",  "z.JpG"};
    struct source *s;

    (void)state;
    assert_int_equal(mkdir("a", 0755), 0);
    assert_int_equal(mkdir("a/b", 0755), 0);
    assert_int_equal(mkdir("empty", 0755), 0);
    for (size_t i = sizeof(keys) / sizeof(keys[0]); i-- > 0;)
        touch(keys[i]);
    s = opened(".");
    expect_items(s, keys, sizeof(keys) / sizeof(keys[0]));
    source_free(s);
    s = opened("a///");
    expect_items(s, (const char *const[]){"1.webp", "b/2.jfif", "z.jpe"}, 3);
    source_free(s);
}

static void expect_skipped(const struct source *s, const char *want)
{
    char text[512] = "";

    for (int i = 0; i < SOURCE_N_KINDS; i++) {
        size_t used = strlen(text);

        if (source_skipped(s)->n[i])
            (void)snprintf(text + used, sizeof(text) - used, "%s %d, ", source_kind_name((enum source_kind)i),
                           (int)source_skipped(s)->n[i]);
    }
    assert_string_equal(text, want);
}

static void test_source_walk_counts_what_it_skips(void **state)
{
    struct source *s;

    (void)state;
    assert_int_equal(mkdir(".hidden", 0755), 0);
    assert_int_equal(mkdir("d.jpg", 0755), 0); /* a folder by a picture's name is a folder */
    touch(".hidden/in.jpg");
    touch(".h.jpg");
    touch("notes.txt");
    touch("jpg");
    touch("d.jpg/in.png");
    touch("real.jpg");
    assert_int_equal(mkfifo("pipe.jpg", 0644), 0);
    assert_int_equal(symlink("pipe.jpg", "link-pipe.jpg"), 0);
    assert_int_equal(symlink("real.jpg", "link.jpg"), 0);
    assert_int_equal(symlink("nowhere", "dangling.jpg"), 0);
    assert_int_equal(symlink("self.jpg", "self.jpg"), 0);
    s = opened(".");
    expect_items(s, (const char *const[]){"d.jpg/in.png", "link.jpg", "real.jpg"}, 3);
    expect_skipped(s, "other_names 2, hidden 2, dangling_links 1, looping_links 1, pipes 2, ");
    assert_string_equal(source_skipped(s)->first_problem.text, "");
    source_free(s);
}

static void test_source_walk_does_not_follow_folder_loops(void **state)
{
    struct source *s;

    (void)state;
    assert_int_equal(mkdir("d", 0755), 0);
    touch("d/p.jpg");
    assert_int_equal(symlink("..", "d/up"), 0);
    assert_int_equal(symlink(".", "here"), 0);
    s = opened(".");
    expect_items(s, (const char *const[]){"d/p.jpg"}, 1);
    expect_skipped(s, "linked_folders 2, ");
    source_free(s);
    s = opened("here"); /* named by the user, a link is as good as the folder */
    expect_items(s, (const char *const[]){"d/p.jpg"}, 1);
    source_free(s);
}

static void test_source_walk_delivers_any_name(void **state)
{
    static const char *const keys[] = {"\x01.jpg", "a\nb.jpg", "q\"'\\.jpg", "\xc3\x28.jpg", "\xff\xfe.jpg"};
    struct source *s;

    (void)state;
    for (size_t i = 0; i < 5; i++)
        touch(keys[i]);
    s = opened(".");
    expect_items(s, keys, 5);
    source_free(s);
}

static void test_source_item_tells_size_and_time(void **state)
{
    struct timespec times[2] = {{1, 0}, {1234567890, 987654321}};
    struct fixture *f = *state;
    struct source_item item;
    char want[PATH_MAX];
    struct source *s;

    write_file("five.jpg", "12345", 5);
    assert_int_equal(utimensat(AT_FDCWD, "five.jpg", times, 0), 0);
    (void)snprintf(want, sizeof(want), "%s/five.jpg", f->root);
    write_file("l.txt", "five.jpg\n", 9);
    for (int kind = 0; kind < 3; kind++) {
        s = opened(kind == 0 ? f->root : kind == 1 ? "five.jpg" : "@l.txt");
        assert_int_equal(source_next(s, &item, NULL), 1);
        assert_int_equal(item.size_bytes, 5);
        assert_int_equal(item.mtime_ns, 1234567890987654321);
        assert_string_equal(item.path, want);
        assert_string_equal(item.key, "five.jpg");
        source_free(s);
    }
}

/* A tree that goes on past PATH_MAX: what fits is delivered, up to the last byte, the rest is counted. */
static void test_source_walk_skips_paths_that_are_too_long(void **state)
{
    struct fixture *f = *state;
    size_t used = strlen(f->root), last = 0, n;
    struct source_item item;
    char name[256];
    struct source *s;
    struct err err = {""};

    memset(name, 'd', 200);
    name[200] = '\0';
    while (used + 201 + 201 < PATH_MAX) { /* room for a folder and a file */
        assert_int_equal(mkdir(name, 0755), 0);
        assert_int_equal(chdir(name), 0);
        used += 201;
    }
    n = PATH_MAX - 1 - (used + 1); /* bytes of the longest name that still fits */
    assert_in_range(n, 10, 255);
    memset(name, 'f', n);
    (void)strcpy(name + n - 4, ".jpg");
    touch(name);
    (void)strcpy(name + n - 4, "f.jpg");
    if (n < 255)
        touch(name);
    memset(name, 'e', 250);
    name[250] = '\0';
    assert_int_equal(mkdir(name, 0755), 0);
    assert_int_equal(chdir(name), 0);
    touch("beyond.jpg");
    s = opened(f->root);
    while (source_next(s, &item, &err) == 1) {
        struct buf b;

        last = item.path_bytes;
        buf_init(&b, 0);
        assert_int_equal(source_fetch(item.path, 10, &b, &err), IMAGE_OK);
        buf_release(&b);
    }
    assert_int_equal(last, PATH_MAX - 1);
    assert_int_equal(source_skipped(s)->n[SOURCE_LONG_PATHS], n < 255 ? 2 : 1);
    assert_non_null(strstr(source_skipped(s)->first_problem.text, "too long"));
    source_free(s);
}

static void test_source_walk_passes_over_what_vanishes(void **state)
{
    struct source_item item;
    struct source *s;

    (void)state;
    assert_int_equal(mkdir("d", 0755), 0);
    touch("a.jpg");
    touch("b.jpg");
    touch("d/c.jpg");
    touch("e.jpg");
    s = opened(".");
    assert_int_equal(source_next(s, &item, NULL), 1);
    assert_int_equal(unlink("b.jpg"), 0);
    assert_int_equal(unlink("d/c.jpg"), 0);
    assert_int_equal(rmdir("d"), 0);
    expect_items(s, (const char *const[]){"e.jpg"}, 1);
    source_free(s);
}

static void test_source_list_takes_relative_and_absolute_lines(void **state)
{
    struct fixture *f = *state;
    char text[256], absolute[128];
    struct source_item item;
    struct source *s;
    int n;

    assert_int_equal(mkdir("lists", 0755), 0);
    touch("one.jpg");
    touch("lists/two.jpg");
    (void)snprintf(absolute, sizeof(absolute), "%s/one.jpg", f->root);
    n = snprintf(text, sizeof(text), "../one.jpg\r\n\n\r\n%s\ntwo.jpg\ngone.jpg\n sp ace.jpg ", absolute);
    write_file("lists/l.txt", text, (size_t)n);
    s = opened("@lists/l.txt");
    expect_items(s, (const char *const[]){"../one.jpg", absolute, "two.jpg", "gone.jpg", " sp ace.jpg "}, 5);
    source_free(s);
    s = opened("@lists/l.txt");
    assert_int_equal(source_next(s, &item, NULL), 1);
    assert_int_equal(item.size_bytes, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(source_next(s, &item, NULL), 1);
    assert_int_equal(item.size_bytes, 0); /* gone.jpg: an item all the same */
    source_free(s);
}

static void expect_broken_list(const char *text, size_t n, int code, const char *words)
{
    struct source_item item;
    struct err err = {""};
    struct source *s;
    int rc;

    write_file("l.txt", text, n);
    s = NULL;
    rc = source_open("@l.txt", NULL, &s, &err);
    while (rc == 0 && (rc = source_next(s, &item, &err)) == 1)
        rc = 0;
    assert_int_equal(rc, code);
    if (!strstr(err.text, words))
        fail_msg("'%s' is not in: %s", words, err.text);
    source_free(s);
}

/* The first picture is a.jpg, the second line no picture by itself. */
static void expect_bad_line(const char *text, size_t n, const char *words)
{
    struct source_item item;
    struct err err = {""};
    struct source *s;

    write_file("l.txt", text, n);
    s = opened("@l.txt");
    assert_int_equal(source_next(s, &item, &err), 1);
    assert_string_equal(item.key, "a.jpg");
    assert_int_equal(item.problem_code, IMAGE_OK);
    assert_int_equal(source_next(s, &item, &err), 1);
    assert_int_not_equal(item.problem_code, IMAGE_OK);
    assert_int_equal(item.path_bytes, 0);
    assert_non_null(strstr(item.problem, words));
    source_free(s);
}

static void test_source_list_names_the_broken_line(void **state)
{
    static const char nul[] = "a.jpg\n\nb\0c.jpg\n";
    char text[3 * PATH_MAX];

    (void)state;
    expect_broken_list(nul, sizeof(nul) - 1, -EINVAL, "line 3");
    expect_broken_list("PK\3\4", 4, -EINVAL, "ZIP archive");
    memset(text, 'p', sizeof(text));
    memcpy(text, "a.jpg\n", 6);
    expect_bad_line(text, sizeof(text), "line 2: longer than any path");
    text[PATH_MAX] = '\n'; /* fits as a line, but not behind the folder's name */
    expect_bad_line(text, PATH_MAX + 1, "line 2: longer than any path");
    expect_bad_line("\xef\xbb\xbf"
                    "a.jpg\nhttps://b/c.jpg\nd.jpg",
                    30, "line 2: pictures are not downloaded");
}

static void test_source_list_reads_standard_input(void **state)
{
    int before = dup(0), fd;
    struct source *s;

    (void)state;
    write_file("l.txt", "x.jpg\ny.jpg", 11);
    fd = open("l.txt", O_RDONLY | O_CLOEXEC);
    assert_int_equal(dup2(fd, 0), 0);
    s = opened("@-");
    expect_items(s, (const char *const[]){"x.jpg", "y.jpg"}, 2);
    source_free(s);
    assert_int_equal(dup2(before, 0), 0);
    (void)close(before);
    (void)close(fd);
}

static void test_source_open_refuses_what_is_no_source(void **state)
{
    struct source *s = NULL;
    struct err err = {""};
    char *too_long = malloc(2 * PATH_MAX);

    (void)state;
    assert_int_equal(mkfifo("pipe", 0644), 0);
    assert_int_equal(mkdir("d", 0755), 0);
    assert_int_equal(source_open("", NULL, &s, &err), -EINVAL);
    assert_int_equal(source_open("gone", NULL, &s, &err), -ENOENT);
    assert_non_null(strstr(err.text, "gone"));
    assert_int_equal(source_open("pipe", NULL, &s, &err), -EINVAL);
    assert_int_equal(source_open("@gone.txt", NULL, &s, &err), -ENOENT);
    assert_int_equal(source_open("@d", NULL, &s, &err), -EISDIR);
    assert_int_equal(source_open("@", NULL, &s, &err), -ENOENT);
    assert_non_null(too_long);
    memset(too_long, 'a', 2 * PATH_MAX - 1);
    too_long[2 * PATH_MAX - 1] = '\0';
    assert_int_equal(source_open(too_long, NULL, &s, &err), -ENAMETOOLONG);
    too_long[0] = '@';
    assert_int_equal(source_open(too_long, NULL, &s, &err), -ENAMETOOLONG);
    free(too_long);
    assert_null(s);
}

static void test_source_single_file_needs_no_extension(void **state)
{
    struct source *s;

    (void)state;
    assert_int_equal(mkdir("d", 0755), 0);
    touch("d/.picture");
    s = opened("d/.picture");
    expect_items(s, (const char *const[]){".picture"}, 1);
    source_free(s);
}

static void test_source_fetch_names_the_reason(void **state)
{
    struct err err = {""};
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    write_file("ten", "0123456789", 10);
    write_file("empty", "", 0);
    assert_int_equal(mkfifo("pipe", 0644), 0);
    assert_int_equal(mkdir("d", 0755), 0);
    assert_int_equal(symlink("circle", "circle"), 0);
    assert_int_equal(source_fetch("ten", 10, &b, &err), IMAGE_OK);
    assert_int_equal(b.size_bytes, 10);
    assert_memory_equal(b.data, "0123456789", 10);
    assert_int_equal(source_fetch("ten", 10, &b, &err), IMAGE_OK);
    assert_int_equal(b.size_bytes, 10);
    assert_int_equal(source_fetch("ten", 9, &b, &err), IMAGE_TOO_LARGE);
    assert_int_equal(b.size_bytes, 0);
    assert_int_equal(source_fetch("empty", 9, &b, &err), IMAGE_EMPTY);
    assert_int_equal(source_fetch("gone", 9, &b, &err), IMAGE_MISSING);
    assert_int_equal(source_fetch("ten/gone", 9, &b, &err), IMAGE_MISSING);
    assert_int_equal(source_fetch("pipe", 9, &b, &err), IMAGE_UNREADABLE);
    assert_int_equal(source_fetch("d", 9, &b, &err), IMAGE_UNREADABLE);
    assert_int_equal(source_fetch("circle", 9, &b, &err), IMAGE_UNREADABLE);
    buf_release(&b);
}

static void test_source_every_reason_has_its_own_name(void **state)
{
    (void)state;
    for (int i = 0; i < IMAGE_N_ERRORS; i++) {
        assert_non_null(image_error_name((enum image_error)i));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(image_error_name((enum image_error)i), image_error_name((enum image_error)k));
    }
    assert_string_equal(image_error_name(IMAGE_N_ERRORS), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_source_walk_is_in_bytewise_order_of_whole_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_walk_counts_what_it_skips, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_walk_does_not_follow_folder_loops, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_walk_delivers_any_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_item_tells_size_and_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_walk_skips_paths_that_are_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_walk_passes_over_what_vanishes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_list_takes_relative_and_absolute_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_list_names_the_broken_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_list_reads_standard_input, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_open_refuses_what_is_no_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_single_file_needs_no_extension, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_source_fetch_names_the_reason, set_up, tear_down),
        cmocka_unit_test(test_source_every_reason_has_its_own_name),
    };

    return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
