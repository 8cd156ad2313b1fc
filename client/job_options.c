#include "client/job_options.h"

#include "recipe/home.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain_no_model(const char *command, const struct recipe *r)
{
    bool captions = r->stages & RECIPE_CAPTION;
    const char *demo = captions ? "blip2-opt-demo" : "blip2-itm-demo";
    const char *published = captions ? "blip2-opt-2.7b" : "blip2-itm-vit-g";
    char path[PATH_MAX];

    cli_error("%s: --model DIR is missing. Two ways to get a model:\n"
              "  1. the small one that comes with Blipline (it only knows drawings of pictograms):\n"
              "       --model %-20s (%s)\n"
              "  2. a published one for real photographs (%s; hf is in the Python package "
              "huggingface_hub):\n"
              "       hf download Salesforce/%s --exclude '*.bin' --local-dir models/%s\n"
              "       --model %s",
              command, demo, home_model("--model", demo, path, NULL) == 0 ? path : "run `make install` first",
              captions ? "15 GB" : "5 GB", published, published, published);
    return CLI_EXIT_USAGE;
}

int job_flags_check_models(const char *command, const struct job_flags *f, const struct recipe *r, bool null_device,
                           bool may_be_offered)
{
    bool captions = r->stages & RECIPE_CAPTION;

    if (!null_device && !f->model && (captions || !f->score_model)) {
        if (!may_be_offered)
            return complain_no_model(command, r);
        cli_error(
            "%s: --model NAME is missing: a model that the broker's workers have (blipline models lists them), or "
            "a checkpoint of this machine (blipline help models)",
            command);
        return CLI_EXIT_USAGE;
    }
    if (f->score_model && captions && !r->itc && !r->itm && r->n_embeddings == 0) {
        cli_error("%s: --score-model: the recipe %s does not use it; add --score or --embed itc", command, r->name);
        return CLI_EXIT_USAGE;
    }
    return CLI_EXIT_OK;
}

int job_flags_recipe(const char *command, const struct job_flags *f, struct recipe *ret)
{
    struct err err = {""};
    int rc = recipe_load(f->recipe ? f->recipe : command, ret, &err);

    if (rc == 0)
        rc = recipe_override(ret, &f->settings, &err);
    if (rc == 0)
        rc = recipe_check(ret, RECIPE_OPTIONS, &err);
    if (rc < 0)
        cli_error("%s: %s", command, err.text[0] ? err.text : strerror(-rc));
    return rc;
}

int job_flags_plan(const char *command, const struct job_flags *f, const struct offered_models *offered,
                   enum device_kind device, bool no_fingerprints, struct recipe *recipe, struct plan *ret)
{
    struct plan_options o = {
        .recipe = recipe,
        .model_dir = f->model,
        .score_model_dir = f->score_model,
        .device = device,
        .no_fingerprints = no_fingerprints,
    };
    struct err err = {""};
    int rc;

    if (offered && offered->model.known) {
        o.model_dir = offered->model.folder;
        o.model = &offered->model.model;
    }
    if (offered && offered->score_model.known) {
        o.score_model_dir = offered->score_model.folder;
        o.score_model = &offered->score_model.model;
    }
    rc = plan_make(&o, ret, &err);
    if (rc < 0) {
        cli_error("%s: %s", command, err.text[0] ? err.text : strerror(-rc));
        return rc;
    }
    /* show the types that were left open */
    recipe->dtype_encode = ret->recipe.dtype_encode;
    recipe->dtype_qformer = ret->recipe.dtype_qformer;
    recipe->dtype_llm = ret->recipe.dtype_llm;
    return 0;
}

/* "50", "5%", NULL: the default. */
static int parse_max_failures(const char *text, struct job_options *ret, struct err *err)
{
    char *end;
    double n = 50;

    if (text) {
        errno = 0;
        n = strtod(text, &end);
        if (errno || end == text || strspn(text, "0123456789.") != (size_t)(end - text) ||
            (*end && strcmp(end, "%") != 0))
            return err_set(
                err, -EINVAL,
                "--max-failures %.60s: is neither a number of pictures in a row, such as 50, nor a share, such "
                "as 5%%",
                text);
        if (*end && n > 100)
            return err_set(err, -EINVAL, "--max-failures %.60s: is more than 100%%", text);
        if (*end) {
            ret->max_failed_per_mille = (uint32_t)(n * 10 + 0.5);
            if (ret->max_failed_per_mille == 0)
                return err_set(err, -EINVAL,
                               "--max-failures %.60s: is less than 0.1%%; --max-failures 1 pauses at the "
                               "first failure",
                               text);
            return 0;
        }
    }
    if (n < 1 || n > 1000000000 || n != (double)(uint32_t)n)
        return err_set(err, -EINVAL,
                       "--max-failures %.60s: a whole number from 1 to 1000000000, or a share such as 5%%", text);
    ret->max_failures = (uint32_t)n;
    return 0;
}

int job_flags_options(const struct job_flags *f, const char *const *sources, int n_sources, struct job_options *ret,
                      struct err *err)
{
    *ret = (struct job_options){.sources = sources,
                                .n_sources = n_sources,
                                .unit_items = (uint32_t)f->unit,
                                .limit = (uint64_t)f->limit,
                                .join = f->join,
                                .image_column = f->image_column,
                                .fields = f->fields};
    return parse_max_failures(f->max_failures, ret, err);
}

void job_plan_notes(const struct plan *p)
{
    if (p->is_demo)
        cli_error("the demo model only knows drawings of pictograms; do not expect more of it");
    if (p->note[0])
        cli_error("%s", p->note);
}

struct feed_options job_feed_options(const struct job_options *o, const char *columns[PLAN_MAX_FIELDS])
{
    const struct plan *p = o->plan;
    struct feed_options ret = {
        .sources = o->sources, .n_sources = o->n_sources, .limit = o->limit, .kept = o->fields, .join = o->join};

    for (uint32_t i = 0; i < p->n_fields; i++) {
        columns[i] = p->fields[i].name;
        ret.needed |= (uint32_t)p->fields[i].needed << i;
    }
    ret.columns = (struct source_columns){.names = columns, .n = p->n_fields, .picture = o->image_column};
    return ret;
}

void job_open_fill(const struct job_options *o, uint32_t n_pictures, struct msg_job_open *ret)
{
    *ret = (struct msg_job_open){.recipe = o->plan->recipe,
                                 .n_nodes = o->plan->n_nodes,
                                 .unit_items = o->unit_items,
                                 .max_failures = o->max_failures,
                                 .max_failed_per_mille = o->max_failed_per_mille};
    memcpy(ret->nodes, o->plan->nodes, sizeof(o->plan->nodes));
    for (int i = 0; i < o->n_sources; i++) {
        size_t used = strlen(ret->source);

        (void)snprintf(ret->source + used, sizeof(ret->source) - used, "%s%s", i ? " " : "", o->sources[i]);
    }
    /* for few pictures: units small enough that the stages run in parallel */
    if (ret->unit_items == 0 && n_pictures < FEED_PEEK_ITEMS)
        ret->unit_items = n_pictures > 8 ? (n_pictures + 7) / 8 : 1;
}
