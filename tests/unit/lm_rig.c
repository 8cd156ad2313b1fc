#include "tests/unit/fixture.h"
#include "tests/unit/lm_rig.h"

#include <errno.h>

struct ops *lm_rig_ops(const char *name)
{
    struct err err = {""};
    struct ops *o = NULL;
    int rc = strcmp(name, "ref") == 0
                 ? ops_ref_new(&o, &err)
                 : ops_cpu_new(2, strcmp(name, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32, fixture_cpu_isa(), &o, &err);

    if (rc == -ENOTSUP && strcmp(name, "bf16") == 0)
        return NULL;
    LM_RIG_OK(rc, err);
    return o;
}

void lm_rig_open(struct lm_rig *r, const char *dir, struct ops *o)
{
    const struct lm_limits limits = {
        .n_sequences = LM_RIG_SEQUENCES, .n_kv_rows = LM_RIG_KV_ROWS, .max_rows = LM_RIG_MAX_ROWS};
    struct err err = {""};

    *r = (struct lm_rig){.o = o};
    LM_RIG_OK(checkpoint_open(dir, &r->c, &err), err);
    LM_RIG_OK(checkpoint_check(r->c, STAGE_BIT(STAGE_LLM), &err), err);
    LM_RIG_OK(lm_open(o, r->c, &limits, &r->m, &err), err);
}

void lm_rig_close(struct lm_rig *r)
{
    lm_free(r->m);
    checkpoint_free(r->c);
    *r = (struct lm_rig){0};
}

void lm_rig_clear(struct lm_rig *r)
{
    r->n_prefix_rows = r->n_tail_rows = 0;
}

int32_t lm_rig_tail_row(struct lm_rig *r)
{
    const int row = LM_RIG_KV_ROWS - 1 - 2 * r->n_tail_rows++;

    assert_true(row >= r->n_prefix_rows);
    return row;
}

struct lm_start lm_rig_start(struct lm_rig *r, const float *image_rows, int n_image_rows, const int32_t *ids, int n_ids)
{
    struct lm_start s = {.image_rows = image_rows,
                         .image_dtype = DTYPE_F32,
                         .n_image_rows = n_image_rows,
                         .ids = ids,
                         .n_ids = n_ids,
                         .prefix_row = r->n_prefix_rows + 1,
                         .first_row = -1};

    r->n_prefix_rows += lm_prefix_rows(r->m, n_image_rows, n_ids) + 1;
    if (lm_start_rows(r->m))
        s.first_row = lm_rig_tail_row(r);
    return s;
}

void lm_rig_forward(struct lm_rig *r, int n_starts, const struct lm_start *starts, int n_tokens,
                    const struct lm_token *tokens, float *logits)
{
    const float *device = NULL;

    assert_int_equal(lm_forward(r->m, n_starts, starts, n_tokens, tokens, &device), 0);
    assert_int_equal(r->o->f->download(r->o, logits, DTYPE_F32, device, DTYPE_F32,
                                       (size_t)(n_starts + n_tokens) * (size_t)lm_vocab_size(r->m)),
                     0);
}

void lm_rig_first(struct lm_rig *r, const struct lm_start *start, float *logits)
{
    lm_rig_forward(r, 1, start, 0, NULL, logits);
}

struct lm_rig_sequence lm_rig_sequence(const struct lm_rig *r, const struct lm_start *start)
{
    struct lm_rig_sequence s = {.start = *start};

    if (lm_start_rows(r->m))
        s.tail[s.n_tail++] = start->first_row;
    return s;
}

struct lm_token lm_rig_next(struct lm_rig *r, struct lm_rig_sequence *s, int32_t id)
{
    assert_true(s->n_tail < (int)(sizeof(s->tail) / sizeof(s->tail[0])));
    s->tail[s->n_tail++] = lm_rig_tail_row(r);
    return (struct lm_token){.id = id,
                             .prefix_row = s->start.prefix_row,
                             .n_prefix = lm_prefix_rows(r->m, s->start.n_image_rows, s->start.n_ids),
                             .tail = s->tail,
                             .n_tail = s->n_tail};
}
