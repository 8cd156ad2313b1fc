#include "worker/problem.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void item_problem_set(struct item_problem *p, const char *code, const char *fmt, ...)
{
    va_list ap;

    if (p->code)
        return;
    p->code = code;
    va_start(ap, fmt);
    (void)vsnprintf(p->text, sizeof(p->text), fmt, ap);
    va_end(ap);
}

void item_problem_record(const struct item_problem *p, uint64_t item, struct row_record *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->item = item;
    ret->failed = true;
    (void)msg_text_set(ret->error_code, sizeof(ret->error_code), p->code);
    ret->error_message = (const uint8_t *)p->text;
    ret->error_message_bytes = (uint32_t)strlen(p->text);
}

static bool all_finite(const struct row_record *r)
{
    for (uint32_t i = 0; i < r->n_captions; i++) {
        const struct row_caption *c = &r->captions[i];

        if (!isfinite(c->logprob) || !isfinite(c->score) || !isfinite(c->itc) || !isfinite(c->itm))
            return false;
    }
    return true;
}

int item_record_append(struct buf *rows, const struct row_record *record, uint32_t *n_failed)
{
    struct item_problem problem = {0};
    struct row_record instead;
    int rc = row_record_append(rows, record);

    if (rc == -EINVAL && !record->failed) {
        if (all_finite(record))
            item_problem_set(&problem, "large_record",
                             "%u captions and %u embeddings: texts of %d bytes and records of %d are possible",
                             record->n_captions, record->n_embeddings, ROW_MAX_CAPTION_BYTES, ROW_MAX_BYTES);
        else
            item_problem_set(&problem, "not_finite", "a log-probability or score is not a finite number");
        item_problem_record(&problem, record->item, &instead);
        ++*n_failed;
        return row_record_append(rows, &instead);
    }
    *n_failed += rc == 0 && record->failed;
    return rc;
}
