#include "recipe/home.h"

#include "base/nearest.h"
#include "console/shell.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_NAMES = 64, NAME_SIZE = 64 };

/* The reference data of the self-test, by which a home is recognised. */
static const char sign_of_source[] = "tests/golden/demo_opt", sign_of_installed[] = "selftest/demo_opt";

static bool has(const char *folder, const char *sign)
{
    char path[PATH_MAX];

    return (size_t)snprintf(path, sizeof(path), "%s/%s", folder, sign) < sizeof(path) && access(path, F_OK) == 0;
}

/* Looks for the source tree in `path` and the folders above it. */
static bool find_source(char *path)
{
    for (;;) {
        char *slash = strrchr(path, '/');

        if (has(*path ? path : "/", sign_of_source))
            return true;
        if (!slash)
            return false;
        *slash = '\0';
    }
}

int home_find(struct home *ret, struct err *err)
{
    char self[PATH_MAX], installed[PATH_MAX + 32];
    int rc = file_program_folder(self, err);

    if (rc < 0)
        return rc;
    (void)snprintf(installed, sizeof(installed), "%s/../share/blipline", self);
    ret->installed = has(installed, sign_of_installed) && realpath(installed, ret->path);
    if (ret->installed)
        return 0;
    (void)snprintf(ret->path, sizeof(ret->path), "%s", self);
    if (find_source(ret->path) || (getcwd(ret->path, sizeof(ret->path)) && find_source(ret->path)))
        return 0;
    return err_set(err, -ENOENT,
                   "the files that come with Blipline are neither in %s/../share/blipline nor in a source tree "
                   "here; run `make install`",
                   self);
}

static bool is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Appends the folders in `folder` to the *n words. */
static void list_models(const char *folder, char names[MAX_NAMES][NAME_SIZE], const char **words, size_t *n)
{
    DIR *d = opendir(folder);

    for (const struct dirent *e; d && *n < MAX_NAMES && (e = readdir(d));) {
        char path[PATH_MAX];

        if (e->d_name[0] == '.' || strlen(e->d_name) >= NAME_SIZE ||
            snprintf(path, sizeof(path), "%s/%s/config.json", folder, e->d_name) >= (int)sizeof(path) ||
            access(path, F_OK) < 0)
            continue;
        (void)snprintf(names[*n], NAME_SIZE, "%.*s", NAME_SIZE - 1, e->d_name);
        words[*n] = names[*n];
        ++*n;
    }
    if (d)
        (void)closedir(d);
}

/* `home`: the folder of models that came with the program, or "". */
static int complain(const char *option, const char *name, const char *home, struct err *err)
{
    static char names[MAX_NAMES][NAME_SIZE];
    const char *words[MAX_NAMES + 1], *last = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    char hint[96], where[PATH_MAX + 64] = "";
    size_t n = 0;

    if (strncmp(name, "Salesforce/", 11) == 0 && !last[strspn(last, "abcdefghijklmnopqrstuvwxyz0123456789.-")])
        return err_set(err, -EDOM,
                       "%s %.100s: is not on this machine yet. Download it, then say %s %.80s:\n"
                       "  hf download %.100s --exclude '*.bin' --local-dir models/%.80s",
                       option, name, option, last, name, last);
    list_models("models", names, words, &n);
    list_models(home, names, words, &n);
    words[n] = NULL;
    if (last == name)
        (void)snprintf(where, sizeof(where), " here, in models/%s%s", *home ? " or in " : "", home);
    return err_set(err, -EDOM, "%s %.150s: there is no such folder%.200s%s (blipline help models says how to get one)",
                   option, name, where, nearest_hint("", last, words, hint, sizeof(hint)));
}

int home_model(const char *option, const char *name, char ret[PATH_MAX], struct err *err)
{
    char path[2 * PATH_MAX], models[PATH_MAX + 16] = "";
    const bool bare = *name && !strchr(name, '/');
    struct home home;

    if (home_find(&home, NULL) == 0)
        (void)snprintf(models, sizeof(models), "%s/models", home.path);
    for (int i = 0; i < (bare ? 3 : 1); i++) {
        if (i == 2 && !*models)
            continue;
        (void)snprintf(path, sizeof(path), "%s%s%s", i == 0 ? "" : i == 1 ? "models" : models, i ? "/" : "", name);
        if (is_folder(path) && realpath(path, ret))
            return 0;
    }
    if (access(name, F_OK) == 0)
        return err_set(err, -EDOM, "%s %.200s: is a file; give the folder of a checkpoint (blipline help models)",
                       option, name);
    return complain(option, name, models, err);
}
