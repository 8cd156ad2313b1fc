/* The broker's core in a world of faults. Every seed is one world; the same seed is the same world everywhere.
 *
 *     simulate [--seeds N] [--first S] [--verbose]
 *
 * Fails when a seed fails, when a fault was never injected in 100 seeds or more, or when a planted bug goes unnoticed.
 */
#include "tests/simulate/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLANTED_SEEDS = 200, ALL_FAULTS_FROM_SEEDS = 100 };

static const char *const class_names[N_CLASSES] = {"hello",  "credit", "heartbeat", "result", "failure",
                                                   "return", "bye",    "answer",    "work"};
static const char *const net_names[N_NET_FAULTS] = {"lost", "delayed", "doubled", "reordered"};
static const char *const fault_names[N_FAULTS] = {
    [FAULT_WORKER_CRASH] = "worker crash",
    [FAULT_WORKER_HANG] = "worker hangs, resumes",
    [FAULT_WORKER_STUCK] = "worker stuck, heartbeats",
    [FAULT_WORKER_SLOW] = "slow worker",
    [FAULT_WORKER_DRAIN] = "worker drains",
    [FAULT_WORKER_RETURN] = "lease handed back",
    [FAULT_WORKER_RECONNECT] = "worker reconnects",
    [FAULT_WORKER_LOST] = "its connection is missed",
    [FAULT_VISITOR] = "visitor",
    [FAULT_WORKER_FAILURE] = "transient failure",
    [FAULT_WORKER_BAD_ROWS] = "result of wrong length",
    [FAULT_WORKER_LIAR] = "worker does all wrong",
    [FAULT_TENSOR_REFUSED] = "tensor is refused",
    [FAULT_WORKER_WRONG_MODEL] = "worker of another model",
    [FAULT_STALE_RESULT] = "stale result",
    [FAULT_POISON_KILLS] = "item kills its worker",
    [FAULT_POISON_FAILS] = "item fails its unit",
    [FAULT_ITEM_ERROR] = "item with an error",
    [FAULT_PAYLOAD_LOST] = "tensors lost",
    [FAULT_BROKER_CRASH] = "broker crash",
    [FAULT_BROKER_SHUTDOWN] = "broker shutdown",
    [FAULT_BROKER_STOPPED] = "broker stopped, goes on",
    [FAULT_NONSENSE] = "job events without sense",
    [FAULT_COMMIT_CUT] = "crash before a transaction",
    [FAULT_ANSWER_CUT] = "crash before its answer",
    [FAULT_DISK_FULL] = "disk full",
    [FAULT_LATE_UNITS] = "late units",
    [FAULT_JOB_STOP] = "job stopped, started",
    [FAULT_JOB_CANCEL] = "job closed, opened again",
    [FAULT_SOURCE_GONE] = "source gone for a while",
    [FAULT_SURGE] = "failures surge",
    [FAULT_ITEMS_AGAIN] = "items to be done again",
};

#define NO_BUG "none"

static const struct {
    const char *name;
    struct core_faults faults;
} planted[] = {
    {"stale results are taken", {.skip_fence = true}},
    {"a split keeps its reservation", {.keep_reservation_on_split = true}},
    {"a heartbeat extends leases it does not name", {.heartbeat_extends_all = true}},
    {"tensors go after the first consumer", {.free_after_first_consumer = true}},
    {"a failing unit is never split", {.never_split = true}},
    {"who fails everything is not slowed", {.never_bench = true}},
    {"who fails everything is believed", {.blame_always = true}},
    {"what failed goes to the same worker again", {.same_worker_again = true}},
    {"commit is sent twice", {.commit_twice = true}},
    {"failed attempts are not made durable", {.forget_attempts = true}},
    {"payloads are dropped twice", {.drop_twice = true}},
    {"rows that wait for a commit are not bounded", {.ignore_row_limit = true}},
    {"failures surge and nothing happens", {.never_pause = true}},
    {"what a surge puts back is forgotten", {.forget_put_back = true}},
    {"all of a unit is done again", {.redo_all = true}},
    {NO_BUG, {0}}, /* the control: whoever finds something here finds it everywhere */
};

static volatile uint64_t seed_now;

static void say_seed(int sig)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "simulate: seed %llu stopped here\n", (unsigned long long)seed_now);

    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        _exit(3);
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Print the table; the number of faults that never happened. */
static uint32_t print_tally(const struct tally *t)
{
    uint32_t never = 0;

    printf("%llu steps, %llu units, %llu items; %llu splits, %llu quarantined (%llu of them by bad luck)\n\n",
           (unsigned long long)t->steps, (unsigned long long)t->units, (unsigned long long)t->items,
           (unsigned long long)t->splits, (unsigned long long)t->quarantined, (unsigned long long)t->unlucky);
    printf("%-28s", "messages");
    for (uint32_t f = 0; f < N_NET_FAULTS; f++)
        printf(" %10s", net_names[f]);
    putchar('\n');
    for (uint32_t c = 0; c < N_CLASSES; c++) {
        printf("  %-26s", class_names[c]);
        for (uint32_t f = 0; f < N_NET_FAULTS; f++) {
            printf(" %10llu", (unsigned long long)t->net[c][f]);
            never +=
                t->net[c][f] == 0 && !(c == MSG_BYE && f == NET_REORDERED); /* BYE is the last, nothing overtakes */
        }
        putchar('\n');
    }
    printf("faults\n");
    for (uint32_t f = 0; f < N_FAULTS; f++) {
        printf("  %-26s %10llu\n", fault_names[f], (unsigned long long)t->faults[f]);
        never += t->faults[f] == 0;
    }
    return never;
}

/* The first seed that notices the bug, 0: none. Each world runs in a process of its own, since it may well abort. */
static uint64_t find_planted(const struct core_faults *faults, uint64_t first, bool verbose)
{
    for (uint64_t seed = first; seed < first + PLANTED_SEEDS; seed++) {
        int status = 0;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid < 0)
            abort();
        if (pid == 0) {
            struct tally t = {0};

            if (!verbose && !freopen("/dev/null", "w", stderr))
                _exit(3);
            signal(SIGABRT, SIG_DFL);
            alarm(20);
            _exit(world_run(seed, faults, false, &t) ? 0 : 1);
        }
        if (waitpid(pid, &status, 0) == pid && status != 0)
            return seed;
    }
    return 0;
}

/* How many planted bugs went unnoticed, or were noticed where there is none. */
static uint32_t hunt_planted(uint64_t first, bool verbose)
{
    uint32_t n_wrong = 0;

    printf("planted bugs\n");
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
        uint64_t seed = find_planted(&planted[i].faults, first, verbose);
        bool is_control = strcmp(planted[i].name, NO_BUG) == 0;

        if (seed)
            printf("  %-46s found by seed %llu\n", planted[i].name, (unsigned long long)seed);
        else
            printf("  %-46s not found in %d seeds%s\n", planted[i].name, PLANTED_SEEDS,
                   is_control ? ", as it should be" : "");
        n_wrong += is_control ? seed != 0 : seed == 0;
    }
    return n_wrong;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "simulate: %s is not a number\n", text);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    struct tally t = {0};
    uint64_t n_seeds = 300, first = 1, n_failed = 0;
    bool verbose = false;
    uint32_t never, missed;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            n_seeds = number(argv[++i]);
        else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc)
            first = number(argv[++i]);
        else {
            fprintf(stderr, "usage: simulate [--seeds N] [--first S] [--verbose]\n");
            return 2;
        }
    }
    signal(SIGABRT, say_seed);
    for (seed_now = first; seed_now < first + n_seeds; seed_now++)
        n_failed += !world_run(seed_now, NULL, verbose, &t);
    printf("simulate: seeds %llu to %llu, %llu failed\n", (unsigned long long)first,
           (unsigned long long)(first + n_seeds - 1), (unsigned long long)n_failed);
    never = print_tally(&t);
    if (n_seeds < ALL_FAULTS_FROM_SEEDS)
        return n_failed ? 1 : 0;
    if (never)
        fprintf(stderr, "simulate: %u kinds of fault never happened\n", never);
    missed = hunt_planted(first, verbose);
    return n_failed || never || missed ? 1 : 0;
}
