#include "client/export/select.h"

#include <math.h>
#include <string.h>

bool select_is_filter(const struct select_options *o)
{
    return o->order != SELECT_AS_STORED || o->want_itm || o->want_itc || o->max_per_image || o->dedup_text ||
           o->generated_only || o->given_only;
}

static bool good_enough(const struct select_options *o, const struct row_caption *c)
{
    if ((o->generated_only && c->given) || (o->given_only && !c->given))
        return false;
    if (o->want_itm && (!c->has_itm || (double)c->itm < o->min_itm))
        return false;
    return !o->want_itc || (c->has_itc && (double)c->itc >= o->min_itc);
}

/* What the captions are ordered by; those without it come last. */
static double rank(enum select_order order, const struct row_caption *c)
{
    if (order == SELECT_BY_ITM)
        return c->has_itm ? (double)c->itm : -INFINITY;
    if (order == SELECT_BY_ITC)
        return c->has_itc ? (double)c->itc : -INFINITY;
    if (order == SELECT_BY_LOGPROB)
        return c->given ? -INFINITY : (double)c->logprob;
    return 0;
}

static bool same_text(const struct row_caption *a, const struct row_caption *b)
{
    return a->text_bytes == b->text_bytes && (a->text_bytes == 0 || memcmp(a->text, b->text, a->text_bytes) == 0);
}

static uint32_t drop_repeated(const struct row_record *record, uint32_t *ret, uint32_t n)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = 0;

        while (k < kept && !same_text(&record->captions[ret[k]], &record->captions[ret[i]]))
            k++;
        if (k == kept)
            ret[kept++] = ret[i];
    }
    return kept;
}

uint32_t select_captions(const struct select_options *o, const struct row_record *record,
                         uint32_t ret[ROW_MAX_CAPTIONS])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < record->n_captions; i++) {
        uint32_t at = n;

        if (!good_enough(o, &record->captions[i]))
            continue;
        for (; at > 0 && rank(o->order, &record->captions[ret[at - 1]]) < rank(o->order, &record->captions[i]); at--)
            ret[at] = ret[at - 1];
        ret[at] = i;
        n++;
    }
    if (o->dedup_text)
        n = drop_repeated(record, ret, n);
    return o->max_per_image && n > o->max_per_image ? o->max_per_image : n;
}
