#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/allowed.h"
#include "wire/keys.h"

struct fixture {
    char folder[64], path[256];
};

static char warnings[8192];

static void warn(const char *text)
{
    const size_t n = strlen(warnings);

    (void)snprintf(warnings + n, sizeof(warnings) - n, "%s\n", text);
}

static int setup(void **state)
{
    static struct fixture f;

    strcpy(f.folder, "/tmp/test_keys.XXXXXX");
    warnings[0] = '\0';
    *state = &f;
    return mkdtemp(f.folder) ? 0 : -1;
}

static int teardown(void **state)
{
    const struct fixture *f = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -r %s", f->folder);
    return system(command);
}

static const char *in(struct fixture *f, const char *name)
{
    (void)snprintf(f->path, sizeof(f->path), "%s/%s", f->folder, name);
    return f->path;
}

static void write_text(const char *path, mode_t mode, const char *text)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* A pair; its public key is admitted as `role`/NAME.pub if `role` is given. */
static void make_pair(struct fixture *f, const char *name, const char *role, char ret_public[KEY_TEXT_SIZE])
{
    char path[320], line[64];
    struct err err = {""};

    if (key_pair_write(in(f, name), ret_public, &err) < 0)
        fail_msg("%s", err.text);
    if (!role)
        return;
    (void)snprintf(path, sizeof(path), "%s/%s/%s.pub", f->folder, role, name);
    (void)snprintf(line, sizeof(line), "# of %s\n%s\n", name, ret_public);
    write_text(path, 0644, line);
}

static void make_folders(struct fixture *f)
{
    assert_int_equal(mkdir(in(f, "workers"), 0755) + mkdir(in(f, "clients"), 0755) + mkdir(in(f, "admins"), 0755), 0);
}

static int load(const char *secret, const char *server, bool is_broker, struct wire_keys *ret, struct err *err)
{
    struct wire_keys_conf conf = {0};

    (void)snprintf(conf.secret_key_file, sizeof(conf.secret_key_file), "%s", secret);
    (void)snprintf(conf.server_key_file, sizeof(conf.server_key_file), "%s", server);
    return wire_keys_load(&conf, is_broker, ret, err);
}

static void test_keys_come_back_from_their_files(void **state)
{
    struct fixture *f = *state;
    char own[KEY_TEXT_SIZE], server[KEY_TEXT_SIZE], server_path[256];
    struct err err = {""};
    struct wire_keys k;

    make_pair(f, "own", NULL, own);
    make_pair(f, "server", NULL, server);
    strcpy(server_path, in(f, "server.pub"));
    assert_int_equal(load(in(f, "own"), server_path, false, &k, &err), 0);
    assert_true(k.curve);
    assert_string_equal(k.public_key, own);
    assert_string_equal(k.server_key, server);
    wire_keys_wipe(&k);
    assert_false(k.curve || k.secret_key[0]);
    assert_int_equal(wire_keys_load(&(struct wire_keys_conf){.insecure = true}, false, &k, &err), 0);
    assert_true(k.insecure && !k.curve);
    assert_int_equal(load("", server_path, false, &k, &err), -EINVAL);
    assert_int_equal(load(in(f, "own"), "", false, &k, &err), -EINVAL);
}

static void test_keys_bad_files_are_refused_by_name(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text;
        mode_t mode;
        const char *what;
    } cases[] = {
        {"", 0600, "not a key file"},
        {"secret short\n", 0600, "not a key file"},
        {"secret \"'\\\\6>QVBh=cFmx$O(:E7>HIvFMi(0qDFmM]:h]\n", 0600, "not a key file"},
        {"secret rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\nsecret rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", 0600,
         "not a key file"},
        {"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", 0600, "this is a public key"},
        {"secret rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", 0604, "chmod 600"},
        {"secret rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", 0640, "chmod 600"},
        {"secret rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", 0620, "chmod 600"},
    };
    struct wire_keys k = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {""};

        write_text(in(f, "k"), cases[i].mode, cases[i].text);
        assert_true(load(f->path, "", true, &k, &err) < 0);
        if (!strstr(err.text, cases[i].what) || !strstr(err.text, f->path) || strstr(err.text, "rq:rM"))
            fail_msg("case %zu: %s", i, err.text);
    }
    assert_false(k.curve);
}

static void test_keys_that_exist_are_not_overwritten(void **state)
{
    struct fixture *f = *state;
    char key[KEY_TEXT_SIZE];
    struct err err = {""};
    struct stat st;

    make_pair(f, "a", NULL, key);
    assert_int_equal(stat(in(f, "a"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(key_pair_write(in(f, "a"), key, &err), -EEXIST);
    assert_int_equal(unlink(in(f, "a")), 0);
    assert_int_equal(key_pair_write(in(f, "a"), key, &err), -EEXIST);
    assert_int_equal(access(in(f, "a"), F_OK), -1);
}

static void test_keys_names(void **state)
{
    static const char *const good[] = {"a", "alice", "gpu-1.example.org", "alice@host", "1"};
    static const char *const bad[] = {
        "", ".a", "-a", "a b", "a/b", "\303\244", "0123456789012345678901234567890123456789012345678901234567890123"};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(key_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(key_name_is_valid(bad[i]));
}

static void test_allowed_keys_have_the_role_of_their_folder(void **state)
{
    struct fixture *f = *state;
    char a[KEY_TEXT_SIZE], b[KEY_TEXT_SIZE], c[KEY_TEXT_SIZE], path[256];
    uint8_t bytes[KEY_BYTES];
    struct err err = {""};
    struct allowed *list, *copy;

    make_folders(f);
    make_pair(f, "host1", "workers", a);
    make_pair(f, "alice", "clients", b);
    make_pair(f, "root", "admins", c);
    assert_int_equal(allowed_load(f->folder, warn, &list, &err), 0);
    assert_string_equal(warnings, "");
    assert_int_equal(list->n, 3);
    strcpy(path, in(f, "alice.pub"));
    assert_int_equal(public_key_load(path, b, bytes, &err), 0);
    assert_string_equal(allowed_find(list, bytes)->name, "alice");
    assert_int_equal(allowed_find(list, bytes)->role, MSG_ROLE_CLIENT);
    copy = allowed_copy(list);
    assert_int_equal(allowed_find_id(copy, allowed_find(list, bytes)->id)->role, MSG_ROLE_CLIENT);
    assert_null(allowed_find_id(copy, "client alice"));
    bytes[31] ^= 1;
    assert_null(allowed_find(list, bytes));
    allowed_free(list);
    allowed_free(copy);
}

static void test_allowed_bad_files_lock_nobody_out(void **state)
{
    struct fixture *f = *state;
    char key[KEY_TEXT_SIZE], line[64], path[320];
    struct err err = {""};
    struct allowed *list;

    make_folders(f);
    make_pair(f, "good", "clients", key);
    (void)snprintf(line, sizeof(line), "%s\n", key);
    write_text(in(f, "workers/twice.pub"), 0644, line);
    write_text(in(f, "admins/twice.pub"), 0644, line);
    write_text(in(f, "clients/empty.pub"), 0644, "");
    write_text(in(f, "clients/b ad.pub"), 0644, line);
    write_text(in(f, "clients/open.pub"), 0646, line);
    write_text(in(f, "clients/notes.txt"), 0644, "not looked at");
    (void)snprintf(path, sizeof(path), "%s/good.pub", f->folder);
    assert_int_equal(symlink(path, in(f, "clients/link.pub")), 0);
    assert_int_equal(mkdir(in(f, "clients/folder.pub"), 0755), 0);
    assert_int_equal(allowed_load(f->folder, warn, &list, &err), 0);
    assert_int_equal(list->n, 1); /* the least role of the key */
    assert_int_equal(list->keys[0].role, MSG_ROLE_WORKER);
    for (const char *const *what = (const char *const[]){"clients/good.pub: skipped", "admins/twice.pub: skipped",
                                                         "clients/empty.pub: not a key", "clients/b ad.pub: skipped",
                                                         "clients/open.pub: all users", "clients/link.pub: is a symb",
                                                         "clients/folder.pub: not a regular", NULL};
         *what; what++)
        if (!strstr(warnings, *what))
            fail_msg("no \"%s\" in\n%s", *what, warnings);
    assert_null(strstr(warnings, "notes.txt"));
    allowed_free(list);
}

static void test_allowed_folders_that_all_may_write_count_for_nothing(void **state)
{
    struct fixture *f = *state;
    char key[KEY_TEXT_SIZE];
    struct err err = {""};
    struct allowed *list;

    make_folders(f);
    make_pair(f, "a", "admins", key);
    assert_int_equal(chmod(in(f, "admins"), 0777), 0);
    assert_int_equal(allowed_load(f->folder, warn, &list, &err), 0);
    assert_int_equal(list->n, 0);
    assert_non_null(strstr(warnings, "admins: skipped: all users may write there"));
    allowed_free(list);
    assert_int_equal(chmod(f->folder, 0777), 0);
    assert_int_equal(allowed_load(f->folder, warn, &list, &err), -EPERM);
    assert_int_equal(allowed_load(in(f, "nowhere"), warn, &list, &err), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_keys_come_back_from_their_files),
        TEST(test_keys_bad_files_are_refused_by_name),
        TEST(test_keys_that_exist_are_not_overwritten),
        TEST(test_keys_names),
        TEST(test_allowed_keys_have_the_role_of_their_folder),
        TEST(test_allowed_bad_files_lock_nobody_out),
        TEST(test_allowed_folders_that_all_may_write_count_for_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
