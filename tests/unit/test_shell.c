/* Words for a shell: what bash makes of them is what they were. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "console/shell.h"

/* bash reads `word` back as `text`. */
static void comes_back(const char *text, const char *word)
{
    char command[2 * SHELL_SIZE], back[SHELL_SIZE];
    size_t n;
    FILE *shell;

    (void)snprintf(command, sizeof(command), "cat <<'END_OF_SCRIPT' | bash\nprintf %%s %s\nEND_OF_SCRIPT", word);
    shell = popen(command, "r");
    assert_non_null(shell);
    n = fread(back, 1, sizeof(back) - 1, shell);
    back[n] = '\0';
    assert_int_equal(pclose(shell), 0);
    if (strcmp(back, text) != 0)
        fail_msg("%s became %s", word, back);
}

static void test_shell_words_are_quoted_where_they_must_be(void **state)
{
    static const struct {
        const char *text, *word;
    } words[] = {
        {"photos.lmdb", "photos.lmdb"},
        {"/a/b-c_d.e:f@g%h+i,j=k", "/a/b-c_d.e:f@g%h+i,j=k"},
        {"", "''"},
        {"my photos", "'my photos'"},
        {"it's", "'it'\\''s'"},
        {"~", "'~'"},
        {"a\nb\tc'\\", "$'a\\012b\\011c\\'\\\\'"},
        {"\x1b[31m", "$'\\033[31m'"},
        {"$HOME `x` \"y\" *?;&|<>(){}!#", "'$HOME `x` \"y\" *?;&|<>(){}!#'"},
        {"Stra\xc3\x9f"
         "e",
         "'Stra\xc3\x9f"
         "e'"},
    };
    char word[SHELL_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        assert_string_equal(shell_word(words[i].text, word, sizeof(word)), words[i].word);
        comes_back(words[i].text, word);
    }
}

static void test_shell_words_of_any_bytes_come_back(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    char text[24], word[SHELL_SIZE];

    (void)state;
    fprintf(stderr, "seed %u\n", seed);
    for (int trial = 0; trial < 50; trial++) {
        size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(text) - 1);

        for (size_t i = 0; i < n; i++)
            text[i] = (char)(1 + rand_r(&seed) % 255);
        text[n] = '\0';
        comes_back(text, shell_word(text, word, sizeof(word)));
    }
}

static void test_shell_commands_are_called_as_the_program_was(void **state)
{
    char command[SHELL_SIZE], tight[16], many[SHELL_SIZE];

    (void)state;
    assert_string_equal(shell_command("stats", "a b", command, sizeof(command)), "blipline stats 'a b'");
    assert_string_equal(shell_command("stats", "-v", command, sizeof(command)), "blipline stats ./-v");
    shell_set_program("/my builds/blipline");
    assert_string_equal(shell_command("stats", "s", command, sizeof(command)), "'/my builds/blipline' stats s");
    shell_set_program("");
    shell_set_program(NULL);
    assert_string_equal(shell_command("stats", "s", command, sizeof(command)), "'/my builds/blipline' stats s");
    memset(many, '\'', sizeof(many) - 1); /* what does not fit is cut off */
    many[sizeof(many) - 1] = '\0';
    assert_true(strlen(shell_command("stats", many, command, sizeof(command))) < sizeof(command));
    assert_true(strlen(shell_word(many, tight, sizeof(tight))) < sizeof(tight));
    memset(many, '\n', sizeof(many) - 1);
    assert_true(strlen(shell_word(many, tight, sizeof(tight))) < sizeof(tight));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shell_words_are_quoted_where_they_must_be),
        cmocka_unit_test(test_shell_words_of_any_bytes_come_back),
        cmocka_unit_test(test_shell_commands_are_called_as_the_program_was),
    };

    return cmocka_run_group_tests_name("shell", tests, NULL, NULL);
}
