#include "tests/unit/fake_async_calls.h"

#include <assert.h>
#include <string.h>

static int async_linear(struct ops *o, const struct ops_linear_args *a)
{
    struct fake_async *l = async_of(o);
    const bool consumes = l->consumer == a->weight && l->consumed == a->x;
    int rc = async_enter(l, "linear", true);

    if (rc < 0)
        return rc;
    NOTE(l, "linear", AT(a->weight), (uint64_t)a->n_rows, AT(a->x), (uint64_t)a->ld_x, AT(a->y), (uint64_t)a->ld_y,
         a->y_f32, a->act, AT(a->residual), (uint64_t)a->ld_residual);
    if (l->consumer)
        PROMISE(consumes, "the product behind a norm is not the one that was named");
    if (consumes)
        memcpy(l->consumed, l->hidden, l->consumed_bytes);
    rc = l->records ? 0 : l->inner->f->linear(l->inner, a);
    if (consumes)
        memset(l->consumed, NOT_A_NUMBER, l->consumed_bytes);
    l->consumer = NULL;
    return rc;
}

static int async_norm(struct ops *o, const struct ops_norm_args *a)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "norm", true);

    NOTE(l, "norm", (uint64_t)a->n_rows, (uint64_t)a->width, AT(a->x), (uint64_t)a->ld_x, AT(a->y), (uint64_t)a->ld_y,
         AT(a->gamma), AT(a->beta), BITS(a->eps), AT(a->consumer));
    if (rc == 0 && !l->records)
        rc = l->inner->f->norm(l->inner, a);
    if (rc < 0 || !a->consumer)
        return rc;
    PROMISE(!l->consumer, "a norm's consumer never came");
    PROMISE(a->ld_y == a->width, "a norm with a consumer gives dense rows");
    l->consumer = a->consumer;
    l->consumed = a->y;
    l->consumed_bytes = (size_t)a->n_rows * (size_t)a->width * dtype_size_bytes(o->act_dtype);
    l->hidden = realloc(l->hidden, l->consumed_bytes);
    assert(l->hidden);
    memcpy(l->hidden, a->y, l->consumed_bytes);
    memset(a->y, NOT_A_NUMBER, l->consumed_bytes);
    return 0;
}

static int async_attention(struct ops *o, const struct ops_attention_args *a)
{
    struct fake_async *l = async_of(o);
    const int32_t *const arrays[] = {a->q_start, a->q_len, a->kv_start, a->kv_len};
    int32_t longest[] = {0, 0};
    int rc = async_enter(l, "attention", true);

    for (int i = 0; i < a->n_seqs; i++) {
        longest[0] = a->q_len[i] > longest[0] ? a->q_len[i] : longest[0];
        longest[1] = a->kv_len[i] > longest[1] ? a->kv_len[i] : longest[1];
    }
    NOTE(l, "attention", (uint64_t)a->n_seqs, (uint64_t)a->n_heads, (uint64_t)a->head_dim, BITS(a->scale), a->causal,
         AT(a->q), AT(a->k), AT(a->v), (uint64_t)a->ld_q, (uint64_t)a->ld_k, (uint64_t)a->ld_v, AT(a->bias),
         (uint64_t)a->bias_span, AT(a->out), (uint64_t)a->ld_out, (uint64_t)longest[0], (uint64_t)longest[1]);
    for (int i = 0; i < 4; i++)
        async_note_array(l, arrays[i], (size_t)a->n_seqs * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->attention(l->inner, a);
}

static int async_decode_attention(struct ops *o, const struct ops_decode_attention_args *a)
{
    struct fake_async *l = async_of(o);
    const int32_t *const arrays[] = {a->prefix_start, a->prefix_len, a->tail_start, a->tail_len};
    int32_t longest[] = {0, 1, 1}, end = 0; /* prefix, tail and end of tails, the latter to a power of two */
    int rc = async_enter(l, "decode_attention", true);

    for (int i = 0; i < 4; i++)
        async_note_array(l, arrays[i], (size_t)a->n_rows * sizeof(int32_t));
    for (int i = 0; i < a->n_rows; i++) {
        longest[0] = a->prefix_len[i] > longest[0] ? a->prefix_len[i] : longest[0];
        while (longest[1] < a->tail_len[i])
            longest[1] *= 2;
        end = a->tail_start[i] + a->tail_len[i] > end ? a->tail_start[i] + a->tail_len[i] : end;
    }
    while (longest[2] < end)
        longest[2] *= 2;
    NOTE(l, "decode_attention", (uint64_t)a->n_rows, (uint64_t)a->n_heads, (uint64_t)a->head_dim, BITS(a->scale),
         AT(a->q), (uint64_t)a->ld_q, AT(a->k), AT(a->v), (uint64_t)a->ld_kv, AT(a->bias), (uint64_t)a->bias_span,
         AT(a->out), (uint64_t)a->ld_out, (uint64_t)longest[0], (uint64_t)longest[1], (uint64_t)longest[2]);
    async_note_array(l, a->tail, (size_t)end * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->decode_attention(l->inner, a);
}

static int async_gate(struct ops *o, const struct ops_gate_args *a)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "gate", true);

    NOTE(l, "gate", (uint64_t)a->n_rows, (uint64_t)a->width, a->act, AT(a->x), (uint64_t)a->ld_x, AT(a->y),
         (uint64_t)a->ld_y);
    return rc < 0 || l->records ? rc : l->inner->f->gate(l->inner, a);
}

static int async_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "rows_copy", true);

    NOTE(l, "rows_copy", (uint64_t)a->n_rows, (uint64_t)a->width, AT(a->src), (uint64_t)a->ld_src, AT(a->dst),
         (uint64_t)a->ld_dst);
    async_note_array(l, a->src_index, (size_t)a->n_rows * sizeof(int32_t));
    async_note_array(l, a->dst_index, (size_t)a->n_rows * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->rows_copy(l->inner, a);
}

static int async_patchify(struct ops *o, const struct ops_patchify_args *a)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "patchify", false);

    return rc < 0 ? rc : l->inner->f->patchify(l->inner, a);
}

static int async_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                           const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "vit_embed", true);

    NOTE(l, "vit_embed", (uint64_t)n_images, (uint64_t)n_tokens, (uint64_t)width, AT(patches), AT(cls), AT(pos), AT(y));
    return rc < 0 || l->records ? rc
                                : l->inner->f->vit_embed(l->inner, n_images, n_tokens, width, patches, cls, pos, y);
}

static int async_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index,
                       const int32_t *dst_index, bool add, void *y, int64_t ld_y)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "embed", true);

    NOTE(l, "embed", AT(t), (uint64_t)n_rows, add, AT(y), (uint64_t)ld_y);
    async_note_array(l, index, (size_t)n_rows * sizeof(int32_t));
    async_note_array(l, dst_index, (size_t)n_rows * sizeof(int32_t));
    return rc < 0 || l->records ? rc : l->inner->f->embed(l->inner, t, n_rows, index, dst_index, add, y, ld_y);
}

static int async_sample(struct ops *o, const struct ops_sample_args *a)
{
    struct fake_async *l = async_of(o);
    int rc = async_enter(l, "sample", false);

    return rc < 0 ? rc : l->inner->f->sample(l->inner, a);
}

void fake_async_calls(struct ops_funcs *f)
{
    f->linear = async_linear;
    f->norm = async_norm;
    f->attention = async_attention;
    f->decode_attention = async_decode_attention;
    f->gate = async_gate;
    f->rows_copy = async_rows_copy;
    f->patchify = async_patchify;
    f->vit_embed = async_vit_embed;
    f->embed = async_embed;
    f->sample = async_sample;
}
