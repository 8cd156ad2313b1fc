#include "client/stats.h"

#include "model/utf8.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void count_code(struct stats *s, const char *code)
{
    size_t i = 0;

    while (i < s->n_codes && strcmp(s->codes[i].code, code) != 0)
        i++;
    if (i == STATS_MAX_CODES)
        return; /* still in n_failed */
    if (i == s->n_codes)
        (void)msg_text_set(s->codes[s->n_codes++].code, sizeof(s->codes[i].code), code);
    s->codes[i].n++;
}

static unsigned count_words(const uint8_t *text, size_t n)
{
    unsigned words = 0;
    bool inside = false;

    while (n > 0) {
        uint32_t cp;
        size_t used = utf8_step(text, n, &cp);
        bool space = cp != UTF8_BROKEN && utf8_is_space(cp);

        words += !space && !inside;
        inside = !space;
        text += used;
        n -= used;
    }
    return words;
}

static unsigned bin(uint64_t n)
{
    return n < STATS_BINS ? (unsigned)n : STATS_BINS - 1;
}

static void count_score(struct stats_score *s, bool there, double score, double low, double high)
{
    double at = (score - low) / (high - low) * STATS_SCORE_BINS;

    if (!there)
        return;
    s->n++;
    s->sum += score;
    s->bins[at < 0 ? 0 : at >= STATS_SCORE_BINS ? STATS_SCORE_BINS - 1 : (unsigned)at]++;
}

static void count_caption(struct stats *s, const struct row_caption *c)
{
    const unsigned words = count_words(c->text, c->text_bytes);

    count_score(&s->itc[c->given], c->has_itc, (double)c->itc, -1, 1);
    count_score(&s->itm[c->given], c->has_itm, (double)c->itm, 0, 1);
    if (c->given) {
        s->n_given++;
        return;
    }
    s->n_captions++;
    s->words[bin(words)]++;
    s->tokens[bin(c->tokens)]++;
    s->n_words += words;
    s->n_tokens += c->tokens;
    s->logprob += (double)c->logprob;
}

static void count_row(struct stats *s, const struct reader_row *row)
{
    const struct row_record *r = &row->record;

    s->n_seen++;
    s->n_attempts += row->n_attempts;
    s->image_bytes += row->listed.size_bytes;
    if (!row->has_record) {
        s->n_pending++;
        return;
    }
    if (r->failed) {
        s->n_failed++;
        count_code(s, r->error_code);
        return;
    }
    for (uint32_t i = 0; i < r->n_captions; i++)
        count_caption(s, &r->captions[i]);
}

static int more_frequent(const void *a, const void *b)
{
    const struct stats_code *x = a, *y = b;

    if (x->n != y->n)
        return x->n < y->n ? 1 : -1;
    return strcmp(x->code, y->code);
}

int stats_collect(struct reader *r, struct stats *ret, struct err *err)
{
    const struct row_source *sources;
    struct reader_row row;
    uint32_t n_sources;
    int rc;

    *ret = (struct stats){0};
    rc = reader_sources(r, &sources, &n_sources, err);
    for (uint32_t i = 0; rc == 0 && i < n_sources; i++)
        passed_over_add(&ret->passed_over, &sources[i]);
    if (rc == 0)
        rc = reader_counters(r, &ret->counters, err);
    if (rc == 0)
        rc = reader_disk_bytes(r, &ret->disk_bytes, err);
    if (rc < 0)
        return rc;
    reader_seek(r, 0);
    while ((rc = reader_next(r, &row, err)) != 0) {
        if (rc == -EBADMSG)
            ret->n_damaged++;
        else if (rc < 0)
            return rc;
        else
            count_row(ret, &row);
    }
    qsort(ret->codes, ret->n_codes, sizeof(ret->codes[0]), more_frequent);
    return 0;
}

unsigned stats_quantile(const uint64_t bins[STATS_BINS], double share)
{
    uint64_t n = 0, seen = 0;

    for (unsigned i = 0; i < STATS_BINS; i++)
        n += bins[i];
    for (unsigned i = 0; i < STATS_BINS; i++) {
        seen += bins[i];
        if (n > 0 && (double)seen >= share * (double)n)
            return i;
    }
    return 0;
}

double stats_score_edge(double low, double high, unsigned i)
{
    return low + (high - low) * i / STATS_SCORE_BINS;
}
