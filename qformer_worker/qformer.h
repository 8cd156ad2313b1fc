/* qformer.h - the Q-Former: learned queries attend to an image's trunk features; with text, it compares image and text
 * (MODEL.md "Q-Former", BLIP-2 paper).
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  input: P tokens of width C per image. Output: Q queries of width E, or projected to width L for the language
 * model; ITC embeddings of width d, normalised to length 1; ITM logits [no match, match]. Host arrays are row-major f32
 * unless stated otherwise.
 * Memory: qformer_new allocates everything. Images: max_batch trunks; with text also the keys and values of all
 * cross-attention layers, max_batch * P * 2E * ceil(layers / cross_attention_frequency) elements. Rows: R =
 * max(max_batch * Q; with text also 1024 and Q + longest text), a multiple of 32, of 4E + max(3E, F, L) elements each;
 * texts and pairs are processed at most R rows at a time. The caller owns host arrays. Only qformer_new reads the
 * checkpoint, but word and position embeddings are views of it, so it must outlive this; other source pages are
 * released after packing.
 * Errors: 0 or a negative errno. qformer_new: -EINVAL/-ENOENT/-ENOTSUP (err names the key or tensor), -ENOMEM. Text
 * calls: -EINVAL for an id without a word embedding (tokenizer and checkpoint do not match). Check qformer_max_text
 * first: texts that are too long, or a checkpoint without text, are a bug (assert). */
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
int qformer_max_text(const struct qformer *q);       /* tokens of a text, including special ones; 0: no text support */
int qformer_n_words(const struct qformer *q);        /* ids of texts are below it; 0: no text support */

/* Host staging memory for the trunks of 1 <= n <= max_batch images, [n, P, C] in act_dtype, which saves a copy. Fill
 * it, then call qformer_load or qformer_forward with the same n and trunk NULL; no other call of this file or of the
 * operators may come between. */
int qformer_input(struct qformer *q, int n, void **ret) CHECK_RESULT;

/* Outputs of a pass over images; NULL: not needed. */
struct qformer_out {
    float *queries;  /* [n, Q, E] the query outputs */
    void *projected; /* [n, Q, L] in act_dtype, as sent to the language model's worker */
    uint64_t
        *projected_ticket; /* if set: `projected` is complete after download_wait of this ticket; NULL: on return */
    float *itc;            /* [n, Q, d] */
    float *cls;            /* [n, C] the class token after post_layernorm */
};
/* trunk: [n, P, C] before post_layernorm, 1 <= n <= max_batch; NULL: use qformer_input's memory. `normed`:
 * post_layernorm is already applied (golden data). The images stay loaded for qformer_match. */
int qformer_forward(struct qformer *q, int n, const float *trunk, bool normed, struct qformer_out *out) CHECK_RESULT;
/* Runs the queries over the loaded images. Their outputs and, with `project`, the projected ones stay on the device. */
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
/* Loads images without running the queries, for qformer_match. */
int qformer_load(struct qformer *q, int n, const float *trunk, bool normed) CHECK_RESULT;
/* ITM of text t with loaded image image[t] (ascending): ret_logits [n, 2]. Keys and values of an image are computed
 * once for all its texts. */
int qformer_match(struct qformer *q, const struct qformer_texts *texts, const int32_t *image,
                  float *ret_logits) CHECK_RESULT;

/* The ITC similarity: the largest dot product over the queries; NaN if one is. itc [Q, d], text [d]. */
float qformer_similarity(const float *itc, const float *text, int n_queries, int width);
/* softmax(logits)[1]; NaN if one is not finite */
float qformer_probability(const float logits[2]);

#endif
