#include "client/selftest_demo.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SOURCE_TREE, INSTALLED, N_LAYOUTS };

static const struct {
    size_t offset;
    const char *in[N_LAYOUTS];
} places[] = {
    {offsetof(struct selftest_demo, caption_model), {"models/blip2-opt-demo", "models/blip2-opt-demo"}},
    {offsetof(struct selftest_demo, score_model), {"models/blip2-itm-demo", "models/blip2-itm-demo"}},
    {offsetof(struct selftest_demo, caption_golden), {"tests/golden/demo_opt", "selftest/demo_opt"}},
    {offsetof(struct selftest_demo, score_golden), {"tests/golden/demo_itm", "selftest/demo_itm"}},
    {offsetof(struct selftest_demo, sampler), {"tests/golden/decode/sampler.json", "selftest/sampler.json"}},
    {offsetof(struct selftest_demo, answers), {"tests/golden/decode/demo_answers.json", "selftest/demo_answers.json"}},
    {offsetof(struct selftest_demo, images), {"examples/images", "selftest/images"}},
};

/* What says that `root` is one: the reference data's folder. */
static const char *const signs[N_LAYOUTS] = {"tests/golden/demo_opt", "selftest/demo_opt"};

static bool is_root(const char *root, int layout)
{
    char path[PATH_MAX];

    return (size_t)snprintf(path, sizeof(path), "%s/%s", root, signs[layout]) < sizeof(path) && access(path, F_OK) == 0;
}

static int fill(const char *root, int layout, struct selftest_demo *ret, struct err *err)
{
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char *path = (char *)ret + places[i].offset;

        if ((size_t)snprintf(path, PATH_MAX, "%s/%s", root, places[i].in[layout]) >= PATH_MAX)
            return err_set(err, -ENAMETOOLONG, "%s: the path is too long", root);
        if (access(path, R_OK) < 0)
            return err_set(err, -errno, "%s: %s; %s", path, strerror(errno),
                           layout == SOURCE_TREE ? "get it back with git checkout" : "install Blipline again");
    }
    return 0;
}

/* `path` and the folders above it: is one of them the source tree? */
static bool find_source(char *path)
{
    for (;;) {
        char *slash = strrchr(path, '/');

        if (is_root(*path ? path : "/", SOURCE_TREE))
            return true;
        if (!slash)
            return false;
        *slash = '\0';
    }
}

int selftest_demo_find(struct selftest_demo *ret, struct err *err)
{
    char self[PATH_MAX], path[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n < 0)
        return err_set(err, -errno, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    slash = strrchr(self, '/');
    *(slash ? slash : self) = '\0';
    (void)snprintf(path, sizeof(path), "%s/../share/blipline", self);
    if (is_root(path, INSTALLED))
        return fill(path, INSTALLED, ret, err);
    (void)snprintf(path, sizeof(path), "%s", self);
    if (find_source(path) || (getcwd(path, sizeof(path)) && find_source(path)))
        return fill(path, SOURCE_TREE, ret, err);
    return err_set(err, -ENOENT,
                   "the demo models' reference data are neither in %s/../share/blipline nor in a source tree here: "
                   "`make install` puts them there; or name a checkpoint that has its own: selftest DIR --golden DIR",
                   self);
}
