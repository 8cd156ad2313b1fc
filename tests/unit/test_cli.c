#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console/cli.h"

struct flags {
    const char *out, *format;
    int64_t n, bytes;
    double share;
    struct cli_texts words;
    bool json;
    struct cli_settings settings;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(struct flags, out), "PATH", "where to", 0, 0, NULL},
    {"format", 0, CLI_CHOICE, offsetof(struct flags, format), "FORMAT", "which", 0, 0, "jsonl csv"},
    {"number", 'n', CLI_NUMBER, offsetof(struct flags, n), "N", "how many", 1, 100, NULL},
    {"bytes", 0, CLI_SIZE, offsetof(struct flags, bytes), "SIZE", "how large", 1, INT64_MAX, NULL},
    {"share", 0, CLI_REAL, offsetof(struct flags, share), "X", "how much", -1, 1, NULL},
    {"word", 'w', CLI_TEXTS, offsetof(struct flags, words), "WORD", "a word, repeatable", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct flags, json), NULL, "as JSON", 0, 0, NULL},
    {0},
};

static bool more(size_t i, struct cli_option *ret)
{
    static const struct cli_option table[] = {
        {"beams", 0, CLI_SETTING, offsetof(struct flags, settings), "N", "how wide", 0, 0, NULL},
        {"sample", 's', CLI_SETTING, offsetof(struct flags, settings), "YES", "at random", 0, 0, "yes"},
    };

    if (i >= sizeof(table) / sizeof(*table))
        return false;
    *ret = table[i];
    return true;
}

static const struct cli_command command = {.name = "try",
                                           .line = "",
                                           .usage = "STORE [KEY]",
                                           .about = "About it.",
                                           .options = options,
                                           .more_options = more,
                                           .min_args = 1,
                                           .max_args = 2};

/* Parse the words (NULL-ended); what was said on standard error lands in `said`. */
static char said[4096];
static char argv_words[16][256]; /* texts of the flags point into them until the next call */
static int parse(struct flags *f, char **ret_last, const char *first, ...)
{
    char *argv[16] = {argv_words[0]};
    int argc = 1, saved = dup(STDERR_FILENO), rc;
    FILE *file = tmpfile();
    va_list ap;

    (void)snprintf(argv_words[0], sizeof(argv_words[0]), "try");
    va_start(ap, first);
    for (const char *w = first; w; w = va_arg(ap, const char *)) {
        (void)snprintf(argv_words[argc], sizeof(argv_words[0]), "%s", w);
        argv[argc] = argv_words[argc];
        argc++;
    }
    va_end(ap);
    (void)fflush(stderr);
    (void)dup2(fileno(file), STDERR_FILENO);
    rc = cli_parse(&command, argc, argv, f);
    (void)fflush(stderr);
    (void)dup2(saved, STDERR_FILENO);
    (void)close(saved);
    rewind(file);
    said[fread(said, 1, sizeof(said) - 1, file)] = '\0';
    (void)fclose(file);
    *ret_last = argv[argc - 1];
    return rc;
}

static void test_cli_reals_have_a_range_and_texts_gather(void **state)
{
    struct flags f = {.share = 7};
    char *last;

    (void)state;
    assert_int_equal(parse(&f, &last, "store", "--share", "-0.25", "-w", "a", "--word=b", NULL), 1);
    assert_true(f.share == -0.25);
    assert_int_equal(f.words.n, 2);
    assert_string_equal(f.words.texts[0], "a");
    assert_string_equal(f.words.texts[1], "b");
    assert_true(parse(&f, &last, "store", "--share", "1.5", NULL) < 0);
    assert_non_null(strstr(said, "from -1 to 1"));
    assert_true(parse(&f, &last, "store", "--share", "nan", NULL) < 0);
    assert_true(parse(&f, &last, "store", "--share", "x", NULL) < 0);
    assert_non_null(strstr(said, "not a number"));
}

static void test_cli_options_and_arguments_mix(void **state)
{
    struct flags f = {.format = "jsonl"};
    char *last;

    (void)state;
    assert_int_equal(parse(&f, &last, "--json", "store", "-n", "7", "--format=csv", "-oout", NULL), 1);
    assert_string_equal(last, "store");
    assert_string_equal(f.out, "out");
    assert_string_equal(f.format, "csv");
    assert_int_equal(f.n, 7);
    assert_true(f.json);
    assert_int_equal(parse(&f, &last, "store", "--bytes", "3MiB", NULL), 1);
    assert_int_equal(f.bytes, 3 << 20);
    assert_int_equal(parse(&f, &last, "store", "--", "--json", NULL), 2);
    assert_string_equal(last, "--json");
}

static void test_cli_wrong_lines_exit_2_and_say_why(void **state)
{
    static const struct {
        const char *words[3], *hint;
    } wrong[] = {
        {{"s", "--formt", "csv"}, "did you mean --format"},
        {{"s", "--nonsense", NULL}, "unknown option --nonsense"},
        {{"s", "-x", NULL}, "unknown option -x"},
        {{"s", "--number", "many"}, "not a whole number"},
        {{"s", "--number", "0"}, "from 1 to 100"},
        {{"s", "--number", "101"}, "from 1 to 100"},
        {{"s", "--number", "7x"}, "not a whole number"},
        {{"s", "--number", " 7"}, "not a whole number"},
        {{"s", "--number", "99999999999999999999"}, "not a whole number"},
        {{"s", "--bytes", "3Mb"}, "not a size such as 4096, 64MiB, 8GiB"},
        {{"s", "--bytes", "0"}, "expected 1 or more"},
        {{"s", "--format", "xml"}, "not one of: jsonl csv"},
        {{"s", "--format", "json"}, "not one of"},
        {{"s", "--json=yes", NULL}, "takes no value"},
        {{"s", "--output", NULL}, "needs a value"},
        {{"s", "-n", NULL}, "needs a value"},
        {{"--json", NULL, NULL}, "an argument is missing: STORE"},
        {{"a", "b", "c"}, "too many arguments"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct flags f = {0};
        char *last;
        int rc = parse(&f, &last, wrong[i].words[0], wrong[i].words[1], wrong[i].words[2], NULL);

        assert_true(rc < 0);
        assert_int_equal(cli_exit_code(rc), CLI_EXIT_USAGE);
        if (!strstr(said, wrong[i].hint))
            fail_msg("case %zu: \"%s\" is not in: %s", i, wrong[i].hint, said);
    }
}

static void test_cli_help_names_every_option(void **state)
{
    char *page = NULL;
    size_t size;
    FILE *out = open_memstream(&page, &size);

    (void)state;
    cli_print_help(&command, out);
    (void)fclose(out);
    for (const struct cli_option *o = options; o->name; o++)
        assert_non_null(strstr(page, o->name));
    assert_non_null(strstr(page, "Usage: blipline try STORE [KEY]"));
    assert_non_null(strstr(page, "  -o, --output PATH"));
    free(page);
}

static void test_cli_settings_keep_their_order(void **state)
{
    struct flags f = {0};
    char *last, *page = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&page, &n);

    (void)state;
    assert_int_equal(parse(&f, &last, "--sample", "--beams", "5", "x", "--sample=no", "--beams=6", "-s", NULL), 1);
    assert_string_equal(last, "x");
    assert_int_equal(f.settings.n, 5);
    assert_string_equal(f.settings.list[0].name, "sample");
    assert_string_equal(f.settings.list[0].value, "yes");
    assert_string_equal(f.settings.list[1].value, "5");
    assert_string_equal(f.settings.list[2].value, "no");
    assert_string_equal(f.settings.list[3].name, "beams");
    assert_string_equal(f.settings.list[4].value, "yes");
    assert_true(parse(&f, &last, "x", "--beams", NULL) < 0);
    assert_non_null(strstr(said, "--beams needs a value"));
    assert_true(parse(&f, &last, "x", "--beans", "1", NULL) < 0);
    assert_non_null(strstr(said, "did you mean --beams?"));
    cli_print_help(&command, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(page, "--beams N"));
    assert_non_null(strstr(page, "-s, --sample[=YES]"));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_reals_have_a_range_and_texts_gather),
        cmocka_unit_test(test_cli_options_and_arguments_mix),
        cmocka_unit_test(test_cli_wrong_lines_exit_2_and_say_why),
        cmocka_unit_test(test_cli_settings_keep_their_order),
        cmocka_unit_test(test_cli_help_names_every_option),
    };

    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
