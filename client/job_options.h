/* job_options.h - what a job is to do, and the options that say so: the same for jobs of this machine (caption, score,
 * embed) and for jobs of a broker (submit).
 *
 * Who may call: the commands. Units: items. Memory: texts point into argv.
 * Errors: see each; those of the functions with a `command` have been printed. */
#ifndef BLIPLINE_CLIENT_JOB_OPTIONS_H
#define BLIPLINE_CLIENT_JOB_OPTIONS_H

#include "client/offered.h"
#include "console/cli.h"
#include "job/feed.h"
#include "recipe/plan.h"
#include "recipe/recipe.h"

#include <stdbool.h>
#include <stdint.h>

enum { JOB_MAX_UNIT = 64, JOB_ALL_STAGES = RECIPE_CAPTION | RECIPE_SCORE | RECIPE_EMBED };

/* The options as given. */
struct job_flags {
    const char *model, *score_model, *recipe, *join, *image_column, *fields, *max_failures;
    struct cli_settings settings; /* of the recipe */
    int64_t unit, limit;
};

/* Rows of a command's table; `type` is its struct, with a member struct job_flags job. */
#define JOB_OPTION(type, name, letter, kind, member, value, help, min, max)                                       \
    {                                                                                                             \
        name, letter, kind, offsetof(type, job) + offsetof(struct job_flags, member), value, help, min, max, NULL \
    }
#define JOB_OPTION_MODEL(type)                                                                                        \
    JOB_OPTION(type, "model", 'm', CLI_TEXT, model, "DIR",                                                            \
               "the checkpoint: a folder, or the name of a folder in models/ or of a model that comes with Blipline " \
               "(blipline help models)",                                                                              \
               0, 0)
#define JOB_OPTION_SCORE_MODEL(type)                                 \
    JOB_OPTION(type, "score-model", 0, CLI_TEXT, score_model, "DIR", \
               "the retrieval checkpoint, if the job also scores or stores ITC embeddings", 0, 0)
#define JOB_OPTION_RECIPE(type)                                                                                 \
    JOB_OPTION(type, "recipe", 'r', CLI_TEXT, recipe, "RECIPE",                                                 \
               "what to compute: a built-in recipe or a recipe file (blipline help recipe). The options below " \
               "override it",                                                                                   \
               0, 0)
#define JOB_OPTION_JOIN(type)                                                                                        \
    JOB_OPTION(type, "join", 'j', CLI_TEXT, join, "TABLE",                                                           \
               "a table (.jsonl, .csv, .tsv) with a column `key`. Its other columns are added to the pictures with " \
               "these keys. If several rows have the same key, all their values are used",                           \
               0, 0)
#define JOB_OPTION_IMAGE_COLUMN(type)                                                                              \
    JOB_OPTION(type, "image-column", 0, CLI_TEXT, image_column, "NAME",                                            \
               "the column of a list that names the picture (default: the first of path, image, image_path, ...: " \
               "blipline help sources)",                                                                           \
               0, 0)
#define JOB_OPTION_FIELDS(type)                                                                                     \
    JOB_OPTION(type, "fields", 0, CLI_TEXT, fields, "NAMES",                                                        \
               "columns of the lists to keep with the pictures, separated by commas, for `export --fields`. path, " \
               "size, mtime and source are always kept. Only for a new store",                                      \
               0, 0)
#define JOB_OPTION_UNIT(type)                                                                                       \
    JOB_OPTION(type, "unit", 0, CLI_NUMBER, unit, "N",                                                              \
               "pictures that are processed and committed together (default: depends on their number). Only for a " \
               "new store",                                                                                         \
               1, JOB_MAX_UNIT)
#define JOB_OPTION_LIMIT(type) \
    JOB_OPTION(type, "limit", 0, CLI_NUMBER, limit, "N", "list only the first N pictures of the sources", 1, INT64_MAX)
#define JOB_OPTION_MAX_FAILURES(type)                                                                                  \
    JOB_OPTION(type, "max-failures", 0, CLI_TEXT, max_failures, "N",                                                   \
               "pause when N pictures in a row fail, before these failures are written down (default: 50). N%: pause " \
               "when more than this share of at least 100 pictures of this run fails (100%: never)",                   \
               0, 0)

/* What they mean. */
struct job_options {
    const char *const *sources;
    int n_sources;
    const struct recipe *recipe; /* from which the plan was made, for messages */
    const struct plan *plan;
    uint32_t unit_items;                         /* 0: chosen by the number of pictures */
    uint64_t limit;                              /* 0: none */
    const char *join;                            /* a table of columns by key; NULL: none */
    const char *image_column;                    /* of lists; NULL: the usual ones */
    const char *fields;                          /* comma-separated columns to keep besides the recipe's; NULL: none */
    uint32_t max_failures, max_failed_per_mille; /* as in struct msg_job_open */
};

/* The recipe of the command, with the options that override it. */
int job_flags_recipe(const char *command, const struct job_flags *f, struct recipe *ret) CHECK_RESULT;
/* CLI_EXIT_OK, or the exit code: a model is missing, or one is given that the recipe does not use.
 * `may_be_offered`: the models may be those of a broker's workers. */
int job_flags_check_models(const char *command, const struct job_flags *f, const struct recipe *r, bool null_device,
                           bool may_be_offered);
/* Plan the job. `offered`: where the models come from; NULL: from checkpoints. The types that the recipe leaves open
 * are set in it, too. */
int job_flags_plan(const char *command, const struct job_flags *f, const struct offered_models *offered,
                   enum device_kind device, bool no_fingerprints, struct recipe *recipe, struct plan *ret) CHECK_RESULT;
/* The options, except recipe and plan. -EINVAL: --max-failures is wrong. */
int job_flags_options(const struct job_flags *f, const char *const *sources, int n_sources, struct job_options *ret,
                      struct err *err) CHECK_RESULT;
/* Print what a user should know of the models. */
void job_plan_notes(const struct plan *p);

/* How the feed is to read the sources. `columns`: room for the names of the plan's columns. */
struct feed_options job_feed_options(const struct job_options *o, const char *columns[PLAN_MAX_FIELDS]);
/* Recipe, stages, sources and limits of the job. n_pictures: how many there are; FEED_PEEK_ITEMS: many. */
void job_open_fill(const struct job_options *o, uint32_t n_pictures, struct msg_job_open *ret);

#endif
