/* plan_work.c - estimates of a stage's work per item and of its GPU memory, by which threads and GPUs are divided. */
#include "recipe/plan_private.h"

enum {
    USUAL_PROMPT = 8,
    USUAL_TEXT = 16,      /* tokens */
    GPU_BATCH = 256,      /* pictures in a batch of a GPU worker (worker/worker.h) */
    USUAL_SEQUENCES = 256 /* concurrent sequences of a language model on a GPU, or more if memory allows */
};

/* Further memory of every process on a GPU: workspace of the library, staging buffers, results in transfer. */
#define PROCESS_BYTES (512.0 * (1 << 20))

/* -- GFLOP -- */

double plan_gflop_encoder(const struct config *c)
{
    double n = c->vision.n_tokens, w = c->vision.width, f = c->vision.ffn_width;

    return c->vision.n_layers * (n * 2 * (4 * w * w + 2 * w * f) + 4 * n * n * w) * 1e-9;
}

double plan_gflop_qformer(const struct config *c, const struct msg_recipe *r, uint32_t tasks)
{
    const struct config_qformer *q = &c->qformer;
    double e = q->width, rows = c->n_queries,
           n_cross = q->cross_attention_freq ? (double)q->n_layers / q->cross_attention_freq : 0;
    double layer = 2 * (4 * e * e + 2 * e * q->ffn_width);
    double image = n_cross * 2 * (c->vision.n_tokens * 2 * e * q->vision_width);
    double pass = rows * (q->n_layers * layer + n_cross * 4 * e * e);
    double n_texts = (double)(r->n_prompts ? r->n_prompts : 1) * r->decode.n_return + r->n_text_fields;

    if (tasks & (MSG_TASK_SCORE | MSG_TASK_ITC_TEXT))
        pass += n_texts * (pass + 2 * USUAL_TEXT * q->n_layers * layer);
    return (image + pass) * 1e-9;
}

double plan_gflop_llm(const struct config *c, const struct msg_recipe *r)
{
    double n_prompts = r->n_prompts ? r->n_prompts : 1, before = c->n_queries + USUAL_PROMPT, prompt, step;
    double n_sequences = n_prompts * (r->decode.n_beams > r->decode.n_return ? r->decode.n_beams : r->decode.n_return);
    double head = (double)c->lm_width * c->lm_vocab_size, w = c->lm_width;

    if (c->lm == CONFIG_LM_T5) {
        double inner = (double)c->t5.n_heads * c->t5.head_dim, ff = 3 * w * c->t5.ffn_width;

        prompt = c->t5.n_encoder_layers * (4 * w * inner + ff) + c->t5.n_decoder_layers * 2 * w * inner;
        step = c->t5.n_decoder_layers * (6 * w * inner + ff) + head;
    } else {
        prompt = (double)c->opt.n_layers * (4 * w * w + 2 * w * c->opt.ffn_width);
        step = prompt + head;
    }
    /* decoding one row per sequence runs at a third of the rate of many rows */
    return 2e-9 * (n_prompts * before * prompt + 3 * n_sequences * r->decode.max_new_tokens * step);
}

/* -- bytes -- */

static double weight_bytes(enum dtype d)
{
    return d == DTYPE_F32 ? 4 : d == DTYPE_F8_E4M3 ? 1 : 2;
}

static double activation_bytes(enum dtype d)
{
    return d == DTYPE_F32 ? 4 : 2;
}

/* Weights, and on a GPU the buffers of a batch: per token about six rows of the model's width and one of the
 * feed-forward layer's. */
double plan_bytes_encoder(const struct config *c, enum dtype d, bool gpu)
{
    double w = c->vision.width, f = c->vision.ffn_width;

    return c->vision.n_layers * (4 * w * w + 2 * w * f) * weight_bytes(d) +
           (gpu ? GPU_BATCH * c->vision.n_tokens * (6 * w + f) * activation_bytes(d) + PROCESS_BYTES : 0);
}

/* A retrieval checkpoint also has word embeddings and feed-forward layers for texts. */
double plan_bytes_qformer(const struct config *c, enum dtype d, bool gpu)
{
    const struct config_qformer *q = &c->qformer;
    double e = q->width, f = q->ffn_width, v = q->vision_width;
    double n_cross = q->cross_attention_freq ? (double)q->n_layers / q->cross_attention_freq : 0;
    double weights = q->n_layers * (4 * e * e + (q->has_text ? 4 : 2) * e * f) + n_cross * 2 * e * (e + v) +
                     (q->has_text ? q->vocab_size * e : e * c->lm_width);

    return weights * weight_bytes(d) +
           (gpu ? GPU_BATCH * (c->vision.n_tokens * (v + 2 * e) + c->n_queries * (6 * e + f)) * activation_bytes(d) +
                      PROCESS_BYTES
                : 0);
}

/* Weights, and on a GPU tables and the cache of USUAL_SEQUENCES. */
double plan_bytes_llm(const struct config *c, enum dtype d, int n_positions, bool gpu)
{
    double w = c->lm_width, table = (double)c->lm_vocab_size * w, matrices, cache;

    if (c->lm == CONFIG_LM_T5) {
        double inner = (double)c->t5.n_heads * c->t5.head_dim, f = 3 * w * c->t5.ffn_width;

        matrices = c->t5.n_encoder_layers * (4 * w * inner + f) + c->t5.n_decoder_layers * (8 * w * inner + f);
        cache = 2.0 * c->t5.n_decoder_layers * inner * n_positions;
    } else {
        matrices = c->opt.n_layers * (4 * w * w + 2 * w * c->opt.ffn_width);
        cache = 2.0 * c->opt.n_layers * w * n_positions;
    }
    return (matrices + table) * weight_bytes(d) +
           (gpu ? (table + USUAL_SEQUENCES * cache) * activation_bytes(d) + PROCESS_BYTES : 0);
}
