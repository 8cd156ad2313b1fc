/* The sequence scheduler over small language models (tests/golden/opt_a, t5_a) with made-up image rows. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_worker/generate.h"
#include "llm_worker/request.h"
#include "llm_worker/lm.h"
#include "model/checkpoint.h"
#include "tensor/ops.h"
#include "tests/unit/fixture.h"

enum {
    N_SEQUENCES = 6,
    N_KV_ROWS = 150,
    MAX_ROWS = 46,
    N_REQUESTS = 17,
    N_ROWS = 4,
    MAX_NEW = 20,
    MAX_PROMPT = 9,
    IMAGE_TOKEN = 700, /* of opt_a */
    VOCAB = 704,       /* of opt_a */
    N_IDS = 400        /* that both models have */
};

static const struct lm_limits limits = {.n_sequences = N_SEQUENCES, .n_kv_rows = N_KV_ROWS, .max_rows = MAX_ROWS};
static const struct lm_limits roomy_limits = {.n_sequences = 40, .n_kv_rows = 1000, .max_rows = 300};

struct fixture {
    struct checkpoint *c;
    struct ops *o, *two_threads;
    struct lm *lm, *roomy; /* the same with other limits and threads */
};

/* One request and, once it has run, its result. */
struct job {
    float *rows;
    int32_t prompt[MAX_PROMPT];
    int n_prompt;
    struct generation_options options;
    uint64_t key;
    int32_t eos[2];
    int n_eos;
    struct generate_result got;
};

static int open_model(void **state, const char *dir)
{
    static struct fixture f;
    struct err err = {{0}};

    if (checkpoint_open(dir, &f.c, &err) < 0 || ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &f.o, &err) < 0 ||
        ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &f.two_threads, &err) < 0 ||
        lm_open(f.o, f.c, &limits, &f.lm, &err) < 0 || lm_open(f.two_threads, f.c, &roomy_limits, &f.roomy, &err) < 0)
        fail_msg("%s", err.text);
    *state = &f;
    return 0;
}

static int set_up(void **state)
{
    open_model(state, "tests/golden/opt_a");
    assert_int_equal(lm_vocab_size(((const struct fixture *)*state)->lm), VOCAB);
    return 0;
}

static int set_up_t5(void **state)
{
    return open_model(state, "tests/golden/t5_a");
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    lm_free(f->lm);
    lm_free(f->roomy);
    ops_free(f->o);
    ops_free(f->two_threads);
    checkpoint_free(f->c);
    return 0;
}

static struct generate *generator_of(struct lm *m, int32_t image_token, int queue_limit)
{
    struct generate *g = NULL;
    struct err err = {{0}};

    if (generate_new(m, queue_limit, image_token, &g, &err) < 0)
        fail_msg("%s", err.text);
    return g;
}

static struct generate *generator(const struct fixture *f, int queue_limit)
{
    return generator_of(f->lm, f->c->config.image_token, queue_limit);
}

static void job_make(const struct fixture *f, struct job *j, unsigned *seed)
{
    const int width = lm_width(f->lm);

    *j = (struct job){.n_prompt = 1 + rand_r(seed) % MAX_PROMPT, .options = generation_options_default()};
    j->options.max_new_tokens = 1 + rand_r(seed) % MAX_NEW;
    j->rows = calloc((size_t)(N_ROWS * width), sizeof(float));
    assert_non_null(j->rows);
    for (int i = 0; i < N_ROWS * width; i++)
        j->rows[i] = (float)(rand_r(seed) % 2001 - 1000) / 500;
    for (int i = 0; i < j->n_prompt; i++)
        j->prompt[i] = rand_r(seed) % N_IDS;
}

/* Greedy, beams or samples, with penalties; fewer new tokens where more sequences share the cache. */
static void job_decode(struct job *j, unsigned *seed)
{
    struct generation_options *o = &j->options;

    j->key = (uint64_t)rand_r(seed) << 32 | (unsigned)rand_r(seed);
    j->eos[0] = rand_r(seed) % N_IDS;
    j->n_eos = rand_r(seed) % 2;
    o->repetition_penalty = rand_r(seed) % 2 ? 1.0F : 1.4F;
    o->no_repeat_ngram = rand_r(seed) % 3;
    o->min_new_tokens = rand_r(seed) % (o->max_new_tokens + 1);
    switch (rand_r(seed) % 3) {
    case 0:
        o->n_beams = 2 + rand_r(seed) % (N_SEQUENCES - 1);
        o->n_return = 1 + rand_r(seed) % o->n_beams;
        break;
    case 1:
        o->sample = true;
        o->n_return = 1 + rand_r(seed) % N_SEQUENCES;
        o->temperature = 0.7F + (float)(rand_r(seed) % 10) / 10;
        o->top_k = rand_r(seed) % 2 ? 50 : 0;
        o->top_p = rand_r(seed) % 2 ? 0.9F : 1.0F;
        break;
    default:
        break;
    }
}

static void job_release(struct job *j)
{
    generate_result_release(&j->got);
    free(j->rows);
}

static struct generate_request request_of(const struct job *j, uint64_t tag)
{
    return (struct generate_request){.tag = tag,
                                     .image_rows = j->rows,
                                     .image_dtype = DTYPE_F32,
                                     .n_image_rows = N_ROWS,
                                     .prompt = j->prompt,
                                     .n_prompt = j->n_prompt,
                                     .options = j->options,
                                     .key = j->key,
                                     .eos = j->eos,
                                     .n_eos = j->n_eos};
}

static int submit(struct generate *g, const struct job *j, uint64_t tag)
{
    const struct generate_request r = request_of(j, tag);
    struct err err = {{0}};

    return generate_submit(g, &r, &err);
}

static int take_all(struct generate *g, struct job *jobs)
{
    struct generate_result r;
    int n = 0;

    for (; generate_take(g, &r) == 1; n++) {
        generate_result_release(&jobs[r.tag].got);
        jobs[r.tag].got = r;
    }
    return n;
}

/* Run job `i` by itself in a fresh generator. */
static void run_alone(const struct fixture *f, struct job *jobs, int i)
{
    struct generate *g = generator(f, 1);
    int rc;

    assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    while ((rc = generate_step(g)) > 0)
        assert_true(rc <= request_n_sequences(&jobs[i].options));
    assert_int_equal(rc, 0);
    assert_int_equal(take_all(g, jobs), 1);
    generate_free(g);
}

static void assert_same(const struct generate_result *a, const struct generate_result *b)
{
    assert_int_equal(a->n_sequences, b->n_sequences);
    for (int i = 0; i < a->n_sequences; i++) {
        const struct generate_sequence *x = &a->sequences[i], *y = &b->sequences[i];

        assert_int_equal(x->n_ids, y->n_ids);
        assert_memory_equal(x->ids, y->ids, (size_t)x->n_ids * sizeof(*x->ids));
        assert_int_equal(x->finish, y->finish);
        assert_memory_equal(&x->logprob, &y->logprob, sizeof(x->logprob));
        assert_memory_equal(&x->score, &y->score, sizeof(x->score));
    }
}

/* In shuffled order, at random moments; results go to `jobs`. */
static void run_together(struct generate *g, struct job *jobs, int max_active, unsigned *seed)
{
    int order[N_REQUESTS], n_taken = 0, next = 0;

    for (int i = 0; i < N_REQUESTS; i++) {
        const int at = rand_r(seed) % (i + 1);

        order[i] = order[at];
        order[at] = i;
    }
    while (n_taken < N_REQUESTS) {
        while (next < N_REQUESTS && rand_r(seed) % 3) {
            assert_int_equal(submit(g, &jobs[order[next]], (uint64_t)order[next]), 0);
            next++;
        }
        assert_true(generate_step(g) >= 0);
        n_taken += take_all(g, jobs);
        assert_true(next - n_taken - (N_REQUESTS - generate_room(g)) <= max_active); /* neither taken nor waiting */
    }
    assert_int_equal(generate_step(g), 0);
}

/* Beams, samples and greedy requests, more of them than there is room for: each must give to the bit what it gives
 * alone, whatever its neighbours, the order, the limits of a pass and the number of threads. */
static void test_generate_results_do_not_depend_on_company(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = (unsigned)time(NULL);
    struct job jobs[N_REQUESTS], together[N_REQUESTS];

    print_message("seed %u\n", seed);
    for (int i = 0; i < N_REQUESTS; i++) {
        job_make(f, &jobs[i], &seed);
        job_decode(&jobs[i], &seed);
        run_alone(f, jobs, i);
        assert_int_equal(jobs[i].got.n_sequences, jobs[i].options.n_return);
    }
    for (int round = 0; round < 4; round++) {
        struct lm *m = round % 2 ? f->roomy : f->lm;
        struct generate *g = generator_of(m, f->c->config.image_token, N_REQUESTS);

        for (int i = 0; i < N_REQUESTS; i++) {
            together[i] = jobs[i];
            together[i].got = (struct generate_result){0};
        }
        run_together(g, together, lm_get_limits(m)->n_sequences, &seed);
        for (int i = 0; i < N_REQUESTS; i++) {
            assert_same(&together[i].got, &jobs[i].got);
            generate_result_release(&together[i].got);
        }
        generate_free(g);
    }
    for (int i = 0; i < N_REQUESTS; i++)
        job_release(&jobs[i]);
}

/* Another key, another sample; the same key, the same one. */
static void test_generate_samples_follow_the_key(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = 13;
    struct job jobs[3];

    job_make(f, &jobs[0], &seed);
    jobs[0].options.max_new_tokens = MAX_NEW;
    jobs[0].options.sample = true;
    jobs[0].options.temperature = 2;
    jobs[0].options.n_return = 3;
    jobs[0].key = 0x123456789abcdefU;
    jobs[1] = jobs[2] = jobs[0];
    jobs[2].key ^= (uint64_t)1 << 63;
    for (int i = 0; i < 3; i++)
        run_alone(f, jobs, i);
    assert_same(&jobs[0].got, &jobs[1].got);
    assert_memory_not_equal(jobs[0].got.sequences[0].ids, jobs[2].got.sequences[0].ids, MAX_NEW * sizeof(int32_t));
    assert_memory_not_equal(jobs[0].got.sequences[0].ids, jobs[0].got.sequences[1].ids, MAX_NEW * sizeof(int32_t));
    jobs[1].rows = jobs[2].rows = NULL;
    for (int i = 0; i < 3; i++)
        job_release(&jobs[i]);
}

/* The first id that is in the eos list ends the sequence, is its last id, and counts. */
static void test_generate_stops_with_the_first_eos(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = 7;
    struct job jobs[1];
    int32_t ids[MAX_NEW];
    int n_until;

    job_make(f, &jobs[0], &seed);
    jobs[0].options.max_new_tokens = MAX_NEW;
    run_alone(f, jobs, 0);
    memcpy(ids, jobs[0].got.sequences[0].ids, sizeof(ids));

    jobs[0].eos[0] = VOCAB - 1;
    jobs[0].eos[1] = ids[MAX_NEW / 2];
    jobs[0].n_eos = 2;
    for (n_until = 0; ids[n_until] != jobs[0].eos[1] && ids[n_until] != jobs[0].eos[0]; n_until++)
        ;
    run_alone(f, jobs, 0);
    assert_int_equal(jobs[0].got.sequences[0].n_ids, n_until + 1);
    assert_int_equal(jobs[0].got.sequences[0].finish, GENERATE_FINISH_EOS);
    assert_memory_equal(jobs[0].got.sequences[0].ids, ids, (size_t)(n_until + 1) * sizeof(*ids));
    job_release(&jobs[0]);
}

/* log-softmax of the id, which must be a largest one, after prompt and ids */
static double logprob_of(const struct fixture *f, const struct job *j, int n_ids, const int32_t *ids, int32_t id)
{
    int32_t prompt[MAX_PROMPT + MAX_NEW];
    struct lm_start start = {.image_rows = j->rows,
                             .image_dtype = DTYPE_F32,
                             .n_image_rows = N_ROWS,
                             .ids = prompt,
                             .n_ids = j->n_prompt + n_ids};
    const float *device = NULL;
    float logits[VOCAB];
    double sum = 0;

    memcpy(prompt, j->prompt, (size_t)j->n_prompt * sizeof(*prompt));
    memcpy(prompt + j->n_prompt, ids, (size_t)n_ids * sizeof(*prompt));
    assert_int_equal(lm_forward(f->lm, 1, &start, 0, NULL, &device), 0);
    assert_int_equal(f->o->f->download(f->o, logits, DTYPE_F32, device, DTYPE_F32, VOCAB), 0);
    for (int i = 0; i < VOCAB; i++) {
        assert_true(logits[i] <= logits[id]);
        sum += exp((double)logits[i] - (double)logits[id]);
    }
    return -log(sum);
}

/* The log-probability is that of the model's softmax, summed over the new tokens; score is the same where there are no
 * beams. */
static void test_generate_logprob_is_the_models(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = 11;
    struct job jobs[1];
    const struct generate_sequence *s;
    double want = 0;

    job_make(f, &jobs[0], &seed);
    jobs[0].options.max_new_tokens = 4;
    run_alone(f, jobs, 0);
    s = jobs[0].got.sequences;
    for (int i = 0; i < 4; i++)
        want += logprob_of(f, &jobs[0], i, s->ids, s->ids[i]);
    assert_true(fabs(s->logprob - want) <= 1e-5 * fabs(want));
    assert_true(s->score == s->logprob);
    job_release(&jobs[0]);
}

static void refused(const struct fixture *f, const struct job *j, struct generation_options options, int code,
                    const char *name)
{
    struct generate *g = generator(f, 2);
    struct generate_request r = request_of(j, 1);
    struct err err = {{0}};

    r.options = options;
    assert_int_equal(generate_check(g, &r, &err), code);
    if (!strstr(err.text, name))
        fail_msg("\"%s\" does not name %s", err.text, name);
    assert_int_equal(generate_submit(g, &r, &err), code);
    assert_int_equal(generate_room(g), 2);
    generate_free(g);
}

#define REFUSED(name, ...)                                          \
    do {                                                            \
        struct generation_options o = generation_options_default(); \
        __VA_ARGS__;                                                \
        refused(f, &j, o, -EINVAL, name);                           \
    } while (0)

static void test_generate_refuses_options_out_of_range_by_name(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = 3;
    struct job j;

    job_make(f, &j, &seed);
    REFUSED("max_new_tokens", o.max_new_tokens = 0);
    REFUSED("min_new_tokens", o.min_new_tokens = -1);
    REFUSED("min_new_tokens", o.min_new_tokens = o.max_new_tokens + 1);
    REFUSED("num_beams", o.n_beams = 0);
    REFUSED("num_beams", o.n_beams = GENERATION_MAX_BEAMS + 1);
    REFUSED("num_beams", o.n_beams = INT32_MAX);
    REFUSED("num_return_sequences", o.n_return = 0);
    REFUSED("num_return_sequences", o.n_return = 2);
    REFUSED("num_return_sequences", o.n_beams = 4; o.n_return = 5);
    REFUSED("num_return_sequences", o.sample = true; o.n_return = GENERATION_MAX_RETURN + 1);
    REFUSED("do_sample", o.sample = true; o.n_beams = 2);
    REFUSED("length_penalty", o.n_beams = 2; o.length_penalty = NAN);
    REFUSED("early_stopping", o.early_stopping = EARLY_STOPPING_NEVER + 1);
    REFUSED("repetition_penalty", o.repetition_penalty = 0);
    REFUSED("repetition_penalty", o.repetition_penalty = -1.5F);
    REFUSED("repetition_penalty", o.repetition_penalty = INFINITY);
    REFUSED("no_repeat_ngram_size", o.no_repeat_ngram = -1);
    REFUSED("temperature", o.sample = true; o.temperature = 0);
    REFUSED("temperature", o.sample = true; o.temperature = NAN);
    REFUSED("top_k", o.sample = true; o.top_k = -1);
    REFUSED("top_p", o.sample = true; o.top_p = 0);
    REFUSED("top_p", o.sample = true; o.top_p = 1.01F);
    REFUSED("top_p", o.sample = true; o.top_p = NAN);

    /* 64 beams with 10 ends: 704 candidates, as many as there are tokens; one end more is too many */
    j.n_eos = 0;
    {
        const int32_t eos[11] = {0};
        struct generate *g = generator(f, 1);
        struct generate_request r = request_of(&j, 1);
        struct err err = {{0}};

        r.eos = eos;
        r.n_eos = 10;
        r.options.n_beams = 64;
        assert_int_equal(generate_check(g, &r, &err), -E2BIG); /* only because six sequences run at a time */
        assert_non_null(strstr(err.text, "64 beams"));
        r.n_eos = 11;
        assert_int_equal(generate_check(g, &r, &err), -EINVAL);
        assert_non_null(strstr(err.text, "num_beams is 64, which needs a vocabulary of 768 tokens; the model has 704"));
        generate_free(g);
    }
    job_release(&j);
}

static void test_generate_refuses_what_does_not_fit(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, 2);
    unsigned seed = 3;
    struct job j;
    struct generate_request r;
    struct err err = {{0}};

    job_make(f, &j, &seed);
    j.n_prompt = MAX_PROMPT;
    /* 150 rows of the cache: 4 image rows + 9 prompt tokens + 1 * 84 of one sequence, or 5 * 27 of five; the last new
     * token is never fed back. 96 positions. */
    r = request_of(&j, 1);
    r.options.max_new_tokens = 84;
    assert_int_equal(generate_check(g, &r, &err), 0);
    r.options.max_new_tokens = 85;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    assert_non_null(strstr(err.text, "97 positions"));
    r.options.n_beams = 5;
    r.options.max_new_tokens = 28;
    assert_int_equal(generate_check(g, &r, &err), 0);
    r.options.max_new_tokens = 29;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    assert_non_null(strstr(err.text, "take 153 rows of the cache, which has 150"));
    r.options.max_new_tokens = INT32_MAX;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    r = request_of(&j, 1);
    r.options.n_beams = N_SEQUENCES + 1;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    assert_non_null(strstr(err.text, "7 beams"));
    r = request_of(&j, 1);
    r.n_image_rows = -1;
    assert_int_equal(generate_submit(g, &r, &err), -EINVAL);
    r = request_of(&j, 1);
    r.n_prompt = 0;
    assert_int_equal(generate_submit(g, &r, &err), -EINVAL);
    r = request_of(&j, 1);
    r.n_eos = GENERATE_MAX_EOS + 1;
    assert_int_equal(generate_submit(g, &r, &err), -EINVAL);
    j.prompt[5] = VOCAB;
    assert_int_equal(submit(g, &j, 1), -EINVAL);
    j.prompt[5] = -1;
    assert_int_equal(submit(g, &j, 1), -EINVAL);
    j.prompt[5] = IMAGE_TOKEN;
    assert_int_equal(submit(g, &j, 1), -EINVAL);
    j.prompt[5] = 0;
    assert_int_equal(generate_room(g), 2);

    assert_int_equal(submit(g, &j, 1), 0);
    assert_int_equal(generate_room(g), 1);
    assert_int_equal(submit(g, &j, 2), 0);
    assert_int_equal(submit(g, &j, 3), -EAGAIN);
    assert_int_equal(generate_room(g), 0);
    generate_free(g); /* with requests waiting */
    job_release(&j);
}

/* Numbers that are none spoil their own request and no other. */
static void test_generate_a_poisoned_picture_fails_alone(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, 6);
    struct job jobs[6];
    unsigned seed = 21;

    for (int i = 0; i < 6; i++) {
        job_make(f, &jobs[i], &seed);
        jobs[i].options.n_beams = i < 2 ? 2 : 1;
        jobs[i].options.sample = i > 3;
        if (i % 2)
            run_alone(f, jobs, i);
        else
            jobs[i].rows[3] = NAN;
        assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    }
    for (int n_done = 0; n_done < 6;) {
        struct generate_result r;

        assert_true(generate_step(g) >= 0);
        for (; generate_take(g, &r) == 1; n_done++) {
            if (r.tag % 2)
                assert_same(&r, &jobs[r.tag].got);
            else
                assert_int_equal(r.n_sequences, 0);
            generate_result_release(&r);
        }
    }
    for (int i = 0; i < 6; i++)
        job_release(&jobs[i]);
    generate_free(g);
}

/* Cancelled requests give no result, wherever they were, and their room is used again. */
static void test_generate_cancel_frees_the_room(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, N_REQUESTS);
    struct job jobs[N_SEQUENCES + 2];
    unsigned seed = 5;

    for (int i = 0; i < N_SEQUENCES + 2; i++) {
        job_make(f, &jobs[i], &seed);
        jobs[i].n_prompt = 1;
        jobs[i].options.max_new_tokens = 5;
        assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    }
    assert_int_equal(generate_step(g), N_SEQUENCES);
    assert_int_equal(generate_cancel(g, 1), 1);               /* active */
    assert_int_equal(generate_cancel(g, N_SEQUENCES + 1), 1); /* waiting */
    assert_int_equal(generate_cancel(g, N_REQUESTS), 0);      /* nobody */
    assert_int_equal(generate_step(g), N_SEQUENCES);          /* the last waiting one has taken the room */
    for (int i = 0; i < 3; i++)
        assert_true(generate_step(g) > 0);
    assert_int_equal(generate_cancel(g, 0), 1); /* finished */
    assert_true(generate_step(g) <= 1);         /* as are all but the one that joined later */
    while (generate_step(g) > 0)
        ;
    assert_int_equal(take_all(g, jobs), N_SEQUENCES - 1);
    assert_null(jobs[0].got.sequences);
    assert_null(jobs[1].got.sequences);
    for (int i = 0; i < N_SEQUENCES + 2; i++)
        job_release(&jobs[i]);
    generate_free(g);
}

/* Between the halves of a step requests come and go; what the pass holds stays until it has ended. */
static void test_generate_cancel_between_the_halves_of_a_step(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, N_REQUESTS);
    struct job jobs[N_SEQUENCES + 2];
    unsigned seed = 6;

    for (int i = 0; i < N_SEQUENCES + 2; i++) {
        job_make(f, &jobs[i], &seed);
        jobs[i].n_prompt = 1;
        jobs[i].options.max_new_tokens = 5;
        if (i < N_SEQUENCES + 1)
            assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    }
    assert_int_equal(generate_step_begin(g), N_SEQUENCES);
    assert_int_equal(generate_cancel(g, 1), 1); /* in the pass */
    assert_int_equal(generate_cancel(g, 1), 0); /* gone is gone */
    assert_int_equal(submit(g, &jobs[N_SEQUENCES + 1], N_SEQUENCES + 1), 0);
    assert_int_equal(generate_cancel(g, N_SEQUENCES), 1); /* waiting */
    assert_int_equal(generate_step_end(g), N_SEQUENCES);
    assert_int_equal(generate_room(g), N_REQUESTS - 1); /* one waits, the others are active */
    assert_int_equal(generate_step(g), N_SEQUENCES);    /* the one that was submitted meanwhile has the room */
    while (generate_step(g) > 0)
        ;
    assert_int_equal(generate_step_end(g), 0); /* nothing has begun */
    assert_int_equal(take_all(g, jobs), N_SEQUENCES);
    assert_null(jobs[1].got.sequences);
    assert_null(jobs[N_SEQUENCES].got.sequences);
    for (int i = 0; i < N_SEQUENCES + 2; i++)
        job_release(&jobs[i]);
    generate_free(g);
}

/* A request of all sequences waits until the room is there; what came after it waits for it. */
static void test_generate_a_large_request_is_not_overtaken(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, N_REQUESTS);
    struct job jobs[N_REQUESTS];
    int order[N_REQUESTS], n_taken = 0;
    unsigned seed = 9;
    struct generate_result r;

    for (int i = 0; i < N_REQUESTS; i++) {
        job_make(f, &jobs[i], &seed);
        jobs[i].options.max_new_tokens = 4 + i % 3;
        if (i == 4)
            jobs[i].options.n_beams = N_SEQUENCES;
        assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    }
    while (generate_step(g) > 0)
        while (generate_take(g, &r) == 1) {
            order[n_taken++] = (int)r.tag;
            generate_result_release(&r);
        }
    assert_int_equal(n_taken, N_REQUESTS);
    for (int i = 0; i < N_REQUESTS; i++)
        if (order[i] == 4)
            assert_int_equal(i, 4);
    for (int i = 0; i < N_REQUESTS; i++)
        job_release(&jobs[i]);
    generate_free(g);
}

static void test_generate_request_list_keeps_order_and_drops_by_tag(void **state)
{
    const struct fixture *f = *state;
    const int32_t prompt[1] = {0};
    struct request_list l = {0};
    struct request *request;

    for (uint64_t tag = 0; tag < 6; tag++) {
        request =
            request_new(f->lm,
                        &(struct generate_request){
                            .tag = tag % 3, .prompt = prompt, .n_prompt = 1, .options = generation_options_default()},
                        -1);
        assert_non_null(request);
        request_list_push(&l, request);
    }
    assert_int_equal(request_list_drop(&l, &(uint64_t){2}), 2);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(l.n, 4 - i);
        request = request_list_pop(&l);
        assert_int_equal(request->tag, i % 2);
        request_free(request);
    }
    assert_null(request_list_pop(&l));
    assert_null(l.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generate_results_do_not_depend_on_company),
        cmocka_unit_test(test_generate_samples_follow_the_key),
        cmocka_unit_test(test_generate_stops_with_the_first_eos),
        cmocka_unit_test(test_generate_logprob_is_the_models),
        cmocka_unit_test(test_generate_refuses_options_out_of_range_by_name),
        cmocka_unit_test(test_generate_refuses_what_does_not_fit),
        cmocka_unit_test(test_generate_a_poisoned_picture_fails_alone),
        cmocka_unit_test(test_generate_cancel_frees_the_room),
        cmocka_unit_test(test_generate_cancel_between_the_halves_of_a_step),
        cmocka_unit_test(test_generate_a_large_request_is_not_overtaken),
        cmocka_unit_test(test_generate_request_list_keeps_order_and_drops_by_tag),
    };
    const struct CMUnitTest t5_tests[] = {cmocka_unit_test(test_generate_results_do_not_depend_on_company)};
    const int failed = cmocka_run_group_tests_name("generate", tests, set_up, tear_down);

    return failed + cmocka_run_group_tests_name("generate t5", t5_tests, set_up_t5, tear_down);
}
