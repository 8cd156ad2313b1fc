/* qformer.h - the Q-Former: learned queries look at an image's trunk features; with text, it compares the two (MODEL.md
 * "Q-Former").
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  P tokens of width C an image come in. Out: Q queries of width E; projected to width L for the language model;
 *         ITC embeddings of width d, each row of length 1; ITM logits [no match, match]. Host arrays are f32,
 *         row-major, where nothing else is said.
 * Memory: everything is allocated by qformer_new. Images: max_batch of them, and where the checkpoint has text their
 *         keys and values of all layers that look at images, max_batch * P * 2E * ceil(layers /
 *         cross_attention_frequency) elements. Rows: R = max(max_batch * Q; with text also 1024 and Q + longest text),
 *         a multiple of 32, of 4E + max(3E, F, L) elements each; texts and pairs of any number are worked off at most R
 *         rows at a time. Host arrays are the caller's. The checkpoint is read by qformer_new only (word and position
 *         embeddings stay views of it, so it must outlive this); its other source pages are dropped after packing.
 * Errors: 0 or a negative errno. qformer_new: -EINVAL/-ENOENT/-ENOTSUP naming the key or tensor, -ENOMEM. Text calls:
 *         -EINVAL for an id that has no word embedding (tokenizer and checkpoint disagree). Texts on a checkpoint that
 *         reads none, and too long ones, are our bug: check qformer_max_text first. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct checkpoint;
struct ops;
struct qformer;

int qformer_new(struct ops *o, const struct checkpoint *c, int max_batch, struct qformer **ret,
                struct err *err) CHECK_RESULT;
void qformer_free(struct qformer *q);

int qformer_n_tokens(const struct qformer *q);       /* P expected of the encoder */
int qformer_image_width(const struct qformer *q);    /* C expected of the encoder */
int qformer_n_queries(const struct qformer *q);      /* Q */
int qformer_width(const struct qformer *q);          /* E */
int qformer_language_width(const struct qformer *q); /* L; 0: the checkpoint has no language model */
int qformer_embed_width(const struct qformer *q);    /* d; 0: not a retrieval checkpoint */
int qformer_max_text(const struct qformer *q);       /* tokens of a text, special ones included; 0: reads no text */
int qformer_n_words(const struct qformer *q);        /* ids of texts are below it; 0: reads no text */

/* Host memory for the trunks of 1 <= n <= max_batch images, [n, P, C] in act_dtype, on its way to the device. It is to
 * be filled before the next call of this file or of the operators, which is a qformer_load or qformer_forward with the
 * same n and trunk NULL: so what a worker receives is copied once. */
int qformer_input(struct qformer *q, int n, void **ret) CHECK_RESULT;

/* What a pass over images gives; NULL: not wanted. */
struct qformer_out {
    float *queries;  /* [n, Q, E] the query outputs */
    void *projected; /* [n, Q, L] in act_dtype, which is what the language model's worker is sent */
    uint64_t
        *projected_ticket; /* set: `projected` is there after ops' download_wait of it. NULL: when the call returns */
    float *itc;            /* [n, Q, d] */
    float *cls;            /* [n, C] the class token after post_layernorm */
};
/* trunk: [n, P, C] before post_layernorm, 1 <= n <= max_batch; NULL: qformer_input's memory has been filled. `normed`:
 * post_layernorm has been applied (golden data). The images stay loaded for qformer_match. */
int qformer_forward(struct qformer *q, int n, const float *trunk, bool normed, struct qformer_out *out) CHECK_RESULT;
/* The query pass over the loaded images. Query outputs and, with `project`, projected ones stay on the device. */
int qformer_look(struct qformer *q, bool project) CHECK_RESULT;

/* Texts as ids with special tokens: text t is ids[start[t]] .. ids[start[t + 1] - 1], 1 .. qformer_max_text tokens
 * each. */
struct qformer_texts {
    int n;
    const int32_t *ids;
    const int32_t *start; /* [n + 1] */
};
/* ITC embeddings of texts: ret [n, d]. */
int qformer_text(struct qformer *q, const struct qformer_texts *texts, float *ret) CHECK_RESULT;
/* Load images without the query pass, for qformer_match. */
int qformer_load(struct qformer *q, int n, const float *trunk, bool normed) CHECK_RESULT;
/* ITM of text t with loaded image image[t] (ascending): ret_logits [n, 2]. Keys and values of an image are computed
 * once for all its texts. */
int qformer_match(struct qformer *q, const struct qformer_texts *texts, const int32_t *image,
                  float *ret_logits) CHECK_RESULT;

/* max over queries of v . t: the ITC similarity; NaN if one is. itc [Q, d], text [d]. */
float qformer_similarity(const float *itc, const float *text, int n_queries, int width);
/* softmax(logits)[1]; NaN if one is not finite */
float qformer_probability(const float logits[2]);

#endif
