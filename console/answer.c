#include "console/answer.h"

#include "console/cli.h"
#include "console/printable.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { ANSWER_VERSION = 1 };

static bool wanted, printed;
static const char *command = "";
static char error[4096];

void answer_begin(int argc, char **argv)
{
    command = argc > 1 ? argv[1] : "";
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        wanted = wanted || strcmp(argv[i], "--json") == 0;
}

void answer_print(const char *schema, struct json_t *object, size_t flags)
{
    json_t *all = json_pack("{s:s, s:i}", "schema", schema, "version", ANSWER_VERSION);

    if (object && all && json_object_update(all, object) == 0) {
        (void)json_dumpf(all, stdout, flags);
        putchar('\n');
        printed = true;
        error[0] = '\0';
    }
    json_decref(object);
    json_decref(all);
}

const char *answer_of_crash(void)
{
    return wanted
               ? "{\"schema\": \"error\", \"version\": 1, \"error\": {\"exit_code\": 1, \"message\": \"crashed while "
                 "reading the store; standard error says more\"}}\n"
               : "";
}

void answer_error(const char *text)
{
    (void)snprintf(error, sizeof(error), "%s", text);
}

struct json_t *answer_text(const char *text)
{
    char shown[sizeof(error)];
    json_t *as_it_is = json_string(text);

    return as_it_is ? as_it_is : json_string(printable_text(text, strlen(text), shown, sizeof(shown)));
}

struct json_t *answer_text_or_null(const char *text)
{
    return text[0] ? answer_text(text) : json_null();
}

void answer_end(int exit_code)
{
    if (!wanted || exit_code == CLI_EXIT_OK || exit_code == CLI_EXIT_FAILED_ITEMS || (printed && !error[0]))
        return;
    answer_print("error",
                 json_pack("{s:o, s:{s:i, s:o}}", "command", answer_text(command), "error", "exit_code", exit_code,
                           "message", answer_text(error)),
                 0);
}
