/* budget.h - the arithmetic of a stage, from the checkpoint's configuration: its distinct products and attentions, and
 * how often each of them runs.
 *
 * Who may call: benchmarks. Units: rows, columns and positions; FLOP counts a multiplication and an addition as two;
 * bytes where a line says so. n_images are those of one run of the stage; with beams the language model has n_images *
 * n_beams rows a step, and one prompt an image. A prompt is the queries and one token (bos), as captions without words
 * have it.
 * Memory: plain values. Errors: none; too many lines are our bug (assert). */
#ifndef BLIPLINE_BENCH_BUDGET_H
#define BLIPLINE_BENCH_BUDGET_H

#include "model/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum budget_kind {
    BUDGET_PRODUCT,   /* [m, k] x [n, k]^T */
    BUDGET_ATTENTION, /* n_seqs sequences: q queries x kv keys a head */
    BUDGET_DECODE     /* n_seqs rows: one query x kv keys a head, prefix of them shared by `share` rows */
};

struct budget_line {
    enum budget_kind kind;
    const char *what;
    double count; /* in one run of the stage */
    int64_t m, n, k;
    int64_t n_seqs, q, kv, prefix;
    int n_heads, head_dim, share;
    bool fp8; /* a matrix that operators with fp8 round to it */
};

enum { BUDGET_MAX_LINES = 24 };

struct budget {
    int n_images, n_lines;
    struct budget_line lines[BUDGET_MAX_LINES];
};

void budget_encoder(const struct config *c, int n_images, struct budget *ret);
void budget_qformer(const struct config *c, int n_images, struct budget *ret);
/* n_new tokens an image (a mean where they differ), the first of them from the prompt's pass: n_new - 1 steps. */
void budget_lm(const struct config *c, int n_images, int n_beams, double n_new, struct budget *ret);

/* Of the line once, without its count. */
double budget_line_flop(const struct budget_line *l);
/* Keys and values read, decode lines alone: each prefix once, tails once a row; `size_bytes` an element. */
double budget_line_kv_bytes(const struct budget_line *l, size_t size_bytes);
/* The sum of all lines, counts included. */
double budget_flop(const struct budget *b);

#endif
