#include "qformer_worker/selftest.h"

#include <errno.h>
#include <stdlib.h>

#include "model/golden.h"
#include "qformer_worker/qformer.h"
#include "tensor/ops.h"

/* The golden features are those after post_layernorm; the encoder's self-test covers that norm. */
static int test_queries(struct ops *o, struct golden *g, struct err *err)
{
    const struct config *c = &g->checkpoint->config;
    const int64_t n = g->n_images, l = c->lm_width;
    const int64_t image[] = {n, c->vision.n_tokens, c->vision.width}, queries[] = {n, c->n_queries, c->qformer.width};
    const int64_t projected[] = {n, c->n_queries, l};
    float *features = NULL, *want_queries = NULL, *want_projected = NULL;
    float *got_queries = calloc((size_t)(queries[0] * queries[1] * queries[2]), sizeof(float));
    float *got_projected = calloc((size_t)(n * c->n_queries * l + 1), sizeof(float));
    struct qformer *q = NULL;
    int rc = got_queries && got_projected ? 0 : err_set(err, -ENOMEM, "no memory for the query outputs");

    if (rc == 0)
        rc = golden_floats(g, "vision_last_hidden_state", 3, image, &features, err);
    if (rc == 0)
        rc = golden_floats(g, "qformer_last_hidden_state", 3, queries, &want_queries, err);
    if (rc == 0 && l > 0)
        rc = golden_floats(g, "language_projection", 3, projected, &want_projected, err);
    if (rc == 0)
        rc = qformer_new(o, g->checkpoint, g->n_images, &q, err);
    if (rc == 0 &&
        (rc = qformer_forward_normed(q, g->n_images, features, got_queries, l > 0 ? got_projected : NULL)) < 0)
        err_set(err, rc, "the Q-Former could not be run");
    if (rc == 0)
        rc = golden_report_tensor(g, "qformer_last_hidden_state", 3, queries, got_queries, want_queries, err);
    if (rc == 0 && l > 0)
        rc = golden_report_tensor(g, "language_projection", 3, projected, got_projected, want_projected, err);
    qformer_free(q);
    free(features);
    free(want_queries);
    free(want_projected);
    free(got_queries);
    free(got_projected);
    return rc;
}

int qformer_selftest(const char *golden_dir, int n_threads, FILE *out, struct err *err)
{
    struct golden *g = NULL;
    struct ops *o = NULL;
    int rc = golden_open(golden_dir, &g, err);

    if (rc == 0)
        rc = ops_cpu_new(n_threads, DTYPE_F32, &o, err);
    if (rc == 0)
        rc = test_queries(o, g, err);
    if (rc == 0)
        rc = golden_print(g, out, err);
    ops_free(o);
    golden_free(g);
    return rc;
}
