/* The sequence scheduler over a small OPT (tests/golden/opt_a) with made-up image rows. */
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
#include "llm_worker/opt.h"
#include "llm_worker/sequence.h"
#include "model/checkpoint.h"
#include "tensor/ops.h"

enum { N_SLOTS = 3, N_REQUESTS = 17, N_ROWS = 4, MAX_NEW = 20, MAX_PROMPT = 9, IMAGE_TOKEN = 700, VOCAB = 704 };

struct fixture {
    struct checkpoint *c;
    struct ops *o;
    struct opt *opt;
};

/* One request and, once it has run, its result. */
struct job {
    float *rows;
    int32_t prompt[MAX_PROMPT];
    int n_prompt, max_new_tokens;
    int32_t eos[2];
    int n_eos;
    struct generate_result got;
};

static int set_up(void **state)
{
    static struct fixture f;
    struct err err = {{0}};

    if (checkpoint_open("tests/golden/opt_a", &f.c, &err) < 0 || ops_cpu_new(1, DTYPE_F32, &f.o, &err) < 0 ||
        opt_new(f.o, f.c, &(struct opt_limits){.n_slots = N_SLOTS, .n_positions = 40}, &f.opt, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(opt_vocab_size(f.opt), VOCAB);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    opt_free(f->opt);
    ops_free(f->o);
    checkpoint_free(f->c);
    return 0;
}

static struct generate *generator(const struct fixture *f, int queue_limit)
{
    struct generate *g = NULL;
    struct err err = {{0}};

    if (generate_new(f->opt, queue_limit, IMAGE_TOKEN, &g, &err) < 0)
        fail_msg("%s", err.text);
    return g;
}

static void job_make(const struct fixture *f, struct job *j, unsigned *seed)
{
    const int width = opt_width(f->opt);

    *j = (struct job){.n_prompt = 1 + rand_r(seed) % MAX_PROMPT, .max_new_tokens = 1 + rand_r(seed) % MAX_NEW};
    j->rows = calloc((size_t)(N_ROWS * width), sizeof(float));
    assert_non_null(j->rows);
    for (int i = 0; i < N_ROWS * width; i++)
        j->rows[i] = (float)(rand_r(seed) % 2001 - 1000) / 500;
    for (int i = 0; i < j->n_prompt; i++)
        j->prompt[i] = rand_r(seed) % IMAGE_TOKEN;
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
                                     .n_image_rows = N_ROWS,
                                     .prompt = j->prompt,
                                     .n_prompt = j->n_prompt,
                                     .max_new_tokens = j->max_new_tokens,
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
        assert_int_equal(rc, 1);
    assert_int_equal(rc, 0);
    assert_int_equal(take_all(g, jobs), 1);
    generate_free(g);
}

static void assert_same(const struct generate_result *a, const struct generate_result *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof(*a->ids));
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(&a->logprob, &b->logprob, sizeof(a->logprob));
}

/* Requests come in shuffled order, at random moments, more of them than slots; each must give what it gives alone. */
static void test_generate_results_do_not_depend_on_company(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = (unsigned)time(NULL);
    struct job jobs[N_REQUESTS], together[N_REQUESTS];
    int order[N_REQUESTS], n_taken = 0, next = 0;
    struct generate *g = generator(f, N_REQUESTS);

    print_message("seed %u\n", seed);
    for (int i = 0; i < N_REQUESTS; i++) {
        job_make(f, &jobs[i], &seed);
        run_alone(f, jobs, i);
        assert_int_equal(jobs[i].got.n_ids, jobs[i].max_new_tokens);
        assert_int_equal(jobs[i].got.finish, GENERATE_FINISH_LENGTH);
        together[i] = jobs[i];
        together[i].got = (struct generate_result){0};
        order[i] = i;
    }
    for (int i = N_REQUESTS - 1; i > 0; i--) {
        int k = rand_r(&seed) % (i + 1), t = order[i];

        order[i] = order[k];
        order[k] = t;
    }
    while (n_taken < N_REQUESTS) {
        while (next < N_REQUESTS && rand_r(&seed) % 3) {
            assert_int_equal(submit(g, &together[order[next]], (uint64_t)order[next]), 0);
            next++;
        }
        assert_true(generate_step(g) >= 0);
        assert_true(generate_n_active(g) <= N_SLOTS);
        n_taken += take_all(g, together);
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        assert_same(&together[i].got, &jobs[i].got);
        generate_result_release(&together[i].got);
        job_release(&jobs[i]);
    }
    assert_int_equal(generate_step(g), 0);
    generate_free(g);
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
    jobs[0].max_new_tokens = MAX_NEW;
    run_alone(f, jobs, 0);
    memcpy(ids, jobs[0].got.ids, sizeof(ids));

    jobs[0].eos[0] = VOCAB - 1;
    jobs[0].eos[1] = ids[MAX_NEW / 2];
    jobs[0].n_eos = 2;
    for (n_until = 0; ids[n_until] != jobs[0].eos[1] && ids[n_until] != jobs[0].eos[0]; n_until++)
        ;
    run_alone(f, jobs, 0);
    assert_int_equal(jobs[0].got.n_ids, n_until + 1);
    assert_int_equal(jobs[0].got.finish, GENERATE_FINISH_EOS);
    assert_memory_equal(jobs[0].got.ids, ids, (size_t)(n_until + 1) * sizeof(*ids));
    job_release(&jobs[0]);
}

/* log-softmax of the chosen id, which must be a largest one, for a pass of one sequence */
static double logprob_of(const struct fixture *f, const struct opt_seq *seq, int32_t id)
{
    const float *device = NULL;
    float logits[VOCAB];
    double sum = 0;

    assert_int_equal(opt_forward(f->opt, 1, seq, &device), 0);
    assert_int_equal(f->o->f->download_f32_from_f32(f->o, logits, device, VOCAB), 0);
    for (int i = 0; i < VOCAB; i++) {
        assert_true(logits[i] <= logits[id]);
        sum += exp((double)logits[i] - (double)logits[id]);
    }
    return -log(sum);
}

/* The log-probability is that of the model's softmax, summed over the new tokens. */
static void test_generate_logprob_is_the_models(void **state)
{
    const struct fixture *f = *state;
    unsigned seed = 11;
    struct job jobs[1];
    struct opt_seq seq;
    double want;

    job_make(f, &jobs[0], &seed);
    jobs[0].max_new_tokens = 4;
    run_alone(f, jobs, 0);
    seq = (struct opt_seq){
        .n_image_rows = N_ROWS, .image_rows = jobs[0].rows, .n_ids = jobs[0].n_prompt, .ids = jobs[0].prompt};
    want = logprob_of(f, &seq, jobs[0].got.ids[0]);
    for (int i = 1; i < 4; i++) {
        seq = (struct opt_seq){
            .first_position = N_ROWS + jobs[0].n_prompt + i - 1, .n_ids = 1, .ids = &jobs[0].got.ids[i - 1]};
        want += logprob_of(f, &seq, jobs[0].got.ids[i]);
    }
    assert_true(fabs(jobs[0].got.logprob - want) <= 1e-5 * fabs(want));
    job_release(&jobs[0]);
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
    /* 40 positions: 4 rows + 9 prompt tokens + 28 new ones, the last of which is never fed back */
    j.max_new_tokens = 28;
    r = request_of(&j, 1);
    assert_int_equal(generate_check(g, &r, &err), 0);
    r.max_new_tokens = 29;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    assert_non_null(strstr(err.text, "41 positions, there are 40"));
    r.max_new_tokens = INT32_MAX;
    assert_int_equal(generate_submit(g, &r, &err), -E2BIG);
    r.max_new_tokens = 0;
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
    assert_int_equal(generate_n_waiting(g), 0);

    assert_int_equal(submit(g, &j, 1), 0);
    assert_int_equal(generate_room(g), 1);
    assert_int_equal(submit(g, &j, 2), 0);
    assert_int_equal(submit(g, &j, 3), -EAGAIN);
    assert_int_equal(generate_n_waiting(g), 2);
    generate_free(g); /* with requests waiting */
    job_release(&j);
}

/* Cancelled requests give no result, wherever they were, and their slots are used again. */
static void test_generate_cancel_frees_the_slot(void **state)
{
    const struct fixture *f = *state;
    struct generate *g = generator(f, N_REQUESTS);
    struct job jobs[N_SLOTS + 2];
    unsigned seed = 5;

    for (int i = 0; i < N_SLOTS + 2; i++) {
        job_make(f, &jobs[i], &seed);
        jobs[i].max_new_tokens = 5;
        assert_int_equal(submit(g, &jobs[i], (uint64_t)i), 0);
    }
    assert_int_equal(generate_step(g), N_SLOTS);
    assert_int_equal(generate_cancel(g, 1), 1);           /* active */
    assert_int_equal(generate_cancel(g, N_SLOTS + 1), 1); /* waiting */
    assert_int_equal(generate_cancel(g, N_REQUESTS), 0);  /* nobody */
    assert_int_equal(generate_step(g), N_SLOTS);          /* the last waiting one has taken the slot */
    for (int i = 0; i < 3; i++)
        assert_true(generate_step(g) > 0);
    assert_true(generate_n_finished(g) > 0);
    assert_int_equal(generate_cancel(g, 0), 1); /* finished */
    while (generate_step(g) > 0)
        ;
    assert_int_equal(take_all(g, jobs), N_SLOTS - 1);
    assert_null(jobs[0].got.ids);
    assert_null(jobs[1].got.ids);
    for (int i = 0; i < N_SLOTS + 2; i++)
        job_release(&jobs[i]);
    generate_free(g);
}

static void test_generate_sequence_list_keeps_order_and_drops_by_tag(void **state)
{
    const int32_t prompt[1] = {0};
    struct sequence_list l = {0};
    struct sequence *s;

    (void)state;
    for (uint64_t tag = 0; tag < 6; tag++) {
        s = sequence_new(
            &(struct generate_request){.tag = tag % 3, .prompt = prompt, .n_prompt = 1, .max_new_tokens = 1}, 8);
        assert_non_null(s);
        sequence_list_push(&l, s);
    }
    assert_int_equal(sequence_list_drop(&l, &(uint64_t){2}), 2);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(l.n, 4 - i);
        s = sequence_list_pop(&l);
        assert_int_equal(s->tag, i % 2);
        free(s);
    }
    assert_null(sequence_list_pop(&l));
    assert_null(l.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generate_results_do_not_depend_on_company),
        cmocka_unit_test(test_generate_stops_with_the_first_eos),
        cmocka_unit_test(test_generate_logprob_is_the_models),
        cmocka_unit_test(test_generate_refuses_what_does_not_fit),
        cmocka_unit_test(test_generate_cancel_frees_the_slot),
        cmocka_unit_test(test_generate_sequence_list_keeps_order_and_drops_by_tag),
    };

    return cmocka_run_group_tests_name("generate", tests, set_up, tear_down);
}
