/* plan_offered.c - models that the workers of a broker have offered: number types and fingerprints. */
#include "recipe/plan_private.h"

#include "model/fingerprint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* -- what the workers compute -- */

/* Does a worker compute the stage? Once workers of a stage are connected, only these count. */
static bool is_usable(const struct model *m, const struct model_stage *s, enum stage stage)
{
    if (s->stage != stage)
        return false;
    for (uint32_t i = 0; s->n_workers == 0 && i < m->n_stages; i++)
        if (m->stages[i].stage == stage && m->stages[i].n_workers)
            return false;
    return true;
}

static unsigned settings_of(enum stage stage, const struct plan_dtypes *d)
{
    return stage == STAGE_ENCODE ? d->encoder_settings : 0;
}

static bool has_dtype(const struct model *m, enum stage stage, unsigned settings, enum dtype dtype)
{
    for (uint32_t i = 0; i < m->n_stages; i++)
        if (is_usable(m, &m->stages[i], stage) && m->stages[i].settings == settings && m->stages[i].dtype == dtype)
            return true;
    return false;
}

/* "fp32", "bf16 and fp8", "fp32 (with EXIF orientation)", ... of the stage; "" if there are none. */
static const char *list_stage(const struct model *m, enum stage stage, char *ret, size_t size)
{
    size_t n = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; i < m->n_stages && n < size; i++) {
        const struct model_stage *s = &m->stages[i];

        if (is_usable(m, s, stage))
            n += (size_t)snprintf(ret + n, size - n, "%s%s%s%s", n ? ", " : "", dtype_word(s->dtype),
                                  s->settings & MODEL_EXIF_ORIENTATION ? " with exif_orientation" : "",
                                  s->settings & MODEL_GREY16_HIGH_BYTE ? " with grey16_high_byte" : "");
    }
    return ret;
}

static int no_worker(const struct model *m, enum stage stage, const char *in, struct err *err)
{
    char have[256];

    if (!list_stage(m, stage, have, sizeof(have))[0])
        return err_set(err, -EDOM,
                       "no %s worker of %s has ever been connected to the broker, so its fingerprint is not known: "
                       "start one (blipline models shows what there is)",
                       stage_name(stage), m->name);
    return err_set(err, -EDOM, "no %s worker of %s computes in %s; there are workers for %s", stage_name(stage),
                   m->name, in, have);
}

/* -- number types -- */

static int choose(const struct plan_options *o, enum stage stage, const struct plan_dtypes *d, enum dtype *dtype,
                  struct err *err)
{
    static const enum dtype all[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3};
    const struct model *models[] = {o->model, stage == STAGE_LLM ? NULL : o->score_model};
    const unsigned settings = settings_of(stage, d);
    bool has[2] = {false, false};
    char have[256], other[256];
    int n = 0;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        bool everywhere = models[0] || models[1];

        for (int k = 0; k < 2; k++) {
            const bool here = models[k] && has_dtype(models[k], stage, settings, all[i]);

            has[k] |= here;
            everywhere &= here || !models[k];
        }
        n += everywhere;
        if (everywhere)
            *dtype = all[i];
    }
    if (n == 0 && has[0] && has[1])
        return err_set(err, -EDOM,
                       "the %s workers of %s compute in %s, those of %s in %s; a job needs one number type for both: "
                       "start workers of the same type",
                       stage_name(stage), models[0]->name, list_stage(models[0], stage, have, sizeof(have)),
                       models[1]->name, list_stage(models[1], stage, other, sizeof(other)));
    for (int k = 0; n > 1 && k < 2; k++)
        if (models[k])
            return err_set(err, -EDOM,
                           "workers compute the %s stage of %s in several number types (%s): choose one by %s",
                           stage_name(stage), models[k]->name, list_stage(models[k], stage, have, sizeof(have)),
                           stage == STAGE_ENCODE    ? "--encoder-dtype"
                           : stage == STAGE_QFORMER ? "--qformer-dtype"
                                                    : "--llm-dtype");
    return 0;
}

int plan_choose_dtypes(const struct plan_options *o, struct plan_dtypes *d, struct err *err)
{
    const struct recipe *r = o->recipe;
    int rc = r->dtype_encode ? 0 : choose(o, STAGE_ENCODE, d, &d->encode, err);

    if (rc == 0 && !r->dtype_qformer)
        rc = choose(o, STAGE_QFORMER, d, &d->qformer, err);
    if (rc == 0 && !r->dtype_llm && (r->stages & RECIPE_CAPTION))
        rc = choose(o, STAGE_LLM, d, &d->llm, err);
    return rc;
}

/* -- fingerprints -- */

static int refuse_two(const struct model *m, const struct model_stage *a, const struct model_stage *b, struct err *err)
{
    char first[FINGERPRINT_HEX_SIZE], second[FINGERPRINT_HEX_SIZE];

    return err_set(
        err, -EDOM,
        "two models are named %s: the %s weights on %s (fingerprint %s) are not those on %s (fingerprint %s); "
        "rename the folder of one, and start its workers again",
        m->name, stage_name(a->stage), a->host, fingerprint_to_hex(&a->fingerprint, first), b->host,
        fingerprint_to_hex(&b->fingerprint, second));
}

static int find_fingerprint(const struct model *m, enum stage stage, enum dtype dtype, unsigned settings,
                            struct fingerprint *ret, struct err *err)
{
    const struct model_stage *found = NULL;
    char in[64];

    for (uint32_t i = 0; i < m->n_stages; i++) {
        const struct model_stage *s = &m->stages[i];

        if (!is_usable(m, s, stage) || s->dtype != dtype || s->settings != settings)
            continue;
        if (found && !fingerprint_equal(&found->fingerprint, &s->fingerprint))
            return refuse_two(m, found, s, err);
        found = s;
    }
    (void)snprintf(in, sizeof(in), "%s%s%s", dtype_word(dtype),
                   settings & MODEL_EXIF_ORIENTATION ? " with exif_orientation" : "",
                   settings & MODEL_GREY16_HIGH_BYTE ? " with grey16_high_byte" : "");
    if (!found)
        return no_worker(m, stage, in, err);
    *ret = found->fingerprint;
    return 0;
}

int plan_take_offered(const struct model *m, const struct plan_dtypes *d, bool captions, struct plan_side *s,
                      struct err *err)
{
    int rc = find_fingerprint(m, STAGE_ENCODE, d->encode, d->encoder_settings, &s->encoder, err);

    if (rc == 0)
        rc = fingerprint_with_settings(&s->encoder, d->encoder_settings);
    if (rc == 0)
        rc = find_fingerprint(m, STAGE_QFORMER, d->qformer, 0, &s->qformer, err);
    if (rc == 0 && captions)
        rc = find_fingerprint(m, STAGE_LLM, d->llm, 0, &s->llm, err);
    return rc;
}
