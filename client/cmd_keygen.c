/* cmd_keygen.c - `blipline keygen`: a pair of keys for connections by tcp. */
#include <errno.h>
#include <jansson.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/file.h"
#include "client/commands.h"
#include "client/help_texts.h"
#include "console/answer.h"
#include "wire/keys.h"

struct keygen_options {
    const char *output;
    bool json;
};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, offsetof(struct keygen_options, output), "PATH",
     "the file of the secret key; the public key is PATH.pub (default: ~/.config/blipline/USER)", 0, 0, NULL},
    {"json", 0, CLI_FLAG, offsetof(struct keygen_options, json), NULL,
     "print one JSON object instead of the lines (blipline help json)", 0, 0, NULL},
    {0},
};

/* ~/.config/blipline/USER; its folder is made. */
static int default_path(char ret[PATH_MAX], struct err *err)
{
    const struct passwd *user = getpwuid(geteuid());
    const char *home = getenv("HOME");

    if (!user || !home || !key_name_is_valid(user->pw_name) || !conf_user_path(user->pw_name, ret))
        return err_set(err, -EDOM, "there is no name for the key file; choose one with -o");
    return file_make_folders_above(ret, strlen(home), err);
}

static int choose_path(const char *output, char ret[PATH_MAX], struct err *err)
{
    char name[PATH_MAX];

    if (!output)
        return default_path(ret, err);
    file_base_name(output, name, sizeof(name));
    if (snprintf(ret, PATH_MAX, "%s", output) >= PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "%s: path too long", output);
    if (!key_name_is_valid(name))
        return err_set(err, -EDOM, "%s: a key's name has 1 to 63 characters of A-Z a-z 0-9 . _ - @, such as alice",
                       output);
    return 0;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct keygen_options o = {0};
    int n_args = cli_parse(self, argc, argv, &o), rc;
    char path[PATH_MAX], public_key[KEY_TEXT_SIZE];
    struct err err = {""};

    if (n_args < 0)
        return cli_exit_code(n_args);
    rc = choose_path(o.output, path, &err);
    if (rc == 0)
        rc = key_pair_write(path, public_key, &err);
    if (rc < 0) {
        cli_error("keygen: %s", err.text);
        return cli_exit_of(rc);
    }
    if (o.json) {
        char public_path[PATH_MAX + 8];

        (void)snprintf(public_path, sizeof(public_path), "%s.pub", path);
        answer_print("keygen",
                     json_pack("{s:s, s:s, s:s}", "secret_key_file", path, "public_key_file", public_path, "public_key",
                               public_key),
                     0);
        return CLI_EXIT_OK;
    }
    printf("%s: the secret key; it must stay on this machine\n"
           "%s.pub: the public key; the broker needs it (blipline help keys)\n",
           path, path);
    return CLI_EXIT_OK;
}

const struct cli_command cmd_keygen = {
    .name = "keygen",
    .line = "make keys for connections by tcp",
    .usage = "[-o DIR/NAME] [--json]",
    .about = HELP_KEYGEN,
    .examples = HELP_KEYGEN_EXAMPLES,
    .options = options,
    .run = run,
};
