/* Which broker a client talks to, and what it remembers of a submission until the broker has accepted it. */
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

#include "job/broker_conf.h"
#include "job/pending.h"

struct fixture {
    char home[64], system_file[192], user_file[192];
};

static int setup(void **state)
{
    static struct fixture f;
    char folder[128];

    strcpy(f.home, "/tmp/test_broker_conf.XXXXXX");
    if (!mkdtemp(f.home) || setenv("HOME", f.home, 1) < 0 || unsetenv("BLIPLINE_BROKER") < 0)
        return -1;
    (void)snprintf(folder, sizeof(folder), "%s/.config", f.home);
    (void)mkdir(folder, 0700);
    (void)snprintf(folder, sizeof(folder), "%s/.config/blipline", f.home);
    (void)mkdir(folder, 0700);
    (void)snprintf(f.system_file, sizeof(f.system_file), "%s/system.conf", f.home);
    (void)snprintf(f.user_file, sizeof(f.user_file), "%s/client.conf", folder);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    const struct fixture *f = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -r %s", f->home);
    return system(command);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void finds(const struct fixture *f, const char *option, const char *want)
{
    struct broker_conf conf;
    struct err err = {""};

    if (broker_conf_find(option, f->system_file, &conf, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(conf.broker, want);
}

static void test_the_nearest_place_names_the_broker(void **state)
{
    const struct fixture *f = *state;

    write_file(f->system_file, "broker = ipc:///system\n");
    finds(f, NULL, "ipc:///system");
    write_file(f->user_file, "broker = ipc:///user\n");
    finds(f, NULL, "ipc:///user");
    assert_int_equal(setenv("BLIPLINE_BROKER", "ipc:///variable", 1), 0);
    finds(f, NULL, "ipc:///variable");
    finds(f, "ipc:///option", "ipc:///option");
    assert_int_equal(setenv("BLIPLINE_BROKER", "", 1), 0);
    finds(f, NULL, "ipc:///user");
}

static void test_without_a_broker_all_places_are_named(void **state)
{
    const struct fixture *f = *state;
    struct broker_conf conf;
    struct err err = {""};

    assert_int_equal(broker_conf_find(NULL, f->system_file, &conf, &err), -EDOM);
    assert_non_null(strstr(err.text, "--broker"));
    assert_non_null(strstr(err.text, "BLIPLINE_BROKER"));
    assert_non_null(strstr(err.text, "~/.config/blipline/client.conf"));
    assert_non_null(strstr(err.text, f->system_file));
}

static void test_an_error_of_the_file_is_named_even_if_the_broker_is_known(void **state)
{
    const struct fixture *f = *state;
    struct broker_conf conf;
    struct err err = {""};

    write_file(f->user_file, "broker = ipc:///user\nbrokker = x\n");
    assert_true(broker_conf_find("ipc:///option", f->system_file, &conf, &err) < 0);
    assert_non_null(strstr(err.text, "client.conf, line 2"));
    assert_non_null(strstr(err.text, "brokker"));
}

static void test_keys_are_read_for_tcp_only(void **state)
{
    const struct fixture *f = *state;
    struct broker_conf conf;
    struct wire_keys keys;
    struct err err = {""};

    write_file(f->user_file, "secret_key_file = /nowhere/alice\nserver_key_file = /nowhere/broker.pub\n");
    assert_int_equal(broker_conf_find("ipc:///b", f->system_file, &conf, &err), 0);
    assert_int_equal(broker_conf_keys(&conf, &keys, &err), 0);
    assert_false(keys.curve);
    assert_int_equal(broker_conf_find("tcp://host:1", f->system_file, &conf, &err), 0);
    assert_true(broker_conf_keys(&conf, &keys, &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/alice"));
}

/* -- submissions -- */

static int not_busy(void *arg)
{
    (void)arg;
    fail_msg("nobody else has it");
    return -1;
}

static void open_of(struct pending *p, const char *identity)
{
    struct err err = {""};
    struct buf text;
    int rc;

    buf_init(&text, 0);
    assert_int_equal(buf_append(&text, identity, strlen(identity)), 0);
    rc = pending_open(p, &text, not_busy, NULL, &err);
    buf_release(&text);
    if (rc < 0)
        fail_msg("%s", err.text);
}

static void test_a_token_lasts_until_the_submission_is_accepted(void **state)
{
    struct pending first, again, other;
    struct err err = {""};

    (void)state;
    open_of(&first, "a");
    assert_false(first.resumed);
    pending_close(&first);
    open_of(&again, "a");
    assert_true(again.resumed);
    assert_memory_equal(again.token, first.token, sizeof(first.token));
    open_of(&other, "b");
    assert_false(other.resumed);
    assert_memory_not_equal(other.token, first.token, sizeof(first.token));
    pending_close(&other);
    assert_int_equal(pending_accepted(&again, 7, &err), 0);
    assert_int_equal(access(again.path, F_OK), -1);
    pending_close(&again);
    open_of(&again, "a");
    assert_false(again.resumed);
    assert_int_equal(again.job, 0);
    assert_memory_not_equal(again.token, first.token, sizeof(first.token));
    pending_close(&again);
}

/* The states of the file after a kill at any moment. */
static void test_a_file_of_a_killed_process_is_understood(void **state)
{
    struct pending p;

    (void)state;
    open_of(&p, "a");
    pending_close(&p);
    write_file(p.path, "0123456789ab"); /* the token was not written to its end: nothing was sent */
    open_of(&p, "a");
    assert_false(p.resumed);
    pending_close(&p);
    write_file(p.path, "accepted 12\n");
    open_of(&p, "a");
    assert_int_equal(p.job, 12);
    assert_int_equal(access(p.path, F_OK), -1);
    pending_close(&p);
}

static void test_a_submission_that_cannot_be_repeated_leaves_no_file(void **state)
{
    static const uint8_t zeros[MSG_TOKEN_BYTES];
    const struct fixture *f = *state;
    struct err err = {""};
    struct pending p;
    char folder[128];

    assert_int_equal(pending_open(&p, NULL, not_busy, NULL, &err), 0);
    assert_memory_not_equal(p.token, zeros, sizeof(zeros));
    assert_int_equal(pending_accepted(&p, 3, &err), 0);
    (void)snprintf(folder, sizeof(folder), "%s/.local", f->home);
    assert_int_equal(access(folder, F_OK), -1);
    pending_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_nearest_place_names_the_broker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_broker_all_places_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_error_of_the_file_is_named_even_if_the_broker_is_known, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_keys_are_read_for_tcp_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_token_lasts_until_the_submission_is_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_of_a_killed_process_is_understood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_submission_that_cannot_be_repeated_leaves_no_file, setup, teardown),
    };

    return cmocka_run_group_tests_name("broker_conf", tests, NULL, NULL);
}
