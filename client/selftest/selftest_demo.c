#include "client/selftest/selftest_demo.h"

#include "recipe/home.h"

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

int selftest_demo_find(struct selftest_demo *ret, struct err *err)
{
    struct home home;
    int rc = home_find(&home, err);

    if (rc < 0)
        return err_prefix(err, rc, "the demo models' reference data");
    return fill(home.path, home.installed ? INSTALLED : SOURCE_TREE, ret, err);
}
